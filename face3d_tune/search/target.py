"""The target of a search: a value of its objective, and how many epochs in a row must reach it.

A trial in training, a stored trial and a continued search share one rule. The kept epoch must reach the target, within
enough epochs in a row that do. With one epoch in a row, this is the trial's value alone; with more, a single lucky
epoch does not count. With several folds only their mean counts.
"""

from collections.abc import Callable, Iterable, Sequence

from optuna.trial import FrozenTrial

from face3d_tune.errors import ConfigError
from face3d_tune.study.attrs import Effort, TrialAttr
from face3d_tune.study.history import History
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.study.trials import is_complete


def check(target: float | None, objective: Objective) -> None:
    """Raise ConfigError if no trial can have that value."""
    if target is None or objective.script:
        return
    if not -1 <= target <= objective.highest:
        raise ConfigError(
            f"--target {target:g} is out of range: {objective} is -1 to {objective.highest:g}",
            "give the target in the unit of the objective, as `run` shows what its trials reach",
        )


def is_reached(
    curve: Sequence[float],
    value: float,
    kept_epoch: int,
    target: float,
    epochs: int,
    objective: Objective = COSINE,
) -> bool:
    """Tell whether a training has reached its target: the kept epoch, and enough epochs in a row around it.

    Args:
        curve: The values of the epochs, with the stored digits.
        value: Value of the kept epoch, unrounded.
        kept_epoch: Its number, 1-based.
        target: Value to reach.
        epochs: Number of epochs in a row, the kept one included.
        objective: Says which direction is better.
    """
    least = objective.key(target)
    if objective.key(value) < least:
        return False
    keys = [objective.key(each) for each in curve]
    before, after = keys[: kept_epoch - 1], keys[kept_epoch:]
    return 1 + _run(reversed(before), least) + _run(after, least) >= epochs


def reached(trial: FrozenTrial, target: float, epochs: int, objective: Objective = COSINE) -> bool:
    """Tell whether a stored trial has reached the target; only completed trials that count can."""
    attrs = trial.user_attrs
    if trial.value is None or not is_complete(trial):
        return False
    if len(TrialAttr.folds.get(attrs, ())) > 1:
        return trial.value >= target  # the mean over folds belongs to no epoch
    curve = History.of(trial, objective).values(objective) if epochs > 1 else ()  # for one epoch the value suffices
    return is_reached(curve, trial.value, TrialAttr.best_epoch.get(attrs, 1), target, epochs, objective)


def reached_by_any(
    trials: Iterable[FrozenTrial],
    effort: Effort,
    objective: Objective = COSINE,
    with_epochs: Callable[[FrozenTrial], FrozenTrial] = lambda trial: trial,
) -> bool:
    """Tell whether a trial has reached the target of its study's last run; false without a target.

    `with_epochs` reads the epochs of a trial that was read without them.
    """
    target, epochs = effort.get("target"), effort.get("target_epochs", 1)
    if target is None:
        return False
    good = (trial for trial in trials if is_complete(trial) and objective.key(trial.value) >= objective.key(target))
    return any(reached(trial if epochs == 1 else with_epochs(trial), target, epochs, objective) for trial in good)


def _run(values: Iterable[float], target: float) -> int:
    """Count the values before the first below the target."""
    count = 0
    for value in values:
        if value < target:
            break
        count += 1
    return count
