"""One trial: take its epochs as they come, report its curve, and say how it ended.

The value of a trial is the mean validation cosine of the checkpoint that training keeps, the one with the lowest
validation loss: what a user gets from the exported command. No searched loss weight can rescale it. Of several folds
it is the mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.device import Precision
from face3d_tune.executor.tasks import Event, Failure, Note, Resumed, Task
from face3d_tune.search.target import held
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.folds import in_all, key_of, seed_of
from face3d_tune.study.history import History, pack
from face3d_tune.training.base import EpochResult, best_epoch, precision_for

StopReason = Literal["finished", "early_stopping", "pruned", "target", "non_finite", "error"]
Cause = Literal["diverged", "out_of_memory", "error", "outside"]  # of a failure; see `results.cause`


class Reporter(Protocol):
    """What the objective needs of an Optuna trial: take a curve point, and say whether it is worth going on."""

    def report(self, value: float, step: int, lr: float) -> None:
        """Take the validation cosine of an epoch (the step, from 1), and the learning rate of the next one.

        The steps of a fold go on where those of the fold before would end if it trained all its epochs.
        """

    def should_prune(self) -> bool:
        """Whether other trials' curves make this one hopeless."""

    def is_lost(self, values: Sequence[float]) -> bool:
        """Whether other trials' values on the same first folds make a trial with these `values` hopeless."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What every trial of a search shares: where it trains, on what, and when the search has what it wants."""

    data: FaceData
    device: torch.device
    precision: Precision  # of the trials that use mixed precision
    target: float | None = None  # validation cosine that ends the search
    target_epochs: int = 1  # in a row that must have it; see `target`


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended. `value` is the objective; None if no epoch was validated."""

    stop_reason: StopReason
    value: float | None
    attrs: dict[str, Any]  # Optuna user attributes, ready for JSON
    history: dict[str, Any] = field(default_factory=dict)  # as `history.pack` gives it
    death: Cause | None = None  # cause of the failure if the process of the training died, so that a retry may succeed


class TrialRun:
    """One trial while it trains: takes each event of its training, reports it, and says how the trial ended.

    With mixed precision that leads to NaN, the training begins again without; Optuna takes each step once, so the steps
    that the first attempt reported keep its values.

    With several folds it trains on one after another. The pruner is asked in the first only, since it compares epochs,
    and those of another fold are of other people; after each fold the race between trials decides whether it goes on.

    Args:
        number: Of the trial.
        config: What it trains.
        setup: What it shares with all others.
        seed: Of its training.
        reporter: Takes its curve.
        key: Under which its checkpoints are kept; None: nowhere.
        retry: Whether somebody has begun it before, so that there should be one.
        folds: On how many folds of the data it trains.
        say: Takes what a person should know and no trial ends by.
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
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._setup, self._reporter, self._say = setup, reporter, say
        precision = precision_for(config, setup.precision)
        self.task = Task(number, config, seed, precision, key, retry, folds=folds)
        self._seed, self._key = seed, key
        self._resumed: dict[int, Resumed] = {}  # by fold
        self._first: list[EpochResult] = []  # the epochs of fold 1, once there is another
        self._past: list[dict[str, Any]] = []  # what is told of each fold before this
        self._history: list[EpochResult] = []  # of this fold
        self._notes: list[str] = []
        self._reported, self._retried = 0, False

    def take(self, event: Event, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """How the trial ended, the task with which it goes on in the next fold or begins this one again, or None.

        Whatever `after_epoch` raises ends the trial. A trial that its own curve stopped counts as completed, so pruning
        is only asked for a trial that would go on.
        """
        match event.given:
            case Failure() as failure:
                return self._failed(failure)
            case Note(text):
                self._say(text)
                return None
            case Resumed() as resumed:
                return self._go_on(resumed, after_epoch)
            case result:
                self._report(result)
                return self._judged(result, after_epoch)

    def _go_on(self, resumed: Resumed, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """Take over the epochs of whoever trained it before; the last may not have been judged."""
        if resumed.note:
            self._say(resumed.note)
        in_mid_trial = self.task.fold < self.task.folds  # where the end of a fold is the end of nothing
        if resumed.results and not (in_mid_trial and resumed.results[-1].stop_reason):
            of_fold = "" if self.task.folds == 1 else f" of fold {self.task.fold}"
            self._say(f"resumes after epoch {len(resumed.results)}{of_fold}")
        if resumed.precision != self.task.precision:  # the other has led to NaN before
            self.task, self._retried = replace(self.task, precision=resumed.precision), True
        self._resumed[self.task.fold], self._history = resumed, []
        for result in resumed.results:
            self._report(result)
        return self._judged(resumed.results[-1], after_epoch) if resumed.results else None

    def _report(self, result: EpochResult) -> None:
        self._history = [*self._history[: result.epoch - 1], result]
        step = (self.task.fold - 1) * self.task.config.epochs + result.epoch
        if step > self._reported:
            self._reporter.report(result.val_cosine, step, result.next_lr)
            self._reported = step

    def _judged(self, result: EpochResult, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """How the trial ended with this epoch, if it did, or the task of its next fold."""
        after_epoch(result)
        if self._reached():
            return self._outcome("target")
        if result.stop_reason:
            return self._fold_ended(result.stop_reason)
        return self._outcome("pruned") if self.task.fold == 1 and self._reporter.should_prune() else None

    def _fold_ended(self, stop_reason: StopReason) -> Outcome | Task:
        """How the trial ended with this fold, or the task of the next."""
        fold = self.task.fold
        if fold == self.task.folds:
            return self._outcome(stop_reason)
        past = [*self._past, self._facts(stop_reason)]
        if self._reporter.is_lost([TrialAttr.val_cosine.of(each) for each in past]):
            outcome = self._outcome("pruned", past)
            outcome.attrs[TrialAttr.raced_out_after_fold.key] = fold
            return outcome
        self._first = self._first or self._history
        self._past, self._history = past, []
        key = None if self._key is None else key_of(self._key, fold + 1)
        # Whoever trained it before need not have come to this fold, so a missing checkpoint is nothing to tell.
        self.task = replace(self.task, fold=fold + 1, seed=seed_of(self._seed, fold + 1), key=key, retry=False)
        return self.task

    def _reached(self) -> bool:
        best, target = self._best, self._setup.target
        if best is None or target is None or self.task.folds > 1:  # of several the mean counts, known at the end
            return False
        return held(History.of_epochs(self._history), best.val_cosine, best.epoch, target, self._setup.target_epochs)

    def _failed(self, failure: Failure) -> Outcome | Task:
        message = failure.message if self.task.folds == 1 else f"fold {self.task.fold}: {failure.message}"
        if not failure.non_finite:
            self._notes.append(message)
            cause: Cause = "out_of_memory" if failure.out_of_memory else "error"
            return replace(self._outcome("error", cause=cause), death=cause if failure.died else None)
        self._notes.append(f"{message} (mixed precision: {self.task.precision})")
        again = self.task.without_mixed_precision()
        if again is None:
            return self._outcome("non_finite", cause="diverged")
        self.task = again
        self._retried, self._history = True, []
        return self.task

    @property
    def _best(self) -> EpochResult | None:
        return best_epoch(self._history)

    def _outcome(
        self, stop_reason: StopReason, folds: Sequence[dict[str, Any]] = (), *, cause: Cause | None = None
    ) -> Outcome:
        """Collect what is stored about the trial.

        `folds` are its folds if this one has ended and no other begins; `cause` is why it failed, if it did.
        """
        attrs: dict[str, Any] = {
            TrialAttr.stop_reason.key: stop_reason,
            **({TrialAttr.cause.key: cause} if cause else {}),
        }
        if self._notes:
            attrs[TrialAttr.error.key] = "; ".join(self._notes)
        if self._resumed:
            attrs[TrialAttr.resumed_epochs.key] = sum(len(resumed.results) for resumed in self._resumed.values())
            if notes := [resumed.note for resumed in self._resumed.values() if resumed.note]:
                attrs[TrialAttr.resume_note.key] = "; ".join(notes)
        folds = folds or [*self._past, self._facts(stop_reason)]
        attrs = (in_all(folds) if self.task.folds > 1 else folds[0]) | attrs
        return Outcome(stop_reason, TrialAttr.val_cosine.get(attrs), attrs, pack(self._first or self._history))

    def _facts(self, stop_reason: StopReason) -> dict[str, Any]:
        """Return what is stored about the training on this fold."""
        facts = {
            TrialAttr.stop_reason.key: stop_reason,
            TrialAttr.epochs_run.key: len(self._history),
            TrialAttr.lr_decays.key: sum(result.next_lr < result.lr for result in self._history),
            TrialAttr.lr_final.key: self._history[-1].next_lr if self._history else self.task.config.lr,
            TrialAttr.amp.key: self.task.precision,
            TrialAttr.retried_without_amp.key: self._retried,
        }
        best = self._best
        if best is None:
            return facts
        return facts | {
            TrialAttr.best_epoch.key: best.epoch,
            TrialAttr.val_cosine.key: best.val_cosine,
            TrialAttr.val_loss.key: best.val_loss,
            TrialAttr.val_loss_equal.key: best.val_loss_equal,
            TrialAttr.train_loss.key: best.train_loss,
            TrialAttr.gap.key: best.val_loss - best.train_loss,
            TrialAttr.cosine_by_yaw.key: dict(best.cosine_by_yaw),
        }
