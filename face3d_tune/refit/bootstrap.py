"""What the test people say of a difference of two methods: paired, with an interval, as a verdict. Numbers only."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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
