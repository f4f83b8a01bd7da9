"""The ETA of a search, from the trials that it has finished."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

_FEWEST = 5  # finished trials; fewer say little, the presets being slower than what is pruned
_WITHIN = 1.28  # standard deviations to each side that hold 80 of 100 outcomes, if they are normal


def time_left(seconds: Sequence[float], remaining: int, at_once: int, spent: float) -> tuple[float, float] | None:
    """Seconds that the rest of a search takes in 80 of 100 cases, if later trials are like earlier ones; or None.

    The sum of so many draws has a mean and a variance, to which the doubt about the mean itself is added.

    Args:
        seconds: What each finished trial took.
        remaining: Trials that are still to be finished, those in training included.
        at_once: Trials in training at the same time.
        spent: Seconds that those in training have taken already.
    """
    if len(seconds) < _FEWEST or at_once < 1:
        return None
    middle = remaining * fmean(seconds) - spent
    doubt = _WITHIN * math.sqrt(variance(seconds) * remaining * (1 + remaining / len(seconds)))
    low, high = ((middle + side * doubt) / at_once for side in (-1, 1))
    return max(0.0, low), max(0.0, high)


def in_words(low: float, high: float) -> str:
    """`8–12 min`, in the unit in which the higher number is easy to read."""
    for unit, length, digits in (("h", 3600.0, 1), ("min", 60.0, 0), ("s", 1.0, 0)):
        if high >= 1.5 * length or unit == "s":
            first, last = (f"{value / length:.{digits}f}" for value in (low, high))
            return f"{last} {unit}" if first == last else f"{first}–{last} {unit}"
    raise AssertionError("every time has a unit")
