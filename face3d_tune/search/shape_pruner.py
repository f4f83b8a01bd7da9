"""A pruner that knows the shapes of learning curves: from the first completed trial on it asks whether the rest of a
curve can pass the best value.

Trials that end highest are often behind at first, so trials are not compared at an epoch. The curve's own rise in the
last half of its epochs is compared with what it lacks. How much the one says about the other, and at which epoch, was
fitted once to stored trainings (`benchmarks/shapes.py`): learning curves as a prior, after Domhan, Springenberg and
Hutter (IJCAI 2015), with one logistic regression in place of their families of curves.

Only ratios of differences count. So the answer is the same for any objective a + b * cosine with b > 0, whatever its
sign and its unit.
"""

import math
from collections.abc import Sequence

from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

_NOISE = 0.004  # of the way from the lowest value to the best: what a curve rises and falls by chance
_LONGEST = 100  # epochs of the stored trainings
# By `python -m benchmarks.shapes`, in the order of `terms`.
_WEIGHTS = (-3.8332, 1.0329, -0.5771, 2.3877, 2.5608, -0.1924, 0.5061, -0.8758, -0.4554, 0.3502)


class ShapePruner(BasePruner):
    """A pruner of trials whose chance to end above the best completed one is below `chance`.

    For a study that maximises. Raises ValueError.

    Args:
        chance: (0, 1), below which a trial is pruned.
        n_warmup_steps: Epochs that every trial may train, >= 1.
    """

    def __init__(self, chance: float = 0.05, n_warmup_steps: int = 5) -> None:
        if not 0 < chance < 1:
            raise ValueError(f"chance = {chance} is out of range; expected above 0 and below 1")
        if n_warmup_steps < 1:
            raise ValueError(f"n_warmup_steps = {n_warmup_steps} is out of range; expected at least 1")
        self._chance, self._n_warmup_steps = chance, n_warmup_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether to stop `trial` now; intermediate values are those of the objective by epoch, from 1."""
        values = [value for _, value in sorted(trial.intermediate_values.items())]
        if len(values) < self._n_warmup_steps:
            return False
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = max((each.value for each in completed if each.value is not None), default=-math.inf)
        return chance_to_pass(values, best) < self._chance


def chance_to_pass(values: Sequence[float], best: float) -> float:
    """Return the chance that a training with these values so far, one an epoch, ends above `best`; 1 if it is there."""
    if max(values) >= best:
        return 1.0
    return 1 / (1 + math.exp(-sum(weight * term for weight, term in zip(_WEIGHTS, terms(values, best), strict=True))))


def terms(values: Sequence[float], best: float) -> tuple[float, ...]:
    """Return what the logarithm of the odds is a weighted sum of; `best` is above every value.

    L and R are the logarithms of what the curve lacks to `best`, and of what it rose in the last half of its epochs,
    both as shares of the whole way from its lowest value to `best`; T and S those of the epoch, and of the epochs since
    the highest value, which count from 1. The terms are 1, L, R, T, S, L T, R T, S T, T² and L².
    """
    epochs, highest = len(values), max(values)
    way = best - min(values)
    lacks = math.log((best - highest) / way + _NOISE)
    rose = math.log((highest - max(values[: max(1, epochs // 2)])) / way + _NOISE)
    time = math.log(min(epochs, _LONGEST))
    still = math.log(epochs - values.index(highest))
    return (1.0, lacks, rose, time, still, lacks * time, rose * time, still * time, time**2, lacks**2)
