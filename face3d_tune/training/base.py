"""One training, as every engine shares it: its pairs, its numbers, and what happens between two epochs.

Scheduler, early stopping and the choice of the best epoch are here and nowhere else. Engines differ only in how they
train an epoch (trainer contract §4).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from face3d_tune.config import OptimizerName, PoseUnit, TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Part, persons
from face3d_tune.device import Precision
from face3d_tune.errors import ConfigError, NonFiniteError
from face3d_tune.training import losses
from face3d_tune.training.augmentation import Augmented, TrainingViews
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.early_stopping import EarlyStopping
from face3d_tune.training.inputs import with_baseline
from face3d_tune.training.recognition import Gallery, Judging, Recognition
from face3d_tune.training.schedules import Schedule
from face3d_tune.training.training_people import TrainingPeople

# Loshchilov & Hutter (2019), and Kingma & Ba (2015) with the weight decay as an L2 term of the clipped gradient.
OPTIMIZERS: Mapping[OptimizerName, type[Adam]] = {"adamw": AdamW, "adam": Adam}
EVALUATION_BATCH = 1024  # pairs; only memory depends on it, since every metric is a mean over pairs
StopReason = Literal["finished", "early_stopping"]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch, as trained and validated."""

    epoch: int  # from 1
    lr: float  # of this epoch
    train_loss: float  # mean over its batches, dropout on, the trial's own weights; like the next, no identity term
    val_loss: float  # mean over validation pairs, the trial's own weights
    val_loss_equal: float  # the same with weights 0.5 / 0.5, comparable between trials
    val_cosine: float  # mean over validation pairs, [-1, 1]
    cosine_by_yaw: Mapping[str, float | None]  # the same by |yaw| band; None for a band without pairs
    is_best: bool  # the lowest validation loss so far: the checkpoint that training keeps
    next_lr: float  # of the next epoch, after the scheduler's step
    stop_reason: StopReason | None  # why training ends after this epoch; None if it continues
    seconds: float
    recognition: Recognition | None = None  # of the validation people; None in a snapshot of an earlier version

    @property
    def rank1(self) -> float | None:
        """Return rank-1 among all enrolled people, [0, 1]: what the line of a training shows."""
        return None if self.recognition is None else self.recognition.all.rank1_enrolled

    @property
    def numbers(self) -> dict[str, float | None]:
        """Return what is measured, by the names that `run --json` gives; None where it is undefined."""
        numbers: dict[str, float | None] = {
            "cosine": self.val_cosine,
            "train_loss": self.train_loss,
            "val_loss": self.val_loss,
        }
        if self.recognition is not None:
            rates = self.recognition.all
            numbers |= {"identity": rates.identity, "rank1": rates.rank1_enrolled}
        return numbers

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for a snapshot."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        recognition = None if self.recognition is None else self.recognition.to_dict()
        return {**values, "cosine_by_yaw": dict(self.cosine_by_yaw), "recognition": recognition}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave. Raises KeyError or TypeError if it does not fit."""
        recognition = stored.get("recognition")
        return cls(**{**stored, "recognition": None if recognition is None else Recognition.of(recognition)})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the pairs of one part of the people."""

    mse: float
    cosine: float
    cosine_by_yaw: Mapping[str, float | None]
    recognition: Recognition | None = None


class PairTensors:
    """The pairs of one part of the people, on the device; `poses` are in the trial's unit.

    Every number is first rounded to float32, which the users' script reads. `dtype` is the type of the calculation.
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
        self.person = torch.from_numpy(persons(data.parts[part])).to(device)  # [pairs], numbers from 0
        self.views = TrainingViews(self.src, self.landmarks, data.poses[video], front)
        self._gallery = data, part, device

    @cached_property
    def gallery(self) -> Gallery:
        """Return all people's frontal embeddings, against which predictions for these pairs are judged."""
        return Gallery(*self._gallery)

    @cached_property
    def people(self) -> TrainingPeople:
        """Return the frontal embeddings of the people of these pairs."""
        return TrainingPeople(self.target, self.views.front, self.person)

    def __len__(self) -> int:
        return len(self.src)

    def with_views(self, drawn: Tensor, augmented: Augmented, pose_unit: PoseUnit) -> Self:
        """Return the pairs with the indices `drawn` [n], in that order, with augmented views."""
        other, index = copy(self), drawn.to(self.src.device)
        other.src, other.landmarks = augmented.src, augmented.landmarks
        other.poses = in_unit(pose_unit, augmented.degrees.numpy()).to(self.poses)
        other.target, other.turn, other.person = self.target[index], self.turn[index], self.person[index]
        other.yaw = self.yaw[drawn.numpy()]
        return other


def in_unit(unit: PoseUnit, degrees: NDArray[np.float64]) -> Tensor:
    """Convert poses to the users' unit and round them as the users' script does, to float32: [pairs, 3] to the same."""
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
    baseline: Baseline | None  # whose outputs the model gets; None: raw views

    def __init__(self, config: TrialConfig, seed: int, precision: Precision, optimizer: Optimizer) -> None:
        self.config, self.seed = config, seed
        self.precision = precision_for(config, precision)
        self.optimizer = optimizer
        self.scheduler = Schedule(config, optimizer)
        self.early_stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_min_delta)
        self.history: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.stop_reason: StopReason | None = None

    @property
    def lr(self) -> float:
        """Return the learning rate of the next epoch."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def epoch(self) -> int:
        """Return the next epoch, from 1."""
        return len(self.history) + 1

    def end_epoch(self, train_loss: float, val: Evaluation, seconds: float) -> EpochResult:
        """Record an epoch's results, and step scheduler and early stopping. Raises NonFiniteError."""
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
            recognition=val.recognition,
        )
        self.history.append(result)
        if result.is_best:
            self.best = result
        return result

    @abstractmethod
    def model_state(self) -> dict[str, Tensor]:
        """Return the weights after the last epoch, under the names of the users' checkpoints."""

    @abstractmethod
    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimiser's state dict, as the users' script can load it."""

    @abstractmethod
    def scale_state(self) -> dict[str, Any]:
        """Return `scale` of the loss in fp16 (a float) and `since_overflow`, the steps since its last change."""

    @abstractmethod
    def load_numbers(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Any], scale: Mapping[str, Any]) -> None:
        """Load the results of the three methods above, from either engine."""

    def snapshot(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, besides config, seed and data: tensors and plain values.

        Random streams and the order of the pairs follow from seed and epoch. The tensors may be those in training, so
        write or copy them before the next epoch.
        """
        return with_baseline(
            {
                "engine": self.engine,
                "model": self.model_state(),
                "optimizer": self.optimizer_state(),
                "scale": self.scale_state(),
                "scheduler": self.scheduler.state_dict(),
                "early_stopping": asdict(self.early_stopping),
                "history": [result.to_dict() for result in self.history],
            },
            self.baseline,
        )

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Resume from `snapshot`; this training has the snapshot's config and seed and has just begun.

        On a CPU every later number is the same as without the break, bit for bit, if the same engine made the snapshot.
        A snapshot of the other engine works as well.

        Raises KeyError, TypeError, ValueError or RuntimeError if something is missing or does not fit; then this
        training is unusable.
        """
        self.load_numbers(snapshot["model"], snapshot["optimizer"], snapshot["scale"])
        self.optimizer.param_groups[0]["lr"] = snapshot["optimizer"]["param_groups"][0]["lr"]
        self.scheduler.load_state_dict(snapshot["scheduler"])
        self.early_stopping = EarlyStopping(**snapshot["early_stopping"])
        self.history = [EpochResult.of(result) for result in snapshot["history"]]
        self.best = best_epoch(self.history)
        self.stop_reason = self.history[-1].stop_reason if self.history else None

    def checkpoint(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state after the last epoch, in the users' format (trainer contract §4); `args` are the script's
        flags.

        `epoch` counts from 0, so that a script which resumes at `epoch + 1` continues with the next one.
        """
        if self.best is None:
            raise ValueError("no epoch has been trained yet")
        return with_baseline(
            {
                "epoch": len(self.history) - 1,
                "model_state_dict": self.model_state(),
                "optimizer_state_dict": self.optimizer_state(),
                "best_val_loss": self.best.val_loss,
                "args": dict(args),
                "train_loss_history": [result.train_loss for result in self.history],
                "val_loss_history": [result.val_loss for result in self.history],
                "val_cosine_sim_history": [result.val_cosine for result in self.history],
            },
            self.baseline,
        )


def precision_for(config: TrialConfig, precision: Precision) -> Precision:
    """Return the precision in which a config trains where those that use mixed precision train in `precision`."""
    return precision if config.use_mixed_precision else "off"


def best_epoch(history: Sequence[EpochResult]) -> EpochResult | None:
    """Return the epoch whose weights training keeps, the one with the lowest validation loss; None if there is none."""
    return next((result for result in reversed(history) if result.is_best), None)


def pair_scores(
    pairs: int, predict: Callable[[slice], tuple[Tensor, Tensor]], *judgings: Judging
) -> tuple[Tensor, Tensor]:
    """Return squared error and cosine of each pair, [..., pairs] each, float64 on the CPU.

    `predict` gives prediction and target, [..., B, F] each, of a slice of the pairs. Each of `judgings`, one a model,
    takes the predictions too.
    """
    squared_errors, cosines = [], []
    for start in range(0, pairs, EVALUATION_BATCH):
        prediction, target = predict(slice(start, start + EVALUATION_BATCH))
        squared_errors.append(losses.squared_errors(prediction, target))
        cosines.append(losses.cosines(prediction, target))
        for model, judging in enumerate(judgings):
            judging.add(prediction.view(-1, *prediction.shape[-2:])[model])
    return torch.cat(squared_errors, -1).cpu().double(), torch.cat(cosines, -1).cpu().double()


def check_batch(config: TrialConfig, pairs: int) -> None:
    """Raise ConfigError if the training pairs do not fill a single batch."""
    if pairs < config.batch_size:
        raise ConfigError(
            f"batch_size = {config.batch_size} is more than the {pairs} training pairs",
            "use a smaller batch_size or more data",
        )
