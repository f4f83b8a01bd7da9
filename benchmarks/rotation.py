"""How much `confirm --rotate` flatters a search, as the settings were chosen with some of the people who judge.

    face3d-tune run --trials 50
    face3d-tune confirm --rotate --top 1
    python -m benchmarks.rotation --top 1

All people judge in rotations, by models that never saw them. The search chose its settings with the training and
validation people of the study's split, and never with the test people. The winner's gain on the former less its gain on
the latter is what the choice flatters, if nothing else tells these people apart. Beside it stands what `confirm` found
on the test people, if the study has that. It trains nothing, so every training has to be stored.
"""

import argparse

import numpy as np
import optuna

from benchmarks.common import table
from face3d_tune.data.pairs import persons
from face3d_tune.refit.candidates import candidates
from face3d_tune.refit.intervals import Values, t_quantile
from face3d_tune.refit.rotate import RotatedConfirmation
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.study_data import study_data


def names_of(confirmation: RotatedConfirmation) -> list[str]:
    """Return the judged people in the order of `by_person`."""
    names = []
    for data in confirmation.parts:
        pairs = data.parts["test"]
        _, first = np.unique(persons(pairs), return_index=True)
        names += [data.front_names[pairs[place, 0]] for place in first]
    return names


def flattered(gains: Values, chosen_with: np.ndarray) -> tuple[float, float]:
    """Return the gain on people with whom settings were chosen less that on the others, and half its 95 % interval.

    Welch's t interval (1947) over people.

    Args:
        gains: [people].
        chosen_with: [people], booleans.
    """
    parts = [gains[chosen_with], gains[~chosen_with]]
    variances = np.array([part.var(ddof=1) / len(part) for part in parts])
    freedom = variances.sum() ** 2 / sum(each**2 / (len(part) - 1) for each, part in zip(variances, parts, strict=True))
    half = t_quantile(max(1.0, float(freedom))) * float(np.sqrt(variances.sum()))
    return float(parts[0].mean() - parts[1].mean()), half


def main() -> None:
    """Print for each method the gain by part of the people, what is flattered, and what `confirm` found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="sqlite:///face3d_tune.db")
    parser.add_argument("--study-name", default="default")
    parser.add_argument("--top", type=int, default=3, help="as `confirm --rotate` was given")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Storage.parse(given.storage).opened() as opened:
        study = optuna.load_study(study_name=given.study_name, storage=opened)
        stored, ordinary = (attr.get(study.user_attrs) for attr in (StudyAttr.rotation, StudyAttr.confirmation))
        if stored is None:
            raise SystemExit("the study needs `face3d-tune confirm --rotate` first")
        data = study_data(study.study_name, study.user_attrs, None)
        picked, count = candidates(study, data, given.top), len(stored["seeds"])
        confirmation = RotatedConfirmation(study, opened, data, picked, count, print, of=stored["rotations"])
        if confirmation.missing:
            raise SystemExit(f"{len(confirmation.missing)} trainings are missing: `face3d-tune confirm --rotate` first")
        judged, names = confirmation.by_person(), names_of(confirmation)
    homes = np.array([next(part for part, people in data.people.items() if name in people) for name in names])
    winner, rows = stored["winner"]["name"], []
    test = {} if ordinary is None else {entry["name"]: entry["difference"] for entry in ordinary["against"]}
    same = ordinary is not None and ordinary["winner"]["name"] == winner
    for name, values in judged.items():
        if name == winner:
            continue
        gains = (judged[winner] - values).mean(axis=0)
        by, half = flattered(gains, homes != "test")
        cells = [f"{gains[homes == part].mean():+.4f}" for part in ("train", "validation", "test")]
        found = f"{test[name]:+.4f}" if same and name in test else "–"
        rows.append([name, f"{gains.mean():+.4f}", *cells, f"{by:+.4f} ± {half:.4f}", found])
    counts = {part: int((homes == part).sum()) for part in ("train", "validation", "test")}
    print(f"{winner} less each, over {len(names)} people in {stored['rotations']} rotations, {count} trainings in each")
    parts = [f"{part} ({number})" for part, number in counts.items()]
    table(["against", "all", *parts, "flattered", "confirm, test"], rows)


if __name__ == "__main__":
    main()
