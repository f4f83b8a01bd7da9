"""The ETA of a search, from the trials that it has finished."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

_FEWEST = 5  # finished trials; fewer mislead, since presets take longer than pruned trials
_WITHIN = 1.28  # standard deviations; 80 % of normal outcomes lie within


def time_left(seconds: Sequence[float], remaining: int, at_once: int, spent: float) -> tuple[float, float] | None:
    """Estimate the remaining seconds of a search, as an interval of 80 %; None after too few trials.

    Later trials are taken to be like earlier ones. The variance is that of the sum, and of the mean itself.

    Args:
        seconds: Duration of each finished trial.
        remaining: Trials that are still to be finished, those in training included.
        at_once: Trials in training at the same time.
        spent: Seconds that the trials in training have taken so far, in all.
    """
    if len(seconds) < _FEWEST or at_once < 1:
        return None
    middle = remaining * fmean(seconds) - spent
    doubt = _WITHIN * math.sqrt(variance(seconds) * remaining * (1 + remaining / len(seconds)))
    low, high = ((middle + side * doubt) / at_once for side in (-1, 1))
    return max(0.0, low), max(0.0, high)


def in_words(low: float, high: float) -> str:
    """Format an interval as `8–12 min`, in the unit that suits the higher number."""
    for unit, length, digits in (("h", 3600.0, 1), ("min", 60.0, 0), ("s", 1.0, 0)):
        if high >= 1.5 * length or unit == "s":
            first, last = (f"{value / length:.{digits}f}" for value in (low, high))
            return f"{last} {unit}" if first == last else f"{first}–{last} {unit}"
    raise AssertionError("every time has a unit")
