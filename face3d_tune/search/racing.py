"""Whether a trial of several folds is worth its other folds: a race against the best completed one, fold by fold.

Trials are compared on the same folds only, so that how hard a fold is falls out, and one is given up as soon as it is
clearly worse: racing, as in Maron and Moore, Hoeffding races (NIPS 6, 1994), and with blocks in common as in Birattari,
Stützle, Paquete and Varrentrapp, A racing algorithm for configuring metaheuristics (GECCO 2002), the F-race.

With y[i, k] the value of completed trial i of n in fold k of K, and a dot for a mean over that index, what is left of a
value without the main effects of trial and of fold is r[i, k] = y[i, k] - y[i, .] - y[., k] + y[., .], and the variance
of one fold's value beside them is s² = sum of r² / ((n - 1)(K - 1)), as in a two-way layout. The difference of two
trials' means over the same j folds then has the standard error s sqrt(2 / j).

Optuna's pruner for this, a signed-rank test (Wilcoxon, 1945), knows ranks only: one fold tells it nothing, and of so
few folds it gives nobody up before the last.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

FEWEST = 3  # completed trials; from fewer the noise is not known
_CLEARLY = 2.0  # standard errors


def noise(completed: Sequence[Sequence[float]]) -> float:
    """The s above, of values by trial and fold: of at least two trials, with at least two folds each."""
    trials, folds = [fmean(row) for row in completed], [fmean(column) for column in zip(*completed, strict=True)]
    middle = fmean(trials)
    left = [value - trials[i] - folds[k] + middle for i, row in enumerate(completed) for k, value in enumerate(row)]
    return sqrt(sum(each * each for each in left) / ((len(trials) - 1) * (len(folds) - 1)))


def is_lost(values: Sequence[float], completed: Sequence[Sequence[float]]) -> bool:
    """Whether a trial with these values of its first folds is clearly worse than the best completed one.

    Args:
        values: One a fold, from fold 1; higher is better.
        completed: The values of each completed trial, one for each of all folds.
    """
    if len(completed) < FEWEST:
        return False
    behind = fmean(max(completed, key=fmean)[: len(values)]) - fmean(values)
    return behind > _CLEARLY * noise(completed) * sqrt(2 / len(values))
