"""What the test people say of a difference: paired, with an interval, and in words.

Numbers only; `confirming` gives them, and whoever shows a confirmation asks here for the English sentences.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

CONFIRMATION = "confirmation"  # user attribute of a study
FEWEST_PEOPLE = 5  # fewer are no sample of anybody
RESAMPLES = 20_000
_SEED = 42
_TAILS = (2.5, 97.5)  # per cent: an interval of 95 %

Verdict = Literal["better", "same", "worse", "uncertain"]
Values = NDArray[np.float64]


def person_means(values: Values, persons: NDArray[np.int64], held: NDArray[np.bool_]) -> list[float | None]:
    """The mean of each person's pairs among those `held`; None for a person without one.

    Args:
        values: [pairs].
        persons: [pairs], numbers from 0.
        held: [pairs].
    """
    people = int(persons.max()) + 1
    sums = np.bincount(persons[held], weights=values[held], minlength=people)
    counts = np.bincount(persons[held], minlength=people)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def table(rows: list[list[float | None]]) -> Values:
    """Rows of `person_means` as [rows, people]; NaN for None."""
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


def mean_over_people(values: Values) -> float | None:
    """The mean of [seeds, people], every person counting the same; None if nobody has a value."""
    known = values[:, ~np.isnan(values).any(axis=0)]
    return float(known.mean()) if known.size else None


def compare(one: Values, other: Values) -> dict[str, Any]:
    """By how much `one` is above `other`: difference, `low` and `high` of its 95 % interval, people, and the verdict.

    Paired: both have the same people, in the same order, and the same training seeds, or `other` is without seeds (a
    formula, or no model) and has one row. The interval is a percentile bootstrap (Efron & Tibshirani, 1993, chapter 13)
    of RESAMPLES draws, seeded: each draws as many people as there are, with replacement, since pairs of one person are
    not independent, and by itself as many seeds. With a handful of people it is too narrow rather than too wide.

    Args:
        one: [seeds, people], mean cosines; NaN for a person without pairs.
        other: The same shape, or [1, people].
    """
    difference = one - other
    known = ~np.isnan(difference).any(axis=0)
    people = int(known.sum())
    if not people:
        return {"difference": None, "low": None, "high": None, "people": 0, "verdict": "uncertain"}
    low, high = np.percentile(_resampled(difference[:, known]), _TAILS)
    return {
        "difference": float(difference[:, known].mean()),
        "low": float(low),
        "high": float(high),
        "people": people,
        "verdict": _verdict(float(low), float(high), people),
    }


def _resampled(difference: Values) -> Values:
    """[RESAMPLES]: means of [seeds, people] over drawn seeds and drawn people."""
    random = np.random.default_rng(_SEED)
    seeds, people = difference.shape
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    of_people = random.multinomial(people, np.full(people, 1 / people), size=RESAMPLES) / people
    means: Values = ((of_seeds @ difference) * of_people).sum(axis=1)
    return means


def _verdict(low: float, high: float, people: int) -> Verdict:
    if people < FEWEST_PEOPLE:
        return "uncertain"
    return "better" if low > 0 else "worse" if high < 0 else "same"


def sentence(compared: Mapping[str, Any]) -> str:
    """`better than recommended by 0.0520 (0.0370 to 0.0660)`, of an entry of a confirmation's `against`."""
    name, (difference, low, high) = compared["name"], (compared[key] for key in ("difference", "low", "high"))
    if difference is None:
        return f"not compared with {name}: no pairs"
    span = f"({low:+.4f} to {high:+.4f})"
    match compared["verdict"]:
        case "better":
            return f"better than {name} by {difference:.4f} ({low:.4f} to {high:.4f})"
        case "worse":
            return f"worse than {name} by {-difference:.4f} ({-high:.4f} to {-low:.4f})"
        case "same":
            return f"not distinguishable from {name}: {difference:+.4f} {span}"
        case _:
            few = f"{compared['people']} test people are too few"
            return f"{few} for a verdict against {name}: {difference:+.4f} {span}"


def headline(held: Mapping[str, Any]) -> str:
    """The verdict that matters, in one sentence: against the best preset, and whether against every one."""
    winner, against = held["winner"]["name"], {entry["name"]: entry for entry in held["against"]}
    if held["headline"] is None:
        return f"{winner} is {sentence(against['ridge'])}; no preset could be trained to compare it with."
    said = f"{winner} is {sentence(against[held['headline']])}"
    if against[held["headline"]]["verdict"] == "uncertain":
        said = f"{winner}: {sentence(against[held['headline']])}"
    presets = [entry for entry in held["against"] if entry["kind"] == "preset"]
    if len(presets) == 1:
        return said + ", the only preset."
    every = "better than every preset" if held["better_than_every_preset"] else "NOT shown to be better than every one"
    which = "the best preset" if held["headline_is_best"] else "as asked for"
    return f"{said}, {which}; it is {every}."


def curse(held: Mapping[str, Any]) -> str:
    """The winner's curse, with its numbers."""
    winner = held["winner"]
    if winner["value"] is None:
        return ""
    spread = "" if winner["validation_sd"] is None else f" ± {winner['validation_sd']:.4f}"
    fall = winner["value"] - winner["validation"]
    what = f"{fall:.4f} of it was luck" if fall > 0 else "none of it was luck"
    return (
        f"Winner's curse: in the study {winner['name']} had {winner['value']:.4f} on the validation people; over "
        f"{len(held['seeds'])} fresh seeds it is {winner['validation']:.4f}{spread}, so {what}."
    )


def looks(held: Mapping[str, Any]) -> str:
    """How often anybody has looked at the test people."""
    count = len(held["looks"])
    if count == 1:
        return "Look 1 at the test people: no decision has seen them before."
    return f"Look {count} at the test people: each look makes the verdict a little less trustworthy."


def told(held: Mapping[str, Any]) -> list[str]:
    """Everything that a confirmation says, as lines: the headline, every comparison, by yaw, curse and looks."""
    first = held["headline"]
    others = [entry for entry in held["against"] if entry["name"] != first]
    lines = [headline(held), *(f"  {held['winner']['name']}: {sentence(entry)}" for entry in others)]
    if first is not None:
        bands = next(entry["by_yaw"] for entry in held["against"] if entry["name"] == first)
        for band, compared in bands.items():
            if compared["people"]:
                lines.append(f"  |yaw| {band}°: {sentence({'name': first, **compared})}")
    return [*lines, *filter(None, (curse(held), looks(held)))]
