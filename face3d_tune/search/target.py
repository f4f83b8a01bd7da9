"""When a search has what it wants: a validation cosine, and how many epochs in a row must have it.

One meaning for a trial in training, for one that is stored, and for a search that goes on with another target: the
checkpoint that training keeps is at or above the target, and stands in so many epochs in a row that are. With one epoch
that is the trial's value alone; with more, a lucky epoch among bad ones does not count. Of several folds the
mean counts, and that alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.history import History
from face3d_tune.study.trials import is_complete


def held(history: History, kept: float, kept_epoch: int, target: float, epochs: int) -> bool:
    """Tell whether a training has reached `target`: its kept cosine has, and `epochs` in a row round `kept_epoch` (from
    1).

    Its other cosines count with the stored digits.
    """
    if kept < target:
        return False
    before, after = history.cosine[: kept_epoch - 1], history.cosine[kept_epoch:]
    return 1 + _run(reversed(before), target) + _run(after, target) >= epochs


def reached(trial: FrozenTrial, target: float, epochs: int) -> bool:
    """Tell the same of a stored trial; one that has not completed, or does not count, has not reached it."""
    attrs = trial.user_attrs
    if trial.value is None or not is_complete(trial):
        return False
    if len(TrialAttr.folds.get(attrs, ())) > 1:
        return trial.value >= target  # a mean over folds is of no epoch
    history = History.of(trial) if epochs > 1 else History(())  # of one epoch the value says all
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
