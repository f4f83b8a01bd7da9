"""The difference of two methods on the same people: paired, with a 95 % interval and a verdict. Pure functions.

`benchmarks/coverage.py` simulates how often the interval covers the true difference.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from statistics import stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FEWEST_PEOPLE = 5  # for a verdict: fewer do not show how people are distributed
WANTED = 0.01  # difference, of which `compare` says how many people can show it
_MOST_PEOPLE = 1_000_000  # beyond this the seeds are the limit
METHOD = "t"  # stored with each interval; those without one are percentile bootstraps of version 0.1.0
OVER_BLOCKS = "t-blocks"  # the same for `compare_blocks`
_INSIDE = 0.95
_EQUAL = 1e-12  # of two differences, relative: what rounding leaves between equal ones
_NORMAL = 1.959963984540054  # the quantile for endless degrees of freedom
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)

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


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of values; None for a single one."""
    return stdev(values) if len(values) > 1 else None


def compare(one: Values, other: Values) -> dict[str, Any]:
    """Compare `one` with `other`: difference, its 95 % interval from `low` to `high`, people, verdict, method.

    Paired: both have the same people in the same order. They have the same training seeds too, or `other` has no seeds
    (a formula, or no model) and one row.

    People and seeds are both samples: the interval holds for people never seen and trainings never run. It is a t
    interval in the two-way random-effects model. The variance of the mean is V_people / P + V_seeds / S: the variance
    of the people's means over their number, plus that of the seeds' means over theirs. This counts the interaction
    twice, so it errs to the safe side (Owen, 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1:386). The
    degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin 2:110), at most P - 1.

    `half_width` is half the interval, the smallest difference that these people can show. `people_needed` is the number
    of people from which on it is at most WANTED, with the variances seen here: see `people_needed`.

    - With one seed its variance is unknown and left out: the interval holds for this one training.
    - With one person there is a difference without interval: `low`, `high` and both numbers above are None.
    - A person with a NaN in any seed is left out; without people the difference is None too.

    Args:
        one: [seeds, people], mean cosines or shares; NaN for a person without pairs.
        other: The same shape, or [1, people].
    """
    difference = one - other
    difference = difference[:, ~np.isnan(difference).any(axis=0)]
    people = difference.shape[1]
    mean = float(difference.mean()) if people else None
    compared = {"difference": mean, "low": None, "high": None, "people": people, "verdict": "uncertain"}
    compared |= {"half_width": None, "people_needed": None}
    if mean is not None and people > 1:
        variances, seeds = _variances(difference), len(difference)
        half = _half_width(*variances, people, seeds)
        low, high = mean - half, mean + half
        compared |= {"low": low, "high": high, "verdict": _verdict(low, high, people)}
        compared |= {"half_width": half, "people_needed": people_needed(*variances, seeds)}
    return compared | {"method": METHOD}


def compare_blocks(one: Values, other: Values, blocks: NDArray[np.int64]) -> dict[str, Any]:
    """Compare methods whose trainings judge one block of people each, every block by trainings of its own.

    It gives what `compare` does. The people of a block share models and seeds, so blocks are the independent units, as
    far as their training people differ. The interval is a t interval over blocks with the variance for clusters of
    unequal size, B/(B - 1) · Σ (n_b (m_b - m))² / P², and B - 1 degrees of freedom (Cameron & Miller, 2015, Journal of
    Human Resources 50:317). The seeds of a block are its own, so one of each is enough.

    Args:
        one: [seeds, people], as in `compare`.
        other: The same shape, or [1, people].
        blocks: [people], the block of each person.
    """
    difference = one - other
    complete = ~np.isnan(difference).any(axis=0)
    gains, (numbers, place) = difference[:, complete].mean(axis=0), np.unique(blocks[complete], return_inverse=True)
    mean = float(gains.mean()) if len(gains) else None
    compared = {"difference": mean, "low": None, "high": None, "people": len(gains), "verdict": "uncertain"}
    compared |= {"half_width": None, "people_needed": None}
    if mean is not None and len(numbers) > 1:
        sums = np.bincount(place, weights=gains - mean)
        variance = len(numbers) / (len(numbers) - 1) * float(sums @ sums) / len(gains) ** 2
        half = t_quantile(len(numbers) - 1) * math.sqrt(variance)
        low, high = mean - half, mean + half
        compared |= {"low": low, "high": high, "verdict": _verdict(low, high, len(gains)), "half_width": half}
        # As many blocks of more people: the variance falls as their number grows.
        compared["people_needed"] = max(FEWEST_PEOPLE, math.ceil(len(gains) * (half / WANTED) ** 2))
    return compared | {"method": OVER_BLOCKS}


def over_seeds(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Compare two trainings over seeds: difference, its 95 % t interval from `low` to `high`, seeds, verdict.

    Paired: both have the same seeds in the same order. Higher is better. The interval holds for other seeds on the same
    data and says nothing about other people. It is None with one seed, and without a verdict; so is it if all
    differences are equal, because then the seeds show no noise.
    """
    differences = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    count, mean = len(differences), float(differences.mean())
    compared = {"difference": mean, "low": None, "high": None, "seeds": count, "verdict": "uncertain"}
    if count > 1 and not np.allclose(differences, mean, rtol=_EQUAL, atol=0):
        half = t_quantile(count - 1) * float(differences.std(ddof=1)) / math.sqrt(count)
        low, high = mean - half, mean + half
        verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "same"
        compared |= {"low": low, "high": high, "verdict": verdict}
    return compared


def _variances(difference: Values) -> tuple[float, float]:
    """Return the variances of the people's means and of the seeds' means, from [seeds, people]; 0 for one seed."""
    of_people = float(difference.mean(axis=0).var(ddof=1))
    of_seeds = float(difference.mean(axis=1).var(ddof=1)) if len(difference) > 1 else 0.0
    return of_people, of_seeds


def _half_width(of_people: float, of_seeds: float, people: int, seeds: int) -> float:
    """Return half the width of the interval over so many people and seeds with these variances of their means."""
    parts = of_people / people, of_seeds / seeds
    variance = sum(parts)
    if variance == 0:
        return 0.0
    uncertainty = parts[0] ** 2 / (people - 1) + (parts[1] ** 2 / (seeds - 1) if seeds > 1 else 0.0)
    freedom = min(people - 1, variance**2 / uncertainty)
    return t_quantile(freedom) * math.sqrt(variance)


def people_needed(of_people: float, of_seeds: float, seeds: int, wanted: float = WANTED) -> int | None:
    """Return the smallest number of people, FEWEST_PEOPLE at least, over whom half the interval is at most `wanted`.

    That is the smallest P with t(ν) · sqrt(of_people / P + of_seeds / seeds) <= wanted, where ν follows from P as in
    `compare`. A true difference of `wanted` is then shown in half of all such confirmations. Returns None if the seeds
    alone leave more than `wanted`.

    Args:
        of_people: Variance of the people's means.
        of_seeds: Variance of the seeds' means; 0 if unknown.
        seeds: Trainings of each method.
        wanted: Difference to be shown.
    """
    enough = FEWEST_PEOPLE
    while _half_width(of_people, of_seeds, enough, seeds) > wanted:
        if enough > _MOST_PEOPLE:
            return None
        enough *= 2
    candidates = range(max(FEWEST_PEOPLE, enough // 2), enough)  # the last number that was too few, and on
    index = bisect_left(candidates, True, key=lambda people: _half_width(of_people, of_seeds, people, seeds) <= wanted)
    return candidates[index] if index < len(candidates) else enough


def t_quantile(freedom: float) -> float:
    """Return the t with P(|T| <= t) = 0.95 for Student's distribution with `freedom` >= 1 degrees of freedom.

    With T = sqrt(freedom) · tan(θ), θ has a density proportional to cos(θ)^(freedom - 1). The normal quantile lies
    below t, and the probability is concave in θ, so Newton's method climbs to t without overshooting.
    """
    logarithm = math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)
    wanted = _INSIDE * math.sqrt(math.pi) / 2 * math.exp(logarithm)
    angle = math.atan(_NORMAL / math.sqrt(freedom))
    step = 1.0
    while step > 1e-13 * angle:
        reached = angle / 2 * float(_WEIGHTS @ np.cos(angle / 2 * (1 + _NODES)) ** (freedom - 1))
        step = (wanted - reached) / math.cos(angle) ** (freedom - 1)
        angle += step
    return math.sqrt(freedom) * math.tan(angle)


def _verdict(low: float, high: float, people: int) -> Verdict:
    if people < FEWEST_PEOPLE:
        return "uncertain"
    return "better" if low > 0 else "worse" if high < 0 else "same"
