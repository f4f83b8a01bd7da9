"""Which objective a search should have by default: what the trials recognise that searches for each choose.

    python -m benchmarks.objectives FOLDER                          # the sample
    python -m benchmarks.objectives FOLDER7 --data-dir people7      # of benchmarks.other_people

For each seed, one search maximises the cosine and one the identity, with the same study file, data and budget. Each has
a SQLite file in the folder. The same command again continues an unfinished search and repeats none. The kept weights of
each search's best trial then predict the validation people: mean cosine, and rank-1 among the judged and among everyone
enrolled. Differences are paired over searches and people. Both searches chose by these people, so what is compared is
what a search shows, not what test people would.

The rule for `identity` as the default: on each data set, over at least five searches, its trials lose less than 0.003
cosine and gain rank-1 among everyone enrolled with an interval above 0.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from benchmarks.common import machine, table
from face3d_tune.cli.console import Console
from face3d_tune.cli.progress import JsonLines, Tally
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.executor.plan import Engine
from face3d_tune.refit.intervals import Values, compare
from face3d_tune.search.run_search import OpenSearch, run_search
from face3d_tune.search.search_options import (
    BudgetOptions,
    DataOptions,
    DeviceOptions,
    SearchOptions,
    StudyOptions,
    WorkerOptions,
)
from face3d_tune.storage.artifacts import best_weights, unique_name
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.lookup import find_study, pick_trial
from face3d_tune.study.objective import OBJECTIVES, ObjectiveName
from face3d_tune.study.trials import config_of
from face3d_tune.training import predictor
from face3d_tune.training.recognition import ALL, RATES, Gallery

COMPARED = ("cosine", "rank1_judged", "rank1_enrolled")
MOST_LOST, FEWEST_SEARCHES = 0.003, 5
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """A folder of searches on one data set."""

    folder: Path
    data_dir: Path | None = None  # None: the bundled sample
    study: str = "default"  # a study file
    trials: int = 50
    epochs: int | None = None  # None: the study file's
    engine: Engine = "auto"

    def storage(self, objective: str, seed: int) -> str:
        """Return the URL of one search."""
        return f"sqlite:///{(self.folder / f'{objective}-{seed}.db').as_posix()}"

    @property
    def artifacts(self) -> Path:
        """Return the folder of all checkpoints."""
        return self.folder / "artifacts"


@dataclass(frozen=True)
class Chosen:
    """The trial that a search chose, on the validation people."""

    trial: int
    rates: Mapping[str, Values]  # COMPARED, [people]


class Quiet:
    """A view of a search that prints nothing."""

    def warning(self, line: str) -> None:
        """Print nothing."""

    def connecting(self, storage: Storage) -> None:
        """Print nothing."""

    def opening(self, what: str) -> AbstractContextManager[object]:
        """Print nothing."""
        return nullcontext()

    def opened(self, opened: OpenSearch) -> JsonLines:
        """Return a watcher that writes nothing, but can be interrupted."""
        study = opened.search.study
        return JsonLines(Console(stderr=True), Tally(study.study_name, None), lambda line: None)

    def interrupted(self, opened: OpenSearch) -> None:
        """Print nothing."""

    def ended(self, opened: OpenSearch) -> None:
        """Print nothing."""


def search(place: Place, objective: ObjectiveName, seed: int) -> None:
    """Search, or continue an unfinished search; a finished one is left as it is."""
    study = StudyOptions(
        study_name_or_file=place.study,
        study_name=objective,
        before=None,
        storage=place.storage(objective, seed),
        layout="keypoint",
        folds=1,
        seed=seed,
        objective=objective,
        script=None,
        accept_changed_script=False,
    )
    budget = BudgetOptions(place.trials, place.epochs, None, None, None)
    data = DataOptions(place.data_dir, "person", 0.0, None, "first")
    workers = WorkerOptions(str(place.artifacts), 0.0, 1, None, None)
    run_search(SearchOptions(study, budget, data, DeviceOptions("auto", "auto", place.engine, None), workers), Quiet())


def chosen(place: Place, data: FaceData, objective: str, seed: int) -> Chosen:
    """Judge the kept weights of the best trial of a search."""
    with Storage.parse(place.storage(objective, seed)).opened() as storage:
        study = find_study(storage, objective)
        trial, unique = pick_trial(study, None), unique_name(objective, StudyAttr.id.of(study.user_attrs))
    model = predictor.read(place.artifacts / best_weights(unique, f"trial-{trial.number}"), CPU)
    rows = data.parts["validation"][:, 1]
    unit = config_of(trial).pose_unit
    predicted = model.predict_all(data.video_features, data.landmarks, data.poses, unit, rows)
    means = Gallery(data, "validation").scores(predicted).person_means()[ALL]
    return Chosen(trial.number, {rate: means[RATES.index(rate)] for rate in COMPARED})


def differences(cosine: Sequence[Chosen], identity: Sequence[Chosen]) -> dict[str, dict[str, Any]]:
    """Compare identity with cosine by rate, paired over searches and people."""
    return {
        rate: compare(*(np.stack([each.rates[rate] for each in side]) for side in (identity, cosine)))
        for rate in COMPARED
    }


def verdict(found: Mapping[str, Mapping[str, Any]], searches: int) -> str:
    """Say in one line whether identity fulfils the rule on these data."""
    lost, gained = -found["cosine"]["difference"], found["rank1_enrolled"]
    holds = {
        f"identity loses {lost:.4f} cosine, less than {MOST_LOST}": lost < MOST_LOST,
        f"gains {gained['difference']:+.4f} rank-1 among all enrolled, with an interval above 0": (
            gained["low"] is not None and gained["low"] > 0
        ),
        f"over at least {FEWEST_SEARCHES} searches ({searches})": searches >= FEWEST_SEARCHES,
    }
    parts = "; ".join(f"{what}: {'yes' if held else 'no'}" for what, held in holds.items())
    return f"{parts}. Here the rule says {'identity' if all(holds.values()) else 'cosine'}."


def report(found: Mapping[tuple[str, int], Chosen], seeds: Sequence[int]) -> None:
    """Print the chosen trials, the differences and the verdict."""
    rows = [
        (f"{objective}, seed {seed}", each.trial, *(f"{np.nanmean(each.rates[rate]):.4f}" for rate in COMPARED))
        for (objective, seed), each in found.items()
    ]
    table(("search", "trial", *COMPARED), rows)
    sides = [[found[objective, seed] for seed in seeds] for objective in OBJECTIVES]
    compared = differences(*sides)
    print("identity minus cosine, 95 % over searches and people")
    table(
        ("rate", "difference", "low", "high", "people"),
        [
            (rate, *("–" if each[key] is None else f"{each[key]:+.4f}" for key in ("difference", "low", "high")), n)
            for rate, each in compared.items()
            for n in (each["people"],)
        ],
    )
    print(verdict(compared, len(seeds)))


def main(words: Sequence[str] | None = None) -> None:
    """Search what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the searches; one for each data set")
    parser.add_argument("--data-dir", type=Path, help="folder with the six data files; without it the bundled sample")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N: so many searches of each objective")
    parser.add_argument("--trials", type=int, default=50, help="finished trials of each search")
    parser.add_argument("--epochs", type=int, help="of one trial, at most; without it the study file's")
    parser.add_argument("--study", default="default", help="study file")
    parser.add_argument("--engine", choices=("auto", "plain", "batched"), default="auto")
    given = parser.parse_args(words)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given.folder.mkdir(parents=True, exist_ok=True)
    place = Place(given.folder, given.data_dir, given.study, given.trials, given.epochs, given.engine)
    data, seeds = load(place.data_dir), range(1, given.seeds + 1)
    print(f"{machine()}\n{data.source}: {len(data.people['validation'])} validation people\n", flush=True)
    found = {}
    for seed in seeds:
        for objective in OBJECTIVES:
            search(place, objective, seed)
            found[objective, seed] = chosen(place, data, objective, seed)
    report(found, seeds)


if __name__ == "__main__":
    main()
