"""The importance of parameters for the differences between trials, and what chance alone would give.

The importance is the share of variance between groups of trials (the correlation ratio of Pearson, 1905). The
parameter's value cuts trials into four groups of equal size, or its choices do. Chance is measured by shuffling the
trials' cosines.

Optuna's own importances failed on a search of the sample with a known answer, the unit of the poses (on average 0.62 in
radians, 0.55 in degrees). PED-ANOVA gave the unit 0.00 to 0.05 and scheduler_min_lr 0.63, fANOVA gave it 0.01 to 0.11.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST = 12  # trials; with fewer, four groups have two or three
_GROUPS = 4
_DEALS = 400  # random shuffles
_AT_ONCE = 20  # of them in memory, a megabyte of thousands of trials
_CHANCE = 0.95  # share of the shuffles below the value called chance


@dataclass(frozen=True, slots=True)
class ValueGroup:
    """The trials with values of one parameter from `low` to `high`, both included; equal for a choice."""

    low: Any
    high: Any
    trials: int
    mean: float  # of their validation cosines


@dataclass(frozen=True, slots=True)
class Importance:
    """One parameter, and the share of the variance of the trials' cosines between its groups, 0 to 1."""

    name: str
    share: float
    chance: float  # the share that the luckiest of all parameters stays below in 95 of 100 studies without any effect
    groups: tuple[ValueGroup, ...]  # by value, the lowest first; choices by name

    @property
    def sure(self) -> bool:
        """Tell whether chance is an unlikely explanation. (A correlated parameter may still be one.)"""
        return self.share > self.chance


def importances(columns: Mapping[str, Sequence[Any]], cosines: Sequence[float]) -> list[Importance]:
    """Rank parameters, the most important first, without those of a single value. Empty for fewer than FEWEST trials.

    Args:
        columns: Each parameter's value in each trial: numbers, or anything else as choices.
        cosines: The trials' cosines.
    """
    values = np.asarray(cosines, dtype=float)  # [trials]
    if len(values) < FEWEST or np.ptp(values) == 0:
        return []
    cuts = {name: _cut(column) for name, column in columns.items()}
    cuts = {name: cut for name, cut in cuts.items() if cut.max() > 0}
    random = np.random.default_rng(0)
    luckiest = []
    for _ in range(0, _DEALS, _AT_ONCE):
        dealt = np.stack([random.permutation(values) for _ in range(_AT_ONCE)])  # [deals, trials]
        luckiest.append(np.max([_share(cut, dealt) for cut in cuts.values()], axis=0, initial=0.0))  # [deals]
    chance = float(np.quantile(luckiest, _CHANCE))
    rows = [
        Importance(name, float(_share(cut, values[None])[0]), chance, _groups(columns[name], cut, values))
        for name, cut in cuts.items()
    ]
    return sorted(rows, key=lambda importance: -importance.share)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cut(column: Sequence[Any]) -> np.ndarray:
    """Return the group of each trial, [trials], from 0 without gaps. Equal values are in one group."""
    if not all(_is_number(value) for value in column):
        names = [str(value) for value in column]
        return np.unique(names, return_inverse=True)[1]
    distinct = np.unique(column)
    if len(distinct) <= _GROUPS:
        return np.searchsorted(distinct, column)
    edges = np.quantile(column, np.arange(1, _GROUPS) / _GROUPS, method="lower")
    return np.unique(np.searchsorted(edges, column, side="left"), return_inverse=True)[1]


def _share(cut: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return variance between groups over all variance, of each row of `values` [rows, trials]."""
    centred = values - values.mean(axis=1, keepdims=True)
    member = cut[:, None] == np.arange(cut.max() + 1)  # [trials, groups]
    between = (centred @ member) ** 2 / member.sum(axis=0)
    share: np.ndarray = between.sum(axis=1) / (centred**2).sum(axis=1)
    return share


def _groups(column: Sequence[Any], cut: np.ndarray, values: np.ndarray) -> tuple[ValueGroup, ...]:
    groups = []
    for group in range(cut.max() + 1):
        members = [value for value, own in zip(column, cut, strict=True) if own == group]
        low, high = (min(members), max(members)) if _is_number(members[0]) else (members[0], members[0])
        groups.append(ValueGroup(low, high, len(members), float(values[cut == group].mean())))
    return tuple(groups)
