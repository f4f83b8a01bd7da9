"""Prunes by where a curve will end: regression of the final value on the curve so far (after Baker et al. 2017)."""

import math

import numpy as np
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


class ExtrapolationPruner(BasePruner):
    """Prunes a trial whose chance to end above the best completed one is below `chance`.

    The final values of completed trials are regressed (ridge) on what their curves had shown at the same epoch: the
    highest value, the last, and that at half the epochs. The error of the prediction is that of left-out trials.

    Args:
        chance: Below which a trial is pruned.
        n_startup_trials: Completed trials before anything is pruned.
        n_warmup_steps: Epochs that every trial may train.
        interval_steps: Epochs between two looks.
    """

    def __init__(
        self, chance: float = 0.1, n_startup_trials: int = 8, n_warmup_steps: int = 5, interval_steps: int = 1
    ) -> None:
        self.chance, self.n_startup_trials = chance, n_startup_trials
        self.n_warmup_steps, self.interval_steps = n_warmup_steps, interval_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop `trial` now; intermediate values are its validation cosines by epoch."""
        step = trial.last_step
        if step is None or step < self.n_warmup_steps or (step - self.n_warmup_steps) % self.interval_steps:
            return False
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(completed) < self.n_startup_trials:
            return False
        x = np.array([_seen(t, step) for t in completed])
        y = np.array([t.value for t in completed])
        predicted, error = _predict(x, y, _seen(trial, step))
        return 0.5 * math.erfc((y.max() - predicted) / (error * 2**0.5)) < self.chance


def _seen(trial: FrozenTrial, step: int) -> tuple[float, float, float]:
    """What a curve shows at a step; one that ended before stays at its last value."""
    curve = trial.intermediate_values
    end = min(step, len(curve))
    values = [curve[epoch] for epoch in range(1, end + 1)]
    return max(values), values[-1], values[max(0, end // 2 - 1)]


def _predict(x: np.ndarray, y: np.ndarray, at: tuple[float, ...]) -> tuple[float, float]:
    """Ridge regression: the value at a point, and the standard error of predicting one."""
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    design = np.column_stack((np.ones(len(x)), (x - centre) / scale))
    inverse = np.linalg.inv(design.T @ design + np.diag((0.0, *[0.1] * x.shape[1])))
    weights = inverse @ design.T @ y
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    left_out = (y - design @ weights) / (1 - leverage).clip(0.05)
    point = np.array((1.0, *((np.array(at) - centre) / scale)))
    spread = math.sqrt(np.mean(left_out**2) * (1 + point @ inverse @ point))
    return float(point @ weights), spread + 1e-4
