"""What every engine shares of one training: its pairs, its numbers, and what happens between two epochs.

Scheduler, early stopping and the choice of the best epoch live here and nowhere else, so that engines can differ only
in how they train an epoch (trainer contract §4).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from face3d_tune.config import OptimizerName, PoseUnit, TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Part
from face3d_tune.device import Precision
from face3d_tune.errors import ConfigError, NonFiniteError
from face3d_tune.training import losses
from face3d_tune.training.augmentation import Augmented, Views
from face3d_tune.training.early_stopping import EarlyStopping
from face3d_tune.training.schedules import Schedule

# Loshchilov & Hutter (2019), and Kingma & Ba (2015) with the weight decay as an L2 term of the clipped gradient.
OPTIMIZERS: Mapping[OptimizerName, type[Adam]] = {"adamw": AdamW, "adam": Adam}
EVALUATION_BATCH = 1024  # pairs; only memory depends on it, since every metric is a mean over pairs
StopReason = Literal["finished", "early_stopping"]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch, as trained and validated."""

    epoch: int  # from 1
    lr: float  # that this epoch trained with
    train_loss: float  # mean over its batches, dropout on, the trial's own weights
    val_loss: float  # mean over validation pairs, the trial's own weights
    val_loss_equal: float  # the same with weights 0.5 / 0.5, comparable between trials
    val_cosine: float  # mean over validation pairs, [-1, 1]
    cosine_by_yaw: Mapping[str, float | None]  # the same by |yaw| band; None for a band without pairs
    is_best: bool  # the lowest validation loss so far: the checkpoint that training keeps
    next_lr: float  # of the epoch after this one, the scheduler having seen this one
    stop_reason: StopReason | None  # why there is no epoch after this one; None if there is
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the pairs of one part of the people."""

    mse: float
    cosine: float
    cosine_by_yaw: Mapping[str, float | None]


class PairTensors:
    """The pairs of one part of the people, on the device; `poses` are in the trial's unit.

    Every number is first rounded to float32, what the users' script reads; `dtype` says what it is calculated in.
    """

    def __init__(
        self,
        data: FaceData,
        part: Part,
        pose_unit: PoseUnit,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        front, video = data.parts[part].T
        self.src = torch.from_numpy(data.video_features[video]).to(device, dtype)  # [pairs, F]
        self.landmarks = torch.from_numpy(data.landmarks[video]).to(device, dtype)  # [pairs, 5, 3]
        self.poses = in_unit(pose_unit, data.poses[video]).to(device, dtype)  # [pairs, 3]
        self.target = torch.from_numpy(data.front_features[front]).to(device, dtype)  # [pairs, F]
        self.yaw = data.yaw[video]  # [pairs], degrees
        self.turn = torch.from_numpy(np.abs(self.yaw)).to(device, dtype)  # [pairs], |yaw|
        self.views = Views(self.src, self.landmarks, data.poses[video], front)

    def __len__(self) -> int:
        return len(self.src)

    def shown(self, drawn: Tensor, augmented: Augmented, pose_unit: PoseUnit) -> Self:
        """The pairs with the indices `drawn` [n], in that order, with other views."""
        other, index = copy(self), drawn.to(self.src.device)
        other.src, other.landmarks = augmented.src, augmented.landmarks
        other.poses = in_unit(pose_unit, augmented.degrees.numpy()).to(self.poses)
        other.target, other.turn = self.target[index], self.turn[index]
        other.yaw = self.yaw[drawn.numpy()]
        return other


def in_unit(unit: PoseUnit, degrees: NDArray[np.float64]) -> Tensor:
    """Poses as the users' script reads them, rounded to float32: [pairs, 3] to the same."""
    return torch.from_numpy((degrees if unit == "degrees" else np.deg2rad(degrees)).astype(np.float32))


class Training(ABC):
    """One training between its epochs: what it is made of, what it has given so far, and whether it goes on.

    Args:
        config: Every value of the training.
        seed: Of this trial: initial weights, batch order and dropout.
        precision: Of the products, if the config uses mixed precision at all.
        optimizer: Holds the learning rate that the scheduler moves.
    """

    engine: ClassVar[Literal["plain", "batched"]]

    def __init__(self, config: TrialConfig, seed: int, precision: Precision, optimizer: Optimizer) -> None:
        self.config, self.seed = config, seed
        self.precision: Precision = precision if config.use_mixed_precision else "off"
        self.optimizer = optimizer
        self.scheduler = Schedule(config, optimizer)
        self.early_stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_min_delta)
        self.history: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.stop_reason: StopReason | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the next epoch."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def epoch(self) -> int:
        """The next epoch, from 1."""
        return len(self.history) + 1

    def end_epoch(self, train_loss: float, val: Evaluation, seconds: float) -> EpochResult:
        """Take what an epoch gave and move scheduler and early stopping on. Raises NonFiniteError."""
        val_loss = losses.combine(self.config, val.mse, val.cosine)
        finite = {"training loss": train_loss, "validation loss": val_loss, "cosine": val.cosine, "MSE": val.mse}
        for name, value in finite.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"{name} is {value} in epoch {self.epoch}")
        epoch, lr = self.epoch, self.lr
        self.scheduler.step(val_loss)
        if self.early_stopping.update(val_loss):
            self.stop_reason = "early_stopping"
        elif epoch == self.config.epochs:
            self.stop_reason = "finished"
        result = EpochResult(
            epoch=epoch,
            lr=lr,
            train_loss=train_loss,
            val_loss=val_loss,
            val_loss_equal=0.5 * val.mse + 0.5 * (1 - val.cosine),
            val_cosine=val.cosine,
            cosine_by_yaw=val.cosine_by_yaw,
            is_best=self.best is None or val_loss < self.best.val_loss,
            next_lr=self.lr,
            stop_reason=self.stop_reason,
            seconds=seconds,
        )
        self.history.append(result)
        if result.is_best:
            self.best = result
        return result

    @abstractmethod
    def model_state(self) -> dict[str, Tensor]:
        """The weights after the last epoch, under the names of the users' checkpoints."""

    @abstractmethod
    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's, as the users' script can load it."""

    @abstractmethod
    def scale_state(self) -> dict[str, Any]:
        """`scale` of the loss in fp16 (a float), and `since_overflow`, the steps since it last changed."""

    @abstractmethod
    def load_numbers(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Any], scale: Mapping[str, Any]) -> None:
        """Take what the three methods above gave, in either engine."""

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, besides config, seed and data: tensors and plain values.

        Random streams and the order of the pairs follow from seed and epoch. Tensors may be those in training, so they
        are to be written or copied before the next epoch.
        """
        history = [replace(result, cosine_by_yaw=dict(result.cosine_by_yaw)) for result in self.history]
        return {
            "engine": self.engine,
            "model": self.model_state(),
            "optimizer": self.optimizer_state(),
            "scale": self.scale_state(),
            "scheduler": self.scheduler.state_dict(),
            "early_stopping": asdict(self.early_stopping),
            "history": [asdict(result) for result in history],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on where the training that gave `snapshot` was; this one has the same config and seed and has just begun.

        On a CPU every later number is what it would have been, bit for bit, if the same engine gave the snapshot; the
        other engine's is as good. Raises KeyError, TypeError, ValueError or RuntimeError if something is missing or
        does not fit; then this training is of no more use.
        """
        self.load_numbers(snapshot["model"], snapshot["optimizer"], snapshot["scale"])
        self.optimizer.param_groups[0]["lr"] = snapshot["optimizer"]["param_groups"][0]["lr"]
        self.scheduler.load_state_dict(snapshot["scheduler"])
        self.early_stopping = EarlyStopping(**snapshot["early_stopping"])
        self.history = [EpochResult(**result) for result in snapshot["history"]]
        self.best = next((result for result in reversed(self.history) if result.is_best), None)
        self.stop_reason = self.history[-1].stop_reason if self.history else None

    def checkpoint(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The state after the last epoch, in the users' format (trainer contract §4); `args` are the script's flags.

        `epoch` counts from 0, so that a script which resumes at `epoch + 1` goes on with the next one.
        """
        if self.best is None:
            raise ValueError("no epoch has been trained yet")
        return {
            "epoch": len(self.history) - 1,
            "model_state_dict": self.model_state(),
            "optimizer_state_dict": self.optimizer_state(),
            "best_val_loss": self.best.val_loss,
            "args": dict(args),
            "train_loss_history": [result.train_loss for result in self.history],
            "val_loss_history": [result.val_loss for result in self.history],
            "val_cosine_sim_history": [result.val_cosine for result in self.history],
        }


def check_batch(config: TrialConfig, pairs: int) -> None:
    """Raise ConfigError if not even one batch can be made of the training pairs."""
    if pairs < config.batch_size:
        raise ConfigError(
            f"batch_size = {config.batch_size} is more than the {pairs} training pairs",
            "use a smaller batch_size or more data",
        )
