"""What the best trial of a study reaches on people never seen: one model, an ensemble, and a blend with kernel ridge.

    face3d-tune run --study identity --trials 50
    python -m benchmarks.ensembles --study-name identity

All people judge once, in rotations, by members that were trained on others. In each rotation the validation people
choose the weight of kernel ridge, as `predict --blend` does. The settings were chosen with some of these people.
Members stay in a folder, so the same command resumes. On the test people `face3d-tune judge FOLDER --blend kernel
--part test` says the same of one ensemble.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna

from benchmarks.common import machine, table
from face3d_tune import seeds
from face3d_tune.cli.options import study_data
from face3d_tune.data.rotation import ROTATIONS, rotations
from face3d_tune.device import choose_device, choose_precision, set_threads
from face3d_tune.executor.plan import Plan, choose
from face3d_tune.refit import baselines, intervals
from face3d_tune.refit.candidates import candidates
from face3d_tune.refit.judge import COMPARED, Judgement, judge
from face3d_tune.refit.members import Members
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.training.predictor import read
from face3d_tune.training.recognition import ALL, RATES

ONE, ENSEMBLE, BLEND = "one model", "ensemble", "blend"  # methods, beside the baselines
AGAINST = ("no model", "kernel ridge")
LINE = "kernel ridge"


def train(members: Members, plan: Plan, precision: str, where: str) -> None:
    """Train the members that are missing."""
    number_of = len(members.seeds)
    members.train(
        plan,
        precision,
        lambda number, trained: print(f"{where}: member {number} of {number_of}", flush=True),
        lambda job, epoch: None,
    )


def judged(members: Members, plan: Plan) -> Judgement:
    """Judge members, ensemble and blend on the test people of their data."""
    paths = [members.place(number + 1) / "best_model.pth" for number in range(len(members.seeds))]
    models = [read(path, plan.device) for path in paths]
    data = members.data
    return judge(models, data, "test", unit=None, device=plan.device, blends=("kernel",), fitted=baselines.fit(data))


def by_person(judgements: Sequence[Judgement]) -> dict[str, dict[str, intervals.Values]]:
    """Return by method and rate the mean of each person, [seeds, people], rotation by rotation."""
    joined: dict[str, dict[str, list[intervals.Values]]] = {}
    for judgement in judgements:
        rows: dict[str, list[intervals.Values]] = {}
        for row in judgement.rows:
            name = {"checkpoint": ONE, "ensemble": ENSEMBLE, "blend": BLEND}.get(row.kind, row.name)
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
        for name in (ONE, ENSEMBLE, BLEND)
        if name in values
        for other in AGAINST
    ]
    print()
    table(["", "less", "cosine", "rank-1, all enrolled"], rows)
    weights = [row.weight for judgement in judgements for row in judgement.rows if row.weight is not None]
    print(f"\nweight of {LINE}: {', '.join(f'{weight:.2f}' for weight in weights)} (mean {fmean(weights):.2f})")


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="sqlite:///face3d_tune.db")
    parser.add_argument("--study-name", default="identity")
    parser.add_argument("--rotate", type=int, default=ROTATIONS, help="rotations of the people")
    parser.add_argument("--members", type=int, default=3, help="of each ensemble")
    parser.add_argument("--keep", type=Path, default=Path("ensembles"), help="folder of the members")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(machine())
    with Storage.parse(given.storage).opened() as opened:
        study = optuna.load_study(study_name=given.study_name, storage=opened)
        data = study_data(study.study_name, study.user_attrs, None)
        best, seed = candidates(study, data, 1)[0], StudyAttr.settings.of(study.user_attrs)["seed"]
    device = choose_device("auto")
    plan = choose("auto", None, device, data, [best.config])
    precision, _ = choose_precision("auto", device)
    set_threads(1 if plan.engine == "batched" else None)
    judgements = []
    for place, each in enumerate(rotations(data, given.rotate, seed=seed)):
        drawn = [seeds.derive(seed, "rotate", given.rotate, place, number) for number in range(given.members)]
        name = f"rotation-{place + 1}-of-{given.rotate}"
        members = Members(given.keep / given.study_name / name, best.config, drawn, each)
        train(members, plan, precision, name)
        judgements.append(judged(members, plan))
    people = sum(len(judgement.rows[0].scores.gallery.people) for judgement in judgements)
    print(f"{best.name} of study {given.study_name}, {given.members} members; {people} people judge\n")
    show(judgements)


if __name__ == "__main__":
    main()
