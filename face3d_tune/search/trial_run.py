"""One trial from its first epoch to its outcome: report each epoch, and decide whether to continue.

The value of a trial is what the study's objective gives the checkpoint that training keeps, the one with the lowest
validation loss: what a user gets from the exported command. No searched loss weight can rescale it. With several folds
it is the mean over them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.device import Precision
from face3d_tune.executor.tasks import Event, Failure, Note, Resumed, ScriptEnded, ScriptEpoch, Task
from face3d_tune.search import target
from face3d_tune.search.fold_sequence import FoldSequence
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.history import History, pack
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.training.base import EpochResult, precision_for

StopReason = Literal["finished", "early_stopping", "pruned", "over_time", "target", "non_finite", "error"]
Cause = Literal["diverged", "out_of_memory", "timeout", "error", "outside"]  # of a failure; see `trials.cause`


class Reporter(Protocol):
    """The part of an Optuna trial that a training needs: it stores the curve, and prunes."""

    def report(self, value: float, step: int, lr: float | None, rank1: float | None = None) -> None:
        """Store the value of an epoch under its step (1-based), the learning rate of the next epoch, and rank-1."""

    def should_prune(self) -> bool:
        """Tell whether other trials' curves make this one hopeless."""

    def is_lost(self, values: Sequence[float]) -> bool:
        """Tell whether the completed trials make one hopeless that has these `values` on its first folds."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The data, the devices and the target that all trials of a search share."""

    data: FaceData
    device: torch.device  # of several GPUs, the first
    precision: Precision  # of the trials that use mixed precision
    target: float | None = None  # value that ends the search
    target_epochs: int = 1  # in a row that must reach it; see `target`
    more_gpus: tuple[torch.device, ...] = ()  # that train as well

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Return every device that trains."""
        return (self.device, *self.more_gpus)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a trial. `value` is the objective; None if no epoch was validated."""

    stop_reason: StopReason
    value: float | None
    attrs: dict[str, Any]  # Optuna user attributes, ready for JSON
    history: dict[str, Any] = field(default_factory=dict)  # as `history.pack` gives it
    death: Cause | None = None  # cause of the failure if the process of the training died, so that a retry may succeed
    beside: bool = False  # its process was ended for a training beside it: it is requeued, and that counts nowhere


def cause_of(failure: Failure) -> Cause:
    """Return the cause of a failure that is no NaN."""
    if failure.timed_out:
        return "timeout"
    return "out_of_memory" if failure.out_of_memory else "error"


def death_of(failure: Failure, cause: Cause) -> Cause | None:
    """Return the cause if the process died or had to be ended; None if the training itself failed."""
    return cause if failure.died or failure.timed_out else None


class TrialRun:
    """One trial in training: it turns the events of a slot into reports, further tasks, and the outcome.

    A training that becomes NaN in mixed precision restarts without it. Optuna takes each step once, so the steps
    that the first attempt reported keep its values.

    Only the first fold is pruned: the pruner compares epochs, and those of other folds are of other people. After
    each fold the race between trials decides whether the trial continues.

    Args:
        number: Of the trial.
        config: Every value of the training.
        setup: Shared by all trials of the search.
        seed: Of the training.
        reporter: Stores the curve.
        key: Under which checkpoints are saved; None: no checkpoints.
        retry: Whether a worker has begun this trial before, so that there should be a checkpoint.
        folds: Number of folds to train on.
        objective: Of the study.
        note: Takes messages for the user that end no trial.
    """

    def __init__(
        self,
        number: int,
        config: TrialConfig,
        setup: Setup,
        *,
        seed: int,
        reporter: Reporter,
        key: str | None = None,
        retry: bool = False,
        folds: int = 1,
        objective: Objective = COSINE,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._setup, self._reporter, self._note, self._objective = setup, reporter, note, objective
        precision = precision_for(config, setup.precision)
        self._folds = FoldSequence(Task(number, config, seed, precision, key, retry, folds=folds))
        self._errors: list[str] = []
        self._reported = 0  # the last step

    @property
    def task(self) -> Task:
        """Return the training that a slot should run now."""
        return self._folds.current.task

    @property
    def config(self) -> dict[str, Any]:
        """Return the values of its config."""
        return self._folds.all[0].task.config.to_dict()

    def take(self, event: Event, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """Process an event. Return the outcome, or a task to start instead, or None if the training continues.

        A task is the next fold, or this one again. An exception from `after_epoch` ends the trial. A training that
        stopped by itself counts as completed, so only one that would continue can be pruned.
        """
        match event.content:
            case Failure() as failure:
                return self._fail(failure)
            case Note(text):
                self._note(text)
                return None
            case Resumed() as resumed:
                return self._resume(resumed, after_epoch)
            case EpochResult() as result:
                self._folds.current.add(result)
                self._report(result)
                return self._decide(result, after_epoch)
            case ScriptEpoch() | ScriptEnded():
                raise TypeError(event)  # of a script, which is no trial of the built-in trainer

    def _resume(self, resumed: Resumed, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """Continue from a checkpoint; the worker before may not have decided on its last epoch."""
        if resumed.note:
            self._note(resumed.note)
        self._folds.current.resume(resumed)
        if not resumed.results:
            return None
        last = resumed.results[-1]
        if not (last.stop_reason and self.task.fold < self.task.folds):  # at such an end nothing resumes
            of_fold = "" if self.task.folds == 1 else f" of fold {self.task.fold}"
            self._note(f"resumes after epoch {last.epoch}{of_fold}")
        for result in resumed.results:
            self._report(result)
        return self._decide(last, after_epoch)

    def _report(self, result: EpochResult) -> None:
        step = self._folds.step(result.epoch)
        if step > self._reported:
            self._reporter.report(self._objective.of_epoch(result), step, result.next_lr, result.rank1)
            self._reported = step

    def _decide(self, result: EpochResult, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """End the trial after this epoch, begin its next fold, or continue."""
        after_epoch(result)
        if self._has_reached_target():
            return self._end("target")
        if result.stop_reason and self.task.fold == self.task.folds:
            return self._end(result.stop_reason)
        if result.stop_reason and self._reporter.is_lost(
            [self._objective.of_epoch(fold.best) for fold in self._folds.all if fold.best]
        ):
            outcome = self._end("pruned")
            outcome.attrs[TrialAttr.raced_out_after_fold.key] = self.task.fold
            return outcome
        if result.stop_reason:
            return self._folds.begin_next()
        return self._end("pruned") if self.task.fold == 1 and self._reporter.should_prune() else None

    def _has_reached_target(self) -> bool:
        fold, setup = self._folds.current, self._setup
        if fold.best is None or setup.target is None or fold.task.folds > 1:  # the mean counts, known at the end
            return False
        curve, value = History.of_epochs(fold.epochs).values(self._objective), self._objective.of_epoch(fold.best)
        return target.is_reached(curve, value, fold.best.epoch, setup.target, setup.target_epochs)

    def _fail(self, failure: Failure) -> Outcome | Task:
        """End the trial; after NaN in mixed precision, return the task that restarts its fold without."""
        message = failure.message if self.task.folds == 1 else f"fold {self.task.fold}: {failure.message}"
        if failure.non_finite:
            self._errors.append(f"{message} (mixed precision: {self.task.precision})")
            return self._folds.current.restart_without_mixed_precision() or self._end("non_finite", "diverged")
        self._errors.append(message)
        cause = cause_of(failure)
        outcome = self._end("error", cause, death=death_of(failure, cause))
        return replace(outcome, beside=failure.beside)

    def _end(self, stop_reason: StopReason, cause: Cause | None = None, *, death: Cause | None = None) -> Outcome:
        attrs = self._folds.summary(stop_reason, self._objective)
        if cause:
            attrs[TrialAttr.cause.key] = cause
        if self._errors:
            attrs[TrialAttr.error.key] = "; ".join(self._errors)
        value = self._objective.of_trial(attrs)
        return Outcome(stop_reason, value, attrs, pack(self._folds.all[0].epochs), death)
