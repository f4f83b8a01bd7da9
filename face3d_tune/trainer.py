"""The plain trainer: one training, one epoch at a time, readable from top to bottom (CONTRACT section 4).

It is the specification for any faster engine. A caller may report, prune or stop between epochs. Every random number
follows from (seed, purpose, epoch), so the same config and seed give the same result on a CPU, bit for bit.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from face3d_tune import losses, seeds
from face3d_tune.config import PoseUnit, TrialConfig
from face3d_tune.data import FaceData, Part, mean_by_yaw
from face3d_tune.device import Precision
from face3d_tune.errors import ConfigError, NonFiniteError
from face3d_tune.model import Model
from face3d_tune.stopping import EarlyStopping

_EVALUATION_BATCH = 1024  # pairs; only memory depends on it, since every metric is a mean over pairs


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
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the pairs of one part of the people."""

    mse: float
    cosine: float
    cosine_by_yaw: Mapping[str, float | None]


class Pairs:
    """The pairs of one part of the people, on the device; `poses` are in the trial's unit."""

    def __init__(self, data: FaceData, part: Part, pose_unit: PoseUnit, device: torch.device) -> None:
        front, video = data.parts[part].T
        poses = (data.poses if pose_unit == "degrees" else np.deg2rad(data.poses)).astype(np.float32)
        self.src = torch.from_numpy(data.video_features[video]).to(device)  # [pairs, F]
        self.landmarks = torch.from_numpy(data.landmarks[video]).to(device)  # [pairs, 5, 3]
        self.poses = torch.from_numpy(poses[video]).to(device)  # [pairs, 3]
        self.target = torch.from_numpy(data.front_features[front]).to(device)  # [pairs, F]
        self.degrees = data.poses[video]  # [pairs, 3]

    def __len__(self) -> int:
        return len(self.src)


class Trainer:
    """One trial's training. Call `train_epoch` until `stop_reason` is set, or stop earlier.

    Args:
        config: Every value of the training.
        data: The pairs; the part named "train" trains, the part named "validation" validates.
        seed: Of this trial: initial weights, batch order and dropout.
        device: Where weights and data live.
        precision: Of the forward pass, if the config uses mixed precision at all.

    Raises:
        ConfigError: The batch size is larger than the number of training pairs.
        NonFiniteError: From `train_epoch`: a loss or metric was NaN or infinite.
    """

    def __init__(
        self, config: TrialConfig, data: FaceData, *, seed: int, device: torch.device, precision: Precision = "off"
    ) -> None:
        self.config, self.data, self.seed, self.device = config, data, seed, device
        self.precision: Precision = precision if config.use_mixed_precision else "off"
        self.train = Pairs(data, "train", config.pose_unit, device)
        self.validation = Pairs(data, "validation", config.pose_unit, device)
        if len(self.train) < config.batch_size:
            raise ConfigError(
                f"batch_size = {config.batch_size} is more than the {len(self.train)} training pairs",
                "use a smaller batch_size or more data",
            )
        self.model = Model(config, data.feature_size, seeds.generator(seed, "weights")).to(device)
        self.optimizer = AdamW(self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.scheduler = ReduceLROnPlateau(
            self.optimizer,
            mode="min",
            factor=config.scheduler_factor,
            patience=config.scheduler_patience,
            min_lr=config.scheduler_min_lr,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.early_stopping = EarlyStopping(config.early_stopping_patience, config.early_stopping_min_delta)
        self.history: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.lr_decays = 0
        self.stop_reason: Literal["finished", "early_stopping"] | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the next epoch."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_epoch(self) -> EpochResult:
        """Train and validate one epoch, then move the scheduler and early stopping on."""
        started, epoch, lr = time.perf_counter(), len(self.history) + 1, self.lr
        train_loss = self._train_all_batches(epoch)
        val = self.evaluate(self.validation)
        val_loss = losses.combine(self.config, val.mse, val.cosine)
        finite = {"training loss": train_loss, "validation loss": val_loss, "cosine": val.cosine, "MSE": val.mse}
        for name, value in finite.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"{name} is {value} in epoch {epoch}")
        result = EpochResult(
            epoch=epoch,
            lr=lr,
            train_loss=train_loss,
            val_loss=val_loss,
            val_loss_equal=0.5 * val.mse + 0.5 * (1 - val.cosine),
            val_cosine=val.cosine,
            cosine_by_yaw=val.cosine_by_yaw,
            is_best=self.best is None or val_loss < self.best.val_loss,
            seconds=time.perf_counter() - started,
        )
        self.history.append(result)
        if result.is_best:
            self.best = result
        self.scheduler.step(val_loss)
        self.lr_decays += self.lr < lr
        if self.early_stopping.update(val_loss):
            self.stop_reason = "early_stopping"
        elif epoch == self.config.epochs:
            self.stop_reason = "finished"
        return result

    def _train_all_batches(self, epoch: int) -> float:
        """One pass over the training pairs in a fresh order, the last partial batch dropped; the mean loss."""
        self.model.train()
        self.model.draw_from(seeds.generator(self.seed, "dropout", epoch, device=self.device))
        order = torch.randperm(len(self.train), generator=seeds.generator(self.seed, "order", epoch)).to(self.device)
        batches = len(self.train) // self.config.batch_size
        total = torch.zeros((), device=self.device)  # stays there: asking for it at every step would stall a GPU
        for batch in order[: batches * self.config.batch_size].view(batches, -1):
            total += self._train_batch(batch)
        return total.item() / batches

    def _train_batch(self, batch: Tensor) -> Tensor:
        """One optimiser step on the pairs whose indices are in `batch`; the loss before it, a scalar."""
        prediction = self._predict(self.train, batch)
        target = self.train.target[batch]
        mse = losses.squared_errors(prediction, target).mean()
        loss = losses.combine(self.config, mse, losses.cosines(prediction, target).mean())
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _predict(self, pairs: Pairs, batch: Tensor | slice) -> Tensor:
        """Frontal embeddings of some pairs, float32 [B, F]; only the network itself runs in mixed precision."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "off"):
            prediction: Tensor = self.model(pairs.src[batch], pairs.landmarks[batch], pairs.poses[batch])
        return prediction.float()

    @torch.no_grad()
    def evaluate(self, pairs: Pairs) -> Evaluation:
        """Mean squared error and cosine over all of `pairs`, and the cosine by |yaw| band; dropout off."""
        self.model.eval()
        squared_errors, cosines = [], []
        for start in range(0, len(pairs), _EVALUATION_BATCH):
            batch = slice(start, start + _EVALUATION_BATCH)
            prediction = self._predict(pairs, batch)
            squared_errors.append(losses.squared_errors(prediction, pairs.target[batch]))
            cosines.append(losses.cosines(prediction, pairs.target[batch]))
        mse = torch.cat(squared_errors).cpu().double().mean().item()
        cosine = torch.cat(cosines).cpu().double()  # [pairs]
        return Evaluation(mse, cosine.mean().item(), mean_by_yaw(cosine.numpy(), pairs.degrees))

    def evaluate_test(self) -> Evaluation:
        """The same for the test people, who take no part in any decision."""
        return self.evaluate(Pairs(self.data, "test", self.config.pose_unit, self.device))

    def checkpoint(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The state after the last epoch, in the users' format (CONTRACT section 4); `args` are the script's flags.

        `epoch` counts from 0, so that a script which resumes at `epoch + 1` goes on with the next one.
        """
        if self.best is None:
            raise ValueError("no epoch has been trained yet")
        return {
            "epoch": len(self.history) - 1,
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "best_val_loss": self.best.val_loss,
            "args": dict(args),
            "train_loss_history": [result.train_loss for result in self.history],
            "val_loss_history": [result.val_loss for result in self.history],
            "val_cosine_sim_history": [result.val_cosine for result in self.history],
        }
