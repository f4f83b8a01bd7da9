"""What the best trials of studies reach on people never seen: one model, an ensemble, and a blend with kernel ridge.

    face3d-tune run --study identity --trials 50
    face3d-tune run --trials 50
    python -m benchmarks.ensembles identity=3              # three members of the best trial of the study identity
    python -m benchmarks.ensembles identity=3 default=1    # and one of the study default

All people judge once, in rotations, by members that were trained on others. In each rotation the validation people
choose the weight of kernel ridge, as `predict --blend` does. The settings were chosen with some of these people.
Members stay in a folder, so the same command resumes. On the test people `face3d-tune judge FOLDER… --blend kernel
--part test` says the same of one ensemble.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
from optuna.storages import BaseStorage

from benchmarks.common import machine, table
from face3d_tune import seeds
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.rotation import ROTATIONS, rotations
from face3d_tune.device import Precision, choose_device, choose_precision, set_threads
from face3d_tune.errors import TuneError
from face3d_tune.executor.plan import Plan, choose
from face3d_tune.refit import baselines, intervals
from face3d_tune.refit.candidates import Candidate, candidates
from face3d_tune.refit.ensemble_folder import Members
from face3d_tune.refit.judge import COMPARED, Judgement, judge
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.lookup import find_study
from face3d_tune.study.study_data import study_data
from face3d_tune.training.predictor import read
from face3d_tune.training.recognition import ALL, RATES

ONE, ENSEMBLE, BLEND = "one model", "ensemble", "blend"  # methods, beside the baselines; the first with its study
AGAINST = ("no model", "kernel ridge")
LINE = "kernel ridge"


@dataclass(frozen=True, slots=True)
class Group:
    """The members of an ensemble that the best trial of one study gives."""

    study: str
    candidate: Candidate
    count: int
    seed: int  # of the study

    def members(self, keep: Path, data: FaceData, place: int, of: int) -> Members:
        """Return those of a rotation, from 0."""
        drawn = [seeds.derive(self.seed, "rotate", of, place, number) for number in range(self.count)]
        return Members(keep / self.study / f"rotation-{place + 1}-of-{of}", self.candidate.config, drawn, data)


def train(members: Members, plan: Plan, precision: Precision) -> None:
    """Train the members that are missing."""
    members.train(
        plan,
        precision,
        lambda number, trained: print(f"{members.folder}: member {number}", flush=True),
        lambda job, epoch: None,
    )


def judged(groups: Mapping[str, Members], data: FaceData, plan: Plan) -> Judgement:
    """Judge members, ensemble and blend on the test people; `groups` are the members by study."""
    places = [(study, each.place(n + 1)) for study, each in groups.items() for n in range(len(each.seeds))]
    models = [read(place / "best_model.pth", plan.device) for _, place in places]
    names = [study for study, _ in places]
    fitted = baselines.fit(data)
    return judge(models, data, "test", unit=None, device=plan.device, blends=("kernel",), fitted=fitted, names=names)


def by_person(judgements: Sequence[Judgement]) -> dict[str, dict[str, intervals.Values]]:
    """Return by method and rate the mean of each person, [seeds, people], rotation by rotation."""
    joined: dict[str, dict[str, list[intervals.Values]]] = {}
    for judgement in judgements:
        rows: dict[str, list[intervals.Values]] = {}
        for row in judgement.rows:
            kinds = {"checkpoint": f"{ONE}, {row.name}", "ensemble": ENSEMBLE, "blend": BLEND}
            name = kinds.get(row.kind, row.name)
            rows.setdefault(name, []).append(row.scores.person_means()[ALL])
        for name, means in rows.items():
            for rate in COMPARED:
                values = np.stack([each[RATES.index(rate)] for each in means])
                joined.setdefault(name, {}).setdefault(rate, []).append(values)
    return {
        name: {rate: np.concatenate(parts, axis=1) for rate, parts in rates.items()} for name, rates in joined.items()
    }


def compared(
    values: Mapping[str, Mapping[str, intervals.Values]], name: str, other: str, rate: str, sizes: Sequence[int]
) -> str:
    """Format the difference of a method to a baseline with its 95 % interval over rotations of these sizes."""
    blocks = np.repeat(np.arange(len(sizes)), sizes)
    found = intervals.compare_blocks(values[name][rate], values[other][rate], blocks)
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def show(judgements: Sequence[Judgement]) -> None:
    """Print what each method reaches, its differences to the baselines, and the weights of kernel ridge."""
    values = by_person(judgements)
    sizes = [len(judgement.rows[0].scores.gallery.people) for judgement in judgements]
    reached = [[name, *(f"{values[name][rate].mean():.4f}" for rate in COMPARED)] for name in values]
    table(["", "cosine", "rank-1, all enrolled"], reached)
    rows = [
        [name, other, *(compared(values, name, other, rate, sizes) for rate in COMPARED)]
        for name in values
        if name.startswith((ONE, ENSEMBLE, BLEND))
        for other in AGAINST
    ]
    print()
    table(["", "less", "cosine", "rank-1, all enrolled"], rows)
    weights = [row.weight for judgement in judgements for row in judgement.rows if row.weight is not None]
    print(f"\nweight of {LINE}: {', '.join(f'{weight:.2f}' for weight in weights)} (mean {fmean(weights):.2f})")


def group_of(wanted: str, storage: BaseStorage) -> tuple[Group, FaceData]:
    """Return the group that STUDY=COUNT names, and the data of the study."""
    name, _, count = wanted.partition("=")
    study = find_study(storage, name)
    data = study_data(name, study.user_attrs, None)
    seed = StudyAttr.settings.of(study.user_attrs)["seed"]
    return Group(name, candidates(study, data, 1)[0], int(count or 1), seed), data


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=["identity=3"], metavar="STUDY=COUNT")
    parser.add_argument("--storage", default="sqlite:///face3d_tune.db")
    parser.add_argument("--rotate", type=int, default=ROTATIONS, help="rotations of the people")
    parser.add_argument("--keep", type=Path, default=Path("ensembles"), help="folder of the members")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(machine())
    with Storage.parse(given.storage).opened() as opened:
        groups, studies = zip(*(group_of(each, opened) for each in given.groups), strict=True)
    data = studies[0]
    if any(each.fingerprint() != data.fingerprint() for each in studies):
        raise SystemExit("the studies have different data")
    device = choose_device("auto")
    plan = choose("auto", None, [device], data, [each.candidate.config for each in groups])
    precision, _ = choose_precision("auto", device)
    set_threads(1 if plan.engine == "batched" else None)
    judgements = []
    for place, each in enumerate(rotations(data, given.rotate, seed=groups[0].seed)):
        members = {group.study: group.members(given.keep, each, place, given.rotate) for group in groups}
        for some in members.values():
            train(some, plan, precision)
        judgements.append(judged(members, each, plan))
    people = sum(len(judgement.rows[0].scores.gallery.people) for judgement in judgements)
    print(f"{', '.join(f'{each.count} of {each.study}, {each.candidate.name}' for each in groups)}; {people} judge\n")
    show(judgements)


if __name__ == "__main__":
    try:
        main()
    except TuneError as error:
        raise SystemExit(f"error: {error.message}\nhint: {error.hint}") from error
