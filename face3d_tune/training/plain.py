"""The plain trainer: one training, one epoch at a time, readable from top to bottom (trainer contract §4).

It is the specification for any faster engine. A caller may report, prune or stop between epochs. Every random number
follows from (seed, purpose, epoch), so the same config and seed give the same result on a CPU, bit for bit.
"""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData, mean_by_yaw
from face3d_tune.device import Precision
from face3d_tune.training import augmentation, losses
from face3d_tune.training.base import (
    OPTIMIZERS,
    EpochResult,
    Evaluation,
    PairTensors,
    Training,
    check_batch,
    pair_scores,
)
from face3d_tune.training.dropout import MaskStream
from face3d_tune.training.inputs import baseline_of, seen
from face3d_tune.training.model import Model
from face3d_tune.training.recognition import Judging


class Trainer(Training):
    """One trial's training. Call `train_epoch` until `stop_reason` is set, or stop earlier.

    Args:
        config: Every value of the training.
        data: The pairs; the part named "train" trains, the part named "validation" validates.
        seed: Of this trial: initial weights, batch order and dropout.
        device: Where weights and data live.
        precision: Of the forward pass, if the config uses mixed precision at all.
        dtype: Of weights and data; float64 lets tests compare engines beyond the rounding of float32.

    Raises:
        ConfigError: The batch size is larger than the number of training pairs.
        NonFiniteError: From `train_epoch`: a loss or metric was NaN or infinite.
    """

    engine = "plain"

    def __init__(
        self,
        config: TrialConfig,
        data: FaceData,
        *,
        seed: int,
        device: torch.device,
        precision: Precision = "off",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        data = seen(data, config.inputs)
        self.data, self.device, self.baseline = data, device, baseline_of(data)
        self.train = PairTensors(data, "train", config.pose_unit, device, dtype)
        self.validation = PairTensors(data, "validation", config.pose_unit, device, dtype)
        check_batch(config, len(self.train))
        self.model = Model(config, data.feature_size, seeds.generator(seed, "weights")).to(device, dtype)
        kind = OPTIMIZERS[config.optimizer]
        optimizer = kind(self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        super().__init__(config, seed, precision, optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def train_epoch(self) -> EpochResult:
        """Train and validate one epoch, then step the scheduler and early stopping."""
        started = time.perf_counter()
        train_loss = self._train_all_batches(self.epoch)
        return self.end_epoch(train_loss, self.evaluate(self.validation), time.perf_counter() - started)

    def _train_all_batches(self, epoch: int) -> float:
        """Train one pass over as many pairs as there are, without the last partial batch; return the mean loss."""
        self.model.train()
        self.model.draw_from(MaskStream(self.seed, epoch, self.device))
        batches = len(self.train) // self.config.batch_size
        order = augmentation.order(self.config, self.train.yaw, self.seed, epoch)
        order, pairs = order[: batches * self.config.batch_size], self.train
        if augmentation.augments(self.config):
            changed = augmentation.augmented(self.config, pairs.views, order, self.seed, epoch)
            order, pairs = torch.arange(len(order)), pairs.with_views(order, changed, self.config.pose_unit)
        total = self.train.src.new_zeros(())  # accumulate on the device: reading it at every step would stall a GPU
        for batch in order.to(self.device).view(batches, -1):
            total += self._train_batch(pairs, batch)
        return total.item() / batches

    def _train_batch(self, pairs: PairTensors, batch: Tensor) -> Tensor:
        """Take one optimiser step on the pairs with the indices in `batch`.

        Return the loss before it, a scalar, without the identity term, which validation people cannot have.
        """
        prediction = self._predict(pairs, batch)
        target, weights = pairs.target[batch], None
        squared_errors, cosines = losses.squared_errors(prediction, target), losses.cosines(prediction, target)
        if losses.weighs(self.config):
            weights = losses.pair_weights(self.config, cosines, pairs.turn[batch])
            combined = (weights * losses.combine(self.config, squared_errors, cosines)).mean()
        else:
            combined = losses.combine(self.config, squared_errors.mean(), cosines.mean())
        loss = combined
        if self.config.identity_weight > 0:
            temperature = self.config.identity_temperature
            each = self.train.people.cross_entropies(prediction, pairs.person[batch], temperature)
            loss = losses.with_identity(self.config, combined, (each if weights is None else weights * each).mean())
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return combined.detach()

    def _predict(self, pairs: PairTensors, batch: Tensor | slice) -> Tensor:
        """Predict the frontal embeddings of some pairs, [B, F]; only the network itself runs in mixed precision."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "off"):
            prediction: Tensor = self.model(pairs.src[batch], pairs.landmarks[batch], pairs.poses[batch])
        return prediction.to(pairs.target.dtype)

    def evaluate(self, pairs: PairTensors) -> Evaluation:
        """Compute mean squared error and cosine over all of `pairs`, the cosine by |yaw| band, and recognition, without
        dropout.
        """
        judging = Judging(pairs.gallery)
        squared_errors, cosine = self.pair_scores(pairs, judging)
        mse, by_yaw = squared_errors.mean().item(), mean_by_yaw(cosine.numpy(), pairs.yaw)
        return Evaluation(mse, cosine.mean().item(), by_yaw, judging.end().summary())

    @torch.no_grad()
    def pair_scores(self, pairs: PairTensors, *judgings: Judging) -> tuple[Tensor, Tensor]:
        """Compute squared error and cosine of each of `pairs`, [pairs] each, float64 on the CPU, without dropout.

        A judging takes the predictions as well.
        """
        self.model.eval()
        return pair_scores(len(pairs), lambda batch: (self._predict(pairs, batch), pairs.target[batch]), *judgings)

    def model_state(self) -> dict[str, Tensor]:
        """Return the weights after the last epoch, under the names of the users' checkpoints."""
        return self.model.state_dict()

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimiser's state dict, as the users' script can load it."""
        return self.optimizer.state_dict()

    def scale_state(self) -> dict[str, Any]:
        """Return GradScaler's two numbers that change."""
        state = self.scaler.state_dict()  # empty without scaling
        return {"scale": state.get("scale", 1.0), "since_overflow": state.get("_growth_tracker", 0)}

    def load_numbers(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Any], scale: Mapping[str, Any]) -> None:
        """Load the numbers of a trainer or a batch."""
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(dict(optimizer))
        if own := self.scaler.state_dict():
            changed = {"scale": scale["scale"], "_growth_tracker": scale["since_overflow"]}
            self.scaler.load_state_dict({**own, **changed})
