"""Failed and pruned trials as the sampler sees them.

Those that diverged or ran out of memory count as the worst. To TPE a pruned trial is a completed one with the highest
value that it reached. Optuna's TPE ranks every completed trial above every pruned one. A pruner that stops most trials
early would leave it the first completed trials, however bad, among the best tenth.

Optuna's samplers ignore failed trials, so they return to the same hopeless region. The stored trials stay as they are;
failed ones are outside every budget. The sampler does not see trials of other programs. Their values may be of another
measure, and one that lacks a parameter would end joint sampling for all others.
"""

import copy
from collections.abc import Container, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.storage.optuna_internals import StudyView, startup_trials, trials_as_sampled_from
from face3d_tune.study.causes import OF_THE_CONFIG, cause
from face3d_tune.study.exclusions import without
from face3d_tune.study.growth import GrownSpace
from face3d_tune.study.other_programs import own_trials
from face3d_tune.study.trials import FINISHED

_AT_MOST = 4  # failures shown for each completed trial: TPE takes the best tenth, which no failure may reach


class FailuresAsWorst(BaseSampler):
    """A wrapper of a sampler, which reads `seen_by_sampler` in place of the trials of a study, without `excluded` ones.

    Its start-up is as long as without the wrapper, and failures teach nothing until then. A model of two or three good
    trials beside a dozen failures would stay with these. `grown` says that the space of the study has grown.
    """

    def __init__(self, sampler: BaseSampler, excluded: Container[int] = (), grown: GrownSpace | None = None) -> None:
        self._sampler, self._excluded, self._grown = sampler, excluded, grown
        self._startup, self._is_tpe = startup_trials(sampler), isinstance(sampler, TPESampler)
        self._counted = FINISHED if self._is_tpe else (TrialState.COMPLETE,)

    def _seen(self, study: optuna.Study) -> optuna.Study:
        trials = self._counted_trials(trials_as_sampled_from(study))
        started = sum(trial.state in self._counted for trial in trials) >= self._startup
        shown = seen_by_tpe if self._is_tpe else seen_by_sampler
        minimize = study.direction.name == "MINIMIZE"

        def change(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
            counted = self._counted_trials(trials)
            return self._in_space(shown(counted, minimize=minimize) if started else counted)

        return cast(optuna.Study, StudyView(study, change))

    def _counted_trials(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return without(own_trials(trials), self._excluded)

    def _in_space(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return trials in the space to which their study has grown, if it has."""
        return trials if self._grown is None else [self._grown.seen(trial) for trial in trials]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what the wrapped sampler samples jointly."""
        return self._sampler.infer_relative_search_space(self._seen(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the wrapped sampler's values for the joint parameters."""
        return self._sampler.sample_relative(self._seen(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the wrapped sampler's value for one of the others."""
        return self._sampler.sample_independent(self._seen(study), trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseed the wrapped sampler."""
        self._sampler.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Call the wrapped sampler before a trial."""
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Call the wrapped sampler after a trial."""
        self._sampler.after_trial(study, trial, state, values)


def seen_by_sampler(trials: Sequence[FrozenTrial], *, minimize: bool = False) -> list[FrozenTrial]:
    """Return this program's trials, with those that failed by their own config as completed ones with the worst value.

    The worst known value says "not there" without bending a model of the others, as -1 would. Before a trial has
    completed, the failures stay failed; so do the oldest where they are too many.
    """
    trials = own_trials(trials)
    completed = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    failed = [trial.number for trial in trials if cause(trial) in OF_THE_CONFIG]
    taught = set(failed[-_AT_MOST * len(completed) :] if completed else [])
    worst = max if minimize else min
    return [_as_completed(trial, worst(completed)) if trial.number in taught else trial for trial in trials]


def seen_by_tpe(trials: Sequence[FrozenTrial], *, minimize: bool = False) -> list[FrozenTrial]:
    """Return what any sampler sees, with pruned trials as completed ones with the best value that they reached."""
    best = min if minimize else max
    return [
        _as_completed(trial, best(trial.intermediate_values.values()))
        if trial.state == TrialState.PRUNED and trial.intermediate_values
        else trial
        for trial in seen_by_sampler(trials, minimize=minimize)
    ]


def _as_completed(trial: FrozenTrial, value: float) -> FrozenTrial:
    stand_in = copy.copy(trial)
    stand_in.state, stand_in.value = TrialState.COMPLETE, value
    return stand_in
