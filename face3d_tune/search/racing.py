"""The race of a trial of several folds against the best completed one, fold by fold.

Trials are compared on the same folds only, so the difficulty of a fold cancels out. A clearly worse trial stops at
once. This is racing, as in Maron and Moore, Hoeffding races (NIPS 6, 1994). Blocks in common are as in Birattari,
Stützle, Paquete and Varrentrapp, A racing algorithm for configuring metaheuristics (GECCO 2002), the F-race.

Let y[i, k] be the value of completed trial i of n in fold k of K, and a dot a mean over that index. A value without the
main effects of trial and of fold is r[i, k] = y[i, k] - y[i, .] - y[., k] + y[., .]. The variance of one fold's value
is s² = sum of r² / ((n - 1)(K - 1)), as in a two-way layout. The difference of two trials' means over the same j folds
then has the standard error s sqrt(2 / j).

Optuna's pruner for this is a signed-rank test (Wilcoxon, 1945), which uses ranks only. One fold tells it nothing, and
with so few folds it stops no trial before the last.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

FEWEST = 3  # completed trials; fewer do not show the noise
_CLEARLY = 2.0  # standard errors


def noise(completed: Sequence[Sequence[float]]) -> float:
    """Return s as defined above, from the values [trials >= 2][folds >= 2] of completed trials."""
    trials, folds = [fmean(row) for row in completed], [fmean(column) for column in zip(*completed, strict=True)]
    middle = fmean(trials)
    left = [value - trials[i] - folds[k] + middle for i, row in enumerate(completed) for k, value in enumerate(row)]
    return sqrt(sum(each * each for each in left) / ((len(trials) - 1) * (len(folds) - 1)))


def is_lost(values: Sequence[float], completed: Sequence[Sequence[float]]) -> bool:
    """Tell whether a trial with these values of its first folds is clearly worse than the best completed one.

    Args:
        values: One a fold, from fold 1; higher is better.
        completed: The values of each completed trial, one for each of all folds.
    """
    if len(completed) < FEWEST:
        return False
    behind = fmean(max(completed, key=fmean)[: len(values)]) - fmean(values)
    return behind > _CLEARLY * noise(completed) * sqrt(2 / len(values))
