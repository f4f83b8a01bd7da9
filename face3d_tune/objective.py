"""One trial: take its epochs as they come, report its curve, and say how it ended.

The value of a trial is the mean validation cosine of the checkpoint that training keeps, the one with the lowest
validation loss: what a user gets from the exported command. No searched loss weight can rescale it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data import FaceData
from face3d_tune.device import Precision
from face3d_tune.history import History, pack
from face3d_tune.target import held
from face3d_tune.tasks import Event, Failure, Note, Resumed, Task
from face3d_tune.training import EpochResult

StopReason = Literal["finished", "early_stopping", "pruned", "target", "non_finite", "error"]
Cause = Literal["diverged", "out_of_memory", "error"]  # of a failure; see `results.cause`


class Judge(Protocol):
    """What the objective needs of an Optuna trial: take a curve point, and say whether it is worth going on."""

    def report(self, value: float, step: int, lr: float) -> None:
        """Take the validation cosine of an epoch (the step, from 1), and the learning rate of the next one."""

    def should_prune(self) -> bool:
        """Whether other trials' curves make this one hopeless."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What every trial of a search shares: where it trains, on what, and when the search has what it wants."""

    data: FaceData
    device: torch.device
    precision: Precision  # of the trials that use mixed precision
    use_amp: bool = True  # False: no trial does, whatever its study file or preset says
    target: float | None = None  # validation cosine that ends the search
    target_epochs: int = 1  # in a row that must have it; see `target`


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended. `value` is the objective; None if no epoch was validated."""

    stop_reason: StopReason
    value: float | None
    attrs: dict[str, Any]  # Optuna user attributes, ready for JSON
    history: dict[str, Any] = field(default_factory=dict)  # as `history.pack` gives it


class TrialRun:
    """One trial while it trains: takes each event of its training, reports it, and says how the trial ended.

    With mixed precision that leads to NaN, the training begins again without; Optuna takes each step once, so the steps
    that the first attempt reported keep its values.

    Args:
        number: Of the trial.
        config: What it trains.
        setup: What it shares with all others.
        seed: Of its training.
        judge: Takes its curve.
        key: Under which its checkpoints are kept; None: nowhere.
        retry: Whether somebody has begun it before, so that there should be one.
        say: Takes what a person should know and no trial ends by.
    """

    def __init__(
        self,
        number: int,
        config: TrialConfig,
        setup: Setup,
        *,
        seed: int,
        judge: Judge,
        key: str | None = None,
        retry: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._setup, self._judge, self._say = setup, judge, say
        precision: Precision = setup.precision if config.use_mixed_precision else "off"
        self.task = Task(number, config, seed, precision, key, retry)
        self._resumed: Resumed | None = None
        self._history: list[EpochResult] = []
        self._notes: list[str] = []
        self._reported, self._retried = 0, False

    def take(self, event: Event, after_epoch: Callable[[EpochResult], None]) -> Outcome | Task | None:
        """How the trial ended, the task with which it begins again, or None if it goes on.

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

    def _go_on(self, resumed: Resumed, after_epoch: Callable[[EpochResult], None]) -> Outcome | None:
        """Take over the epochs of whoever trained it before; the last may not have been judged."""
        if resumed.note:
            self._say(resumed.note)
        if resumed.results:
            self._say(f"goes on after epoch {len(resumed.results)}")
        if resumed.precision != self.task.precision:  # the other has led to NaN before
            self.task, self._retried = replace(self.task, precision=resumed.precision), True
        self._resumed, self._history = resumed, []
        for result in resumed.results:
            self._report(result)
        return self._judged(resumed.results[-1], after_epoch) if resumed.results else None

    def _report(self, result: EpochResult) -> None:
        self._history = [*self._history[: result.epoch - 1], result]
        if result.epoch > self._reported:
            self._judge.report(result.val_cosine, result.epoch, result.next_lr)
            self._reported = result.epoch

    def _judged(self, result: EpochResult, after_epoch: Callable[[EpochResult], None]) -> Outcome | None:
        """How the trial ended with this epoch, if it did."""
        after_epoch(result)
        if self._reached():
            return self._outcome("target")
        if result.stop_reason:
            return self._outcome(result.stop_reason)
        return self._outcome("pruned") if self._judge.should_prune() else None

    def _reached(self) -> bool:
        best, target = self._best, self._setup.target
        if best is None or target is None:
            return False
        return held(History.of_epochs(self._history), best.val_cosine, best.epoch, target, self._setup.target_epochs)

    def _failed(self, failure: Failure) -> Outcome | Task:
        if not failure.non_finite:
            self._notes.append(failure.message)
            return self._outcome("error", "out_of_memory" if failure.out_of_memory else "error")
        self._notes.append(f"{failure.message} (mixed precision: {self.task.precision})")
        if self.task.precision == "off":
            return self._outcome("non_finite", "diverged")
        self.task = replace(self.task, precision="off", retry=False)  # of this there is no checkpoint yet
        self._retried, self._history = True, []
        return self.task

    @property
    def _best(self) -> EpochResult | None:
        return next((result for result in reversed(self._history) if result.is_best), None)

    def _outcome(self, stop_reason: StopReason, cause: Cause | None = None) -> Outcome:
        """Collect what is stored about the trial; `cause` is why it failed, if it did."""
        attrs: dict[str, Any] = {"stop_reason": stop_reason, **({"cause": cause} if cause else {})}
        if self._notes:
            attrs["error"] = "; ".join(self._notes)
        attrs |= {
            "epochs_run": len(self._history),
            "lr_decays": sum(result.next_lr < result.lr for result in self._history),
            "lr_final": self._history[-1].next_lr if self._history else self.task.config.lr,
            "amp": self.task.precision,
            "retried_without_amp": self._retried,
        }
        if self._resumed is not None:
            attrs["resumed_epochs"] = len(self._resumed.results)
            if self._resumed.note:
                attrs["resume_note"] = self._resumed.note
        best, history = self._best, pack(self._history)
        if best is None:
            return Outcome(stop_reason, None, attrs, history)
        attrs |= {
            "best_epoch": best.epoch,
            "val_cosine": best.val_cosine,
            "val_loss": best.val_loss,
            "val_loss_equal": best.val_loss_equal,
            "train_loss": best.train_loss,
            "gap": best.val_loss - best.train_loss,
            "cosine_by_yaw": dict(best.cosine_by_yaw),
        }
        return Outcome(stop_reason, best.val_cosine, attrs, history)
