"""Optuna's pruner, called after every epoch without reading the whole study again.

`Trial.should_prune` reads the curves of all running trials from the database, which is most of what a search spends
beside training. A median, percentile, extrapolation or shape pruner, and the race between folds, look at completed
trials only, which do not change.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import NopPruner, PercentilePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.search import racing
from face3d_tune.search.extrapolation import ExtrapolationPruner
from face3d_tune.search.shape_pruner import ShapePruner
from face3d_tune.storage.optuna_internals import StudyView, storage_of, trial_id
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.exclusions import exclusions_of, is_excluded, read_trials, without
from face3d_tune.study.other_programs import own_trials

Attempt = Callable[[Callable[[], Any]], Any]  # calls a function unless the database is away
Store = Callable[[optuna.Trial, float, int, Mapping[str, Any]], None]  # stores value, step and user attributes


def _at_once(action: Callable[[], Any]) -> Any:
    return action()


def _in_optuna(trial: optuna.Trial, value: float, step: int, attrs: Mapping[str, Any]) -> None:
    for key, each in attrs.items():  # first: they may be stored twice if the report fails, a report may not
        trial.set_user_attr(key, each)
    trial.report(value, step)


_FRESH = 10.0  # seconds for which completed trials of other workers may be unknown
_LIVE = 2.0  # seconds between two stored values of rank-1, which `watch` reads as often: each is a transaction


class CompletedTrials:
    """The trials that a percentile pruner reads, in memory; read again after a trial ended or some seconds passed.

    Trials of other programs are omitted: their curves need not be of the objective, nor their steps epochs. Excluded
    trials are omitted, too.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.direction: StudyDirection = study.direction
        self._study = study
        self._trials: list[FrozenTrial] = []
        self._read = float("-inf")

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the completed trials; the arguments are those of `Study.get_trials`."""
        if time.monotonic() - self._read > _FRESH:
            completed = own_trials(read_trials(self._study, states=(TrialState.COMPLETE,)))
            self._trials = [trial for trial in completed if not is_excluded(trial)]
            self._read = time.monotonic()
        return self._trials

    def forget(self) -> None:
        """Read the study again at the next request."""
        self._read = float("-inf")


class TrialReporter:
    """The reporter of one trial's curve, which also calls the study's pruner (`trial_run.Reporter`).

    Reports wait, in order, while the database is away; nothing is pruned until they are stored.
    """

    def __init__(
        self, trial: optuna.Trial, completed: CompletedTrials, attempt: Attempt = _at_once, store: Store = _in_optuna
    ) -> None:
        self._trial, self._completed, self._attempt, self._store = trial, completed, attempt, store
        self._curve: dict[int, float] = {}
        self._waiting: deque[tuple[float, int, float | None, float | None]] = deque()
        self._lr: float | None = None  # as stored
        self._rank1_at = time.monotonic()  # when it was stored; a trial of less than that long needs none

    def report(self, value: float, step: int, lr: float | None, rank1: float | None = None) -> None:
        """Store the value of an epoch (the step, from 1), a new learning rate, and sometimes rank-1, for `watch`."""
        self._curve[step] = value
        self._waiting.append((value, step, lr, rank1))
        self._attempt(self.deliver)

    def deliver(self) -> None:
        """Store the pending reports."""
        while self._waiting:
            value, step, lr, rank1 = self._waiting[0]
            attrs, now = dict[str, float](), time.monotonic()
            if lr is not None and lr != self._lr:
                attrs[TrialAttr.lr_now.key] = lr
            if rank1 is not None and now - self._rank1_at >= _LIVE:
                attrs[TrialAttr.rank1_now.key] = rank1
            self._store(self._trial, value, step, attrs)
            self._lr = attrs.get(TrialAttr.lr_now.key, self._lr)
            self._rank1_at = now if TrialAttr.rank1_now.key in attrs else self._rank1_at
            self._waiting.popleft()

    def should_prune(self) -> bool:
        """Tell whether other trials' curves make this one hopeless: the answer of `Trial.should_prune`."""
        return not self._waiting and bool(self._attempt(self._ask_pruner))

    def is_lost(self, values: Sequence[float]) -> bool:
        """Tell whether the completed trials make one hopeless that has these values on its first folds."""
        return not self._waiting and bool(self._attempt(lambda: racing.is_lost(values, self._fold_values())))

    def _fold_values(self) -> list[list[float]]:
        """Return the fold values of every completed trial; an imported one has none."""
        attrs = [trial.user_attrs for trial in self._completed.get_trials()]
        return [[fold["value"] for fold in TrialAttr.folds.of(each)] for each in attrs if TrialAttr.folds.held_by(each)]

    def _ask_pruner(self) -> bool:
        pruner = self._trial.study.pruner
        if isinstance(pruner, NopPruner):
            return False
        if not isinstance(pruner, PercentilePruner | ExtrapolationPruner | ShapePruner):  # the median pruner is one
            trial = storage_of(self._trial.study).get_trial(trial_id(self._trial))
            excluded = exclusions_of(self._trial.study)
            view = StudyView(self._trial.study, lambda trials: without(own_trials(trials), excluded))
            return pruner.prune(view, trial)  # type: ignore[arg-type]
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
            trial_id=trial_id(self._trial),
        )
        if self._completed.direction == StudyDirection.MINIMIZE and not isinstance(pruner, PercentilePruner):
            return pruner.prune(_Mirrored(self._completed), _mirrored(running))  # type: ignore[arg-type]
        return pruner.prune(self._completed, running)  # type: ignore[arg-type]


class _Mirrored:
    """Completed trials with the opposite of each value, for the pruners that know only maximising."""

    def __init__(self, completed: CompletedTrials) -> None:
        self._completed = completed

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return list(map(_mirrored, self._completed.get_trials(deepcopy, states)))


def _mirrored(trial: FrozenTrial) -> FrozenTrial:
    opposite = copy.copy(trial)
    if trial.value is not None:
        opposite.value = -trial.value
    opposite.intermediate_values = {step: -value for step, value in trial.intermediate_values.items()}
    return opposite
