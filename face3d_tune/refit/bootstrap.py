"""The difference of two methods on the test people: paired, with an interval and a verdict. Pure functions."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FEWEST_PEOPLE = 5  # fewer people are no sample
RESAMPLES = 20_000
_SEED = 42
_TAILS = (2.5, 97.5)  # per cent: an interval of 95 %

Verdict = Literal["better", "same", "worse", "uncertain"]
Values = NDArray[np.float64]


def person_means(values: Values, persons: NDArray[np.int64], chosen: NDArray[np.bool_]) -> list[float | None]:
    """Average each person's pairs among the `chosen` ones; None for a person without such a pair.

    Args:
        values: [pairs].
        persons: [pairs], numbers from 0.
        chosen: [pairs].
    """
    people = int(persons.max()) + 1
    sums = np.bincount(persons[chosen], weights=values[chosen], minlength=people)
    counts = np.bincount(persons[chosen], minlength=people)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def table(rows: list[list[float | None]]) -> Values:
    """Stack rows of `person_means` as [rows, people]; NaN for None."""
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


def mean_over_people(values: Values) -> float | None:
    """Average [seeds, people] with equal weight for every person; None if no person has a value."""
    complete = values[:, ~np.isnan(values).any(axis=0)]
    return float(complete.mean()) if complete.size else None


def compare(one: Values, other: Values) -> dict[str, Any]:
    """Compare `one` with `other`: difference, `low` and `high` of its 95 % interval, people, and the verdict.

    Paired: both have the same people in the same order. They have the same training seeds too, or `other` has no seeds
    (a formula, or no model) and one row.

    The interval is a percentile bootstrap (Efron & Tibshirani, 1993, chapter 13) of RESAMPLES draws, seeded. Each draws
    as many people as there are, with replacement, since pairs of one person are not independent. It draws as many seeds
    by itself. With a handful of people the interval is too narrow rather than too wide.

    Args:
        one: [seeds, people], mean cosines; NaN for a person without pairs.
        other: The same shape, or [1, people].
    """
    difference = one - other
    measured = ~np.isnan(difference).any(axis=0)
    people = int(measured.sum())
    if not people:
        return {"difference": None, "low": None, "high": None, "people": 0, "verdict": "uncertain"}
    low, high = np.percentile(_resampled(difference[:, measured]), _TAILS)
    return {
        "difference": float(difference[:, measured].mean()),
        "low": float(low),
        "high": float(high),
        "people": people,
        "verdict": _verdict(float(low), float(high), people),
    }


def _resampled(difference: Values) -> Values:
    """Return the means of [seeds, people] over drawn seeds and drawn people, [RESAMPLES]."""
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
