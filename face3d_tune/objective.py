"""One trial: train a config epoch by epoch, report its curve, and say how it ended.

The value of a trial is the mean validation cosine of the checkpoint that training keeps, the one with the lowest
validation loss: what a user gets from the exported command. No searched loss weight can rescale it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data import FaceData
from face3d_tune.device import Precision
from face3d_tune.errors import NonFiniteError, TrainingError
from face3d_tune.trainer import EpochResult, Trainer

StopReason = Literal["finished", "early_stopping", "pruned", "target", "non_finite", "error"]


class Judge(Protocol):
    """What the objective needs of an Optuna trial: take a curve point, and say whether it is worth going on."""

    def report(self, value: float, step: int) -> None:
        """Take the validation cosine of an epoch (the step, from 1)."""

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended. `value` is the objective; None if no epoch was validated."""

    stop_reason: StopReason
    value: float | None
    attrs: dict[str, Any]  # Optuna user attributes, ready for JSON


def train_trial(
    config: TrialConfig, setup: Setup, *, seed: int, judge: Judge, after_epoch: Callable[[EpochResult], None]
) -> Outcome:
    """Train until the end, early stopping, pruning or the target; with mixed precision off if it led to NaN.

    `after_epoch` is called after each epoch, those of a second attempt as well; whatever it raises ends the trial.
    """
    precision, notes, reported, retried = setup.precision, list[str](), 0, False
    while True:
        trainer = None
        try:
            trainer = Trainer(config, setup.data, seed=seed, device=setup.device, precision=precision)
            while (ending := _next_epoch(trainer, setup.target, judge, reported, after_epoch)) is None:
                pass
            return _outcome(trainer, ending, notes, retried)
        except NonFiniteError as error:
            notes.append(f"{error.message} (mixed precision: {trainer.precision if trainer else precision})")
            if trainer is None or trainer.precision == "off":
                return _outcome(trainer, "non_finite", notes, retried)
            precision, reported, retried = "off", len(trainer.history), True
        except (TrainingError, RuntimeError, MemoryError) as error:  # torch reports a full GPU as RuntimeError
            return _outcome(trainer, "error", [*notes, f"{type(error).__name__}: {error}"], retried)


def _next_epoch(
    trainer: Trainer, target: float | None, judge: Judge, reported: int, after_epoch: Callable[[EpochResult], None]
) -> StopReason | None:
    """Train one epoch and say how the trial ended, or None if it goes on.

    A trial that its own curve stopped counts as completed, so pruning is only asked for a trial that would go on.
    Epochs up to `reported` were reported by an earlier attempt; Optuna takes each step once.
    """
    result = trainer.train_epoch()
    if result.epoch > reported:
        judge.report(result.val_cosine, result.epoch)
    after_epoch(result)
    if target is not None and trainer.best is not None and trainer.best.val_cosine >= target:
        return "target"
    return trainer.stop_reason or ("pruned" if judge.should_prune() else None)


def _outcome(trainer: Trainer | None, stop_reason: StopReason, notes: list[str], retried: bool) -> Outcome:
    """Collect what is stored about a trial; `trainer` is None if it could not even be built."""
    attrs: dict[str, Any] = {"stop_reason": stop_reason}
    if notes:
        attrs["error"] = "; ".join(notes)
    if trainer is None:
        return Outcome(stop_reason, None, attrs)
    attrs |= {
        "epochs_run": len(trainer.history),
        "lr_decays": trainer.lr_decays,
        "lr_final": trainer.lr,
        "amp": trainer.precision,
        "retried_without_amp": retried,
    }
    best = trainer.best
    if best is None:
        return Outcome(stop_reason, None, attrs)
    attrs |= {
        "best_epoch": best.epoch,
        "val_cosine": best.val_cosine,
        "val_loss": best.val_loss,
        "val_loss_equal": best.val_loss_equal,
        "train_loss": best.train_loss,
        "gap": best.val_loss - best.train_loss,
        "cosine_by_yaw": dict(best.cosine_by_yaw),
    }
    return Outcome(stop_reason, best.val_cosine, attrs)
