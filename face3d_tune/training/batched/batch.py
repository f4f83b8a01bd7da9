"""Continuous batching: K trainings of one structure, an epoch at a time; each place is refilled when its training ends.

A training's numbers depend neither on K nor on its place nor on its neighbours. A single model runs without the axis of
models, which is faster on a CPU.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from face3d_tune import seeds
from face3d_tune.config import ABOUT, TrialConfig
from face3d_tune.data.face_data import FaceData, mean_by_yaw
from face3d_tune.device import Precision
from face3d_tune.errors import NonFiniteError
from face3d_tune.training import losses
from face3d_tune.training.base import (
    OPTIMIZERS,
    EpochResult,
    Evaluation,
    Training,
    check_batch,
    pair_scores,
    precision_for,
)
from face3d_tune.training.batched.dropout_sites import Masks, mask_length, mask_views
from face3d_tune.training.batched.epoch import batches
from face3d_tune.training.batched.losses import loss_gradient
from face3d_tune.training.batched.network import Network
from face3d_tune.training.batched.parameters import arrange
from face3d_tune.training.batched.state import State, optimizer_step
from face3d_tune.training.batched.table import PairBatch, PairTable
from face3d_tune.training.dropout import MaskStream
from face3d_tune.training.inputs import baseline_of, seen
from face3d_tune.training.model import Model
from face3d_tune.training.recognition import Gallery, Judging

_LOWER = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def structure(config: TrialConfig, precision: Precision) -> Hashable:
    """Return what trainings must have in common to share a batch: whatever decides a tensor's shape or type, or its
    kernel.
    """
    values = (getattr(config, name) for name, about in ABOUT.items() if about.structure)
    return (precision_for(config, precision), *values)


class BatchedTraining(Training):
    """One training in a batch."""

    engine = "batched"

    def __init__(self, batch: "Batch", config: TrialConfig, seed: int, precision: Precision) -> None:
        rate = SGD([torch.zeros(1)], lr=config.lr)  # only carries the learning rate that the scheduler sets
        super().__init__(config, seed, precision, rate)
        self.batch = batch
        self.baseline = baseline_of(batch.data.source)

    def train_epoch(self) -> EpochResult:
        """Train and validate one epoch of a batch of one. Raises NonFiniteError."""
        result = (self.batch.train_epoch() or [])[0]
        if isinstance(result, NonFiniteError):
            raise result
        return result

    def model_state(self) -> dict[str, Tensor]:
        """Return the weights after the last epoch, under the names of the users' checkpoints."""
        return self.batch.model_state(self)

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimiser's state dict, as the users' script can load it."""
        return self.batch.optimizer_state(self)

    def scale_state(self) -> dict[str, Any]:
        """Return the scale of the loss and the steps since its last change."""
        return self.batch.scale_state(self)

    def load_numbers(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Any], scale: Mapping[str, Any]) -> None:
        """Write the numbers into this training's place."""
        self.batch.load_numbers(self, model, optimizer, scale)


class Data:
    """The pairs in the form that the programs of one device need, shared by all batches there."""

    def __init__(self, data: FaceData, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.source, self.device, self.dtype = data, device, dtype
        self.train, self.validation = (PairTable(data, part, device, dtype) for part in ("train", "validation"))
        self.gallery = Gallery(data, "validation", device)


class Batch:
    """A batch of trainings of one structure; `config` is the config of any of them, `data` as its inputs say."""

    def __init__(self, config: TrialConfig, data: Data, precision: Precision) -> None:
        check_batch(config, len(data.train))
        if seen(data.source, config.inputs) is not data.source:
            raise ValueError(f"these data hold raw views, and inputs = {config.inputs}")
        self.config, self.data = config, data
        self.precision = precision_for(config, precision)
        self.members: list[BatchedTraining] = []
        template = Model(config, data.source.feature_size, None)
        self._template = template.state_dict()
        self._parameters = [name for name, _ in template.named_parameters()]
        self._live, self._dead, self._products = arrange(config, {n: v.shape for n, v in self._template.items()})
        like = torch.empty(0, device=data.device, dtype=data.dtype)
        self.state = State.empty(self._live.length, self._dead.length, 256, like)

    def _plain_model(self, config: TrialConfig, seed: int) -> Model:
        return Model(config, self.data.source.feature_size, seeds.generator(seed, "weights"))

    @torch.inference_mode()
    def add(self, config: TrialConfig, seed: int, precision: Precision) -> BatchedTraining:
        """Begin a training in a new place. Raises RuntimeError if memory runs out; then nothing has changed."""
        models, fresh = len(self.members), self._plain_model(config, seed)
        self._use(self.state.resized(list(range(models)), models + 1))
        self.members.append(BatchedTraining(self, config, seed, precision))
        self._fill(models, fresh)
        return self.members[models]

    @torch.inference_mode()
    def replace(self, old: BatchedTraining, config: TrialConfig, seed: int, precision: Precision) -> BatchedTraining:
        """Begin a training in the place of an ended one, without effect on the neighbours."""
        place, fresh = self.members.index(old), self._plain_model(config, seed)
        self.members[place] = BatchedTraining(self, config, seed, precision)
        self._fill(place, fresh)
        return self.members[place]

    @torch.inference_mode()
    def remove(self, *gone: BatchedTraining) -> None:
        """Remove ended trainings and close up their places."""
        places = [place for place, member in enumerate(self.members) if member not in gone]
        self.members = [self.members[place] for place in places]
        self._use(self.state.resized(places, len(places)))

    def _fill(self, place: int, model: Model) -> None:
        """Write a freshly initialised plain model into a place, whatever was there."""
        fresh = model.state_dict()
        self.state.begin(place)
        self._gradients[place] = 0  # between the blocks too, where a training that became NaN has left NaN
        self._live.write(self.state.weights[place], fresh)
        self._dead.write(self.state.dead[place], fresh)
        self._hyperparameters()

    def _use(self, state: State) -> None:
        """Build the program over these numbers; if memory runs out, nothing has changed."""
        models, lower, products = len(state.weights), _LOWER[self.precision], self._products
        gradients = torch.zeros_like(state.weights)
        masks = state.weights.new_ones(models, mask_length(self.config))
        low = state.weights.new_empty(models, products, dtype=lower) if lower else None
        low_gradients = torch.zeros_like(low) if low is not None else None
        self.state, self._gradients, self._masks = state, gradients, masks
        self._low, self._low_gradients = low, low_gradients
        if models:
            running = {"mean": self._alone(state.mean), "variance": self._alone(state.variance)}
            views = [self._views(*both) for both in ((state.weights, low), (gradients, self._low_gradients))]
            self._network = Network(self.config, views[0], views[1], running)
            self._mask_views = mask_views(self.config, self._alone(masks))
            self._hyperparameters()

    def _alone(self, rows: Tensor) -> Tensor:
        """Drop the axis of models if there is one model."""
        return rows[0] if len(rows) == 1 else rows

    def _views(self, rows: Tensor, low: Tensor | None) -> dict[str, Tensor]:
        """Return every block by name, those of products in the lower precision if there is one."""
        views = self._live.views(self._alone(rows))
        if low is not None:
            views |= self._live.views(self._alone(low), below=self._products)
        return views

    def _hyperparameters(self) -> None:
        """Set the hyperparameters that differ between the models."""
        configs = [member.config for member in self.members]
        if len(configs) < len(self.state.weights):
            return  # the last place is being filled
        # A loss is linear in the mean squared error and in 1 − cosine; these are its slopes.
        units = (1.0, 1.0), (0.0, 0.0)
        slopes = [
            [losses.with_identity(config, losses.combine(config, *each), 0.0) for each in units] for config in configs
        ]
        both = torch.tensor(slopes, device=self.data.device, dtype=self.data.dtype)  # [K, 2]
        shape = (-1, 1, 1) if len(configs) > 1 else (1, 1)
        self._mse_weight, self._cosine_weight = (column.reshape(shape) for column in both.unbind(1))
        self._decays = [config.weight_decay for config in configs]
        radians = [config.pose_unit == "radians" for config in configs]
        mixed = len(set(radians)) > 1
        self._in_radians = torch.tensor(radians, device=self.data.device).view(shape) if mixed else radians[0]
        for place, config in enumerate(configs):
            if config.dropout == 0:
                self._masks[place] = 1

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> list[EpochResult | NonFiniteError] | None:
        """Train and validate every model for one epoch; return a result or the reason for its absence, place by place.

        Calls `stop` before every step. If it returns true, returns None, and all these trainings are unusable.
        """
        started = time.perf_counter()
        with torch.inference_mode():  # cheaper than no_grad; nothing here needs autograd
            train_losses = self._train(stop)
            if train_losses is None:
                return None
            evaluations = self._evaluate()
        seconds = (time.perf_counter() - started) / len(self.members)
        ended: list[EpochResult | NonFiniteError] = []
        for member, train_loss, evaluation in zip(self.members, train_losses, evaluations, strict=True):
            try:
                ended.append(member.end_epoch(train_loss, evaluation, seconds))
            except NonFiniteError as error:
                ended.append(error)
        return ended

    def _train(self, stop: Callable[[], bool]) -> list[float] | None:
        """Train one pass over the training pairs, each model in its own order; return the mean losses."""
        device, table = self.data.device, self.data.train
        wide = torch.float64 if device.type == "cpu" else torch.float32  # the type that the fused kernel reads there
        rates = torch.tensor([member.lr for member in self.members], dtype=wide, device=device)
        streams = [MaskStream(member.seed, member.epoch, device) for member in self.members]
        before = self.state.steps.clone()
        sums = self.state.weights.new_zeros(2, len(self.members))
        for batch in batches(table, self.members, self._in_radians):
            if stop():
                return None
            for place, member in enumerate(self.members):
                if member.config.dropout > 0:
                    streams[place].fill(self._masks[place], member.config.dropout)
            sums += self._step(batch, rates)
        taken = (self.state.steps - before).tolist()
        for place, member in enumerate(self.members):  # what AdamW does to a parameter without gradient
            self.state.dead[place] *= (1 - member.lr * member.config.weight_decay) ** taken[place]
        means = (sums / (len(table) // self.config.batch_size)).T.tolist()
        return [losses.combine(member.config, *mean) for member, mean in zip(self.members, means, strict=True)]

    def _step(self, batch: PairBatch, rates: Tensor) -> Tensor:
        """Take one optimiser step of every model; return mean squared errors and cosines before it, [2, K]."""
        if self._low is not None:
            self._low.copy_(self.state.weights[:, : self._products])
        masks: Masks = self._mask_views if any(member.config.dropout > 0 for member in self.members) else {}
        prediction, pull = self._network(batch.inputs, masks, training=True)
        gradient, mse, cosine = loss_gradient(prediction, batch, self._mse_weight, self._cosine_weight)
        scaled = self.precision == "fp16"
        pull(gradient * self.state.scales.view(self._mse_weight.shape) if scaled else gradient)
        if self._low_gradients is not None:
            self._gradients[:, : self._products] = self._low_gradients
        optimizer_step(self.state, self._gradients, rates, self._decays, scaled=scaled, optimizer=self.config.optimizer)
        return torch.stack((mse, cosine)).view(2, -1)

    def _evaluate(self) -> list[Evaluation]:
        """Evaluate every model on all validation pairs, without dropout."""
        table = self.data.validation
        if self._low is not None:
            self._low.copy_(self.state.weights[:, : self._products])

        def predict(part: slice) -> tuple[Tensor, Tensor]:
            batch = table.batch(part, self._in_radians)
            prediction, _ = self._network(batch.inputs, {}, training=False)
            return prediction, batch.target

        judgings = [Judging(self.data.gallery) for _ in self.members]
        scores = pair_scores(len(table), predict, *judgings)
        squared_errors, cosines = (each.view(len(self.members), -1) for each in scores)
        mse = squared_errors.mean(1).tolist()
        return [
            Evaluation(mse[place], each.mean().item(), mean_by_yaw(each.numpy(), table.yaw), judging.end().summary())
            for place, (each, judging) in enumerate(zip(cosines, judgings, strict=True))
        ]

    def model_state(self, member: BatchedTraining) -> dict[str, Tensor]:
        """Return the full state dict of one model, as the plain model loads it strictly."""
        state, place, numbers = self._zeros(), self.members.index(member), self.state
        self._live.read(numbers.weights[place], state)
        self._dead.read(numbers.dead[place], state)
        if self.config.layout == "keypoint":
            norm = "keypoint_encoder.1"
            state[f"{norm}.running_mean"].copy_(numbers.mean[place])
            state[f"{norm}.running_var"].copy_(numbers.variance[place])
            batches = len(self.data.train) // self.config.batch_size
            state[f"{norm}.num_batches_tracked"].fill_(len(member.history) * batches)
        return state

    def optimizer_state(self, member: BatchedTraining) -> dict[str, Any]:
        """Return the optimiser's state of one model in the order of the plain model's parameters."""
        place = self.members.index(member)
        moments = []
        for rows in (self.state.first, self.state.second):
            moments.append(self._zeros())
            self._live.read(rows[place], moments[-1])
        parameters = [self._template[name] for name in self._parameters]
        config = member.config
        whole = OPTIMIZERS[config.optimizer](parameters, lr=config.lr, weight_decay=config.weight_decay).state_dict()
        whole["param_groups"][0]["lr"] = member.lr
        step = self.state.steps[place].cpu()
        whole["state"] = {
            index: {"step": step.clone(), "exp_avg": moments[0][name], "exp_avg_sq": moments[1][name]}
            for index, name in enumerate(self._parameters)
        }
        return whole

    def scale_state(self, member: BatchedTraining) -> dict[str, Any]:
        """Return the scale of one model's loss and the steps since its last change."""
        place, numbers = self.members.index(member), self.state
        return {"scale": numbers.scales[place].item(), "since_overflow": int(numbers.since_overflow[place].item())}

    @torch.inference_mode()
    def load_numbers(
        self,
        member: BatchedTraining,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Any],
        scale: Mapping[str, Any],
    ) -> None:
        """Write the results of the three methods above into the place of a training that has just begun."""
        place, numbers = self.members.index(member), self.state
        self._live.write(numbers.weights[place], model)
        self._dead.write(numbers.dead[place], model)
        if self.config.layout == "keypoint":
            numbers.mean[place] = model["keypoint_encoder.1.running_mean"]
            numbers.variance[place] = model["keypoint_encoder.1.running_var"]
        if moments_by_index := optimizer["state"]:  # empty while every step overflowed
            for rows, kind in ((numbers.first, "exp_avg"), (numbers.second, "exp_avg_sq")):
                moments = {name: moments_by_index[index][kind] for index, name in enumerate(self._parameters)}
                self._live.write(rows[place], moments)
            numbers.steps[place] = moments_by_index[0]["step"]
        numbers.scales[place], numbers.since_overflow[place] = scale["scale"], scale["since_overflow"]

    def _zeros(self) -> dict[str, Tensor]:
        """Return a state dict without content, on the device of the rows."""
        device, dtype = self.data.device, self.data.dtype
        # Not zeros_like, which takes several times as long for a template without content.
        return {
            name: torch.zeros(value.shape, device=device, dtype=dtype if value.is_floating_point() else value.dtype)
            for name, value in self._template.items()
        }


def alone(
    config: TrialConfig, data: FaceData, *, seed: int, device: torch.device, precision: Precision
) -> BatchedTraining:
    """Make one training in a batch of its own: the batched engine's counterpart of the plain `Trainer`."""
    return Batch(config, Data(seen(data, config.inputs), device), precision).add(config, seed, precision)
