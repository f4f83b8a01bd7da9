"""The target of a search: a validation cosine, and how many epochs in a row must reach it.

A trial in training, a stored trial and a continued search share one rule. The kept epoch must reach the target, within
enough epochs in a row that do. With one epoch in a row, this is the trial's value alone; with more, a single lucky
epoch does not count. With several folds only their mean counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.history import History
from face3d_tune.study.trials import is_complete


def held(history: History, kept: float, kept_epoch: int, target: float, epochs: int) -> bool:
    """Tell whether a training has reached its target: the kept epoch, and enough epochs in a row around it.

    Args:
        history: The epochs; their cosines count with the stored digits.
        kept: Cosine of the kept epoch, in [-1, 1], unrounded.
        kept_epoch: Its number, 1-based.
        target: Cosine to reach.
        epochs: Number of epochs in a row, the kept one included.
    """
    if kept < target:
        return False
    before, after = history.cosine[: kept_epoch - 1], history.cosine[kept_epoch:]
    return 1 + _run(reversed(before), target) + _run(after, target) >= epochs


def reached(trial: FrozenTrial, target: float, epochs: int) -> bool:
    """Tell whether a stored trial has reached the target; only completed trials that count can."""
    attrs = trial.user_attrs
    if trial.value is None or not is_complete(trial):
        return False
    if len(TrialAttr.folds.get(attrs, ())) > 1:
        return trial.value >= target  # the mean over folds belongs to no epoch
    history = History.of(trial) if epochs > 1 else History(())  # for one epoch the value suffices
    return held(history, trial.value, TrialAttr.best_epoch.get(attrs, 1), target, epochs)


def reached_by_any(trials: Iterable[FrozenTrial], effort: Mapping[str, Any]) -> bool:
    """Tell whether a trial has reached the target of its study's last run; false without a target."""
    target, epochs = effort.get("target"), effort.get("target_epochs", 1)
    return target is not None and any(reached(trial, target, epochs) for trial in trials)


def _run(cosines: Iterable[float], target: float) -> int:
    """Count the values before the first below the target."""
    count = 0
    for cosine in cosines:
        if cosine < target:
            break
        count += 1
    return count
