"""A sampler that learns from pruned trials as well: it is shown every finished trial as a completed one."""

import copy
from collections.abc import Container, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

_TAUGHT = (TrialState.COMPLETE, TrialState.PRUNED)


class _Taught:
    """A study whose pruned trials look completed, with the best value they came to, and every trial whole."""

    def __init__(self, study: optuna.Study, space: Mapping[str, BaseDistribution]) -> None:
        self._study, self._space = study, space

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = self._study._get_trials(False, None, use_cache)
        shown = [self._shown(trial) if trial.state in _TAUGHT else trial for trial in trials]
        return [trial for trial in shown if states is None or trial.state in states]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    def _shown(self, trial: FrozenTrial) -> FrozenTrial:
        missing = [name for name in self._space if name not in trial.params]
        if trial.state == TrialState.COMPLETE and not missing:
            return trial
        shown = copy.copy(trial)
        shown.state = TrialState.COMPLETE
        if trial.state == TrialState.PRUNED:
            shown.values = [max(trial.intermediate_values.values())]
        low = {name: getattr(self._space[name], "low", None) for name in missing}  # 0 of a logarithmic range
        distributions = trial.distributions | {name: self._space[name] for name in missing}
        shown._distributions, shown.params = distributions, trial.params | low
        return shown


class TaughtSampler(BaseSampler):
    """Another sampler, which takes pruned trials for completed ones.

    Args:
        base: Samples.
        space: All that is sampled.
    """

    def __init__(self, base: BaseSampler, space: Mapping[str, BaseDistribution]) -> None:
        self._base, self._space = base, space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The base's."""
        return self._base.infer_relative_search_space(_Taught(study, self._space), trial)  # type: ignore[arg-type]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The base's."""
        return self._base.sample_relative(_Taught(study, self._space), trial, search_space)  # type: ignore[arg-type]

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The base's."""
        taught: Any = _Taught(study, self._space)
        return self._base.sample_independent(taught, trial, param_name, param_distribution)
