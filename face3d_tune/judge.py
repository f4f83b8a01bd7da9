"""Optuna's pruner, asked after every epoch without reading the whole study again.

`Trial.should_prune` reads the curves of all running trials from the database, which is most of what a search spends
beside training. A median or percentile pruner looks at completed trials only, and these do not change.
"""

import time
from collections.abc import Container

import optuna
from optuna.pruners import NopPruner, PercentilePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_FRESH = 10.0  # seconds for which completed trials of other workers may be unknown


class CompletedTrials:
    """What a percentile pruner asks of a study, from memory; read again when a trial has ended, or after a while."""

    def __init__(self, study: optuna.Study) -> None:
        self.direction: StudyDirection = study.direction
        self._study = study
        self._trials: list[FrozenTrial] = []
        self._read = float("-inf")

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The completed trials; the arguments are those of `Study.get_trials`."""
        if time.monotonic() - self._read > _FRESH:
            self._trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._read = time.monotonic()
        return self._trials

    def forget(self) -> None:
        """Read again when asked next."""
        self._read = float("-inf")


class TrialJudge:
    """Takes the curve of one trial and asks the study's pruner about it (`objective.Judge`)."""

    def __init__(self, trial: optuna.Trial, completed: CompletedTrials) -> None:
        self._trial, self._completed = trial, completed
        self._curve: dict[int, float] = {}

    def report(self, value: float, step: int) -> None:
        """Store the validation cosine of an epoch (the step, from 1)."""
        self._trial.report(value, step)
        self._curve[step] = value

    def should_prune(self) -> bool:
        """Whether other trials' curves make this one hopeless: what `Trial.should_prune` answers."""
        pruner = self._trial.study.pruner
        if isinstance(pruner, NopPruner):
            return False
        if not isinstance(pruner, PercentilePruner):  # the median pruner is one
            return self._trial.should_prune()
        running = FrozenTrial(
            number=self._trial.number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=self._trial.datetime_start,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values=dict(self._curve),
            trial_id=self._trial._trial_id,
        )
        return pruner.prune(self._completed, running)  # type: ignore[arg-type]
