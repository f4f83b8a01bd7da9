"""A pruner that extrapolates: it compares where curves will end, not where they are.

It follows Baker, Gupta, Raskar and Naik (2017). The configs that end highest here have small rates and much dropout,
and are among the last after ten epochs. A pruner that compares trials at the same epoch stops them;
docs/search-quality.md has what that costs.
"""

import math

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

_PENALTY = 0.1  # of the regression, for each of its standardised columns
_LEAST_ERROR = 1e-4  # in the unit of the objective, which is that of cosine


class ExtrapolationPruner(BasePruner):
    """A pruner of trials whose chance to end above the best completed one is below `chance`.

    A ridge regression predicts the values of completed trials from their curves up to the same epoch: the highest
    value, the last, and that at half the epochs. The error of the prediction is that of left-out trials, taken as
    normal. For a study that maximises. Raises ValueError.

    Args:
        chance: (0, 1), below which a trial is pruned.
        n_startup_trials: Completed trials before anything is pruned, >= 3.
        n_warmup_steps: Epochs that every trial may train, >= 1.
    """

    def __init__(self, chance: float = 0.1, n_startup_trials: int = 4, n_warmup_steps: int = 5) -> None:
        if not 0 < chance < 1:
            raise ValueError(f"chance = {chance} is out of range; expected above 0 and below 1")
        for name, value, least in (("n_startup_trials", n_startup_trials, 3), ("n_warmup_steps", n_warmup_steps, 1)):
            if value < least:
                raise ValueError(f"{name} = {value} is out of range; expected at least {least}")
        self._chance, self._n_startup_trials, self._n_warmup_steps = chance, n_startup_trials, n_warmup_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether to stop `trial` now; intermediate values are those of the objective by epoch, from 1."""
        step = trial.last_step
        if step is None or step < self._n_warmup_steps:
            return False
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        curves = [(_features(each, step), each.value) for each in completed if each.value is not None]
        rows = [(features, value) for features, value in curves if features is not None]
        now = _features(trial, step)
        if now is None or len(rows) < self._n_startup_trials:
            return False
        features, values = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
        predicted, error = predict(features, values, np.array(now))
        return 0.5 * math.erfc((float(values.max()) - predicted) / (error * 2**0.5)) < self._chance


def _features(trial: FrozenTrial, step: int) -> tuple[float, float, float] | None:
    """Return highest, last and middle value of a curve up to a step; a shorter curve keeps its last value."""
    values = [value for epoch, value in sorted(trial.intermediate_values.items()) if epoch <= step]
    return (max(values), values[-1], values[(len(values) - 1) // 2]) if values else None


def predict(features: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]) -> tuple[float, float]:
    """Predict the value at a point by ridge regression, and the standard error of the prediction.

    Args:
        features: [trials, columns].
        values: [trials].
        at: [columns].
    """
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    design = np.column_stack((np.ones(len(features)), (features - centre) / scale))
    inverse = np.linalg.inv(design.T @ design + np.diag([0.0, *[_PENALTY] * features.shape[1]]))
    weights = inverse @ design.T @ values
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    left_out = (values - design @ weights) / (1 - leverage).clip(0.05)
    point = np.concatenate(([1.0], (at - centre) / scale))
    spread = math.sqrt(float(np.mean(left_out**2)) * (1 + float(point @ inverse @ point)))
    return float(point @ weights), spread + _LEAST_ERROR
