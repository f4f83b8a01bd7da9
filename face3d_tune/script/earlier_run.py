"""A run of the users' script, read from its checkpoint (trainer contract §4): its flags, curves and weights."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from face3d_tune.config import Layout, PoseUnit, TrialConfig
from face3d_tune.errors import ConfigError, EarlierRunError, TrainingError
from face3d_tune.study.history import lowest_loss
from face3d_tune.training import checkpoint_file, weights
from face3d_tune.training.checkpoint_file import describe, plain
from face3d_tune.training.schedules import Schedule

_CURVES = {"train_loss": "train_loss_history", "val_loss": "val_loss_history", "cosine": "val_cosine_sim_history"}
_NEEDED = ("lr", "batch_size", "epochs")  # no copy of the script ever fixed these in its source
_FILE = "give the best_model.pth of a run, or a folder of such runs"


class NotExpressible(Exception):
    """The reasons for which no trial can repeat this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """One checkpoint file. The curves have one number an epoch, from epoch 1 on."""

    path: Path
    sha256: str  # of the file
    args: Mapping[str, Any]  # the script's flags
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    cosine: tuple[float, ...]
    weights: Mapping[str, Tensor]
    epoch: int | None  # of the weights, as the script counts
    lr: float | None  # of the epoch of the weights or the one after

    @property
    def best_epoch(self) -> int:
        """Return the epoch with the lowest validation loss, from 1: the epoch of the weights in `best_model.pth`."""
        return lowest_loss(self.val_loss)

    @property
    def holds_best(self) -> bool:
        """Tell whether the weights are of the best epoch, as far as the file says; scripts count epochs from 0 or from
        1.
        """
        complete = self.epoch is not None and len(self.val_loss) > self.best_epoch
        return not complete or self.epoch in (self.best_epoch - 1, self.best_epoch)

    @property
    def layout(self) -> Layout:
        """Return the layout of the model, as the weights show it."""
        return "keypoint" if "fusion_weights" in self.weights else "pose"

    @property
    def pose_unit(self) -> PoseUnit | None:
        """Return the unit of the poses in training, if the file says it; scripts do not record one."""
        unit: PoseUnit | None = self.args.get("pose_unit")
        return unit

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return int(self.weights["input_projection.weight"].shape[1])

    def config(self, pose_unit: PoseUnit) -> TrialConfig:
        """Return the config of the run; a flag that an old copy lacked has its default here, which is how that copy
        behaved.

        Raises NotExpressible.
        """
        args = {name: value for name, value in self.args.items() if value is not None}
        reasons = [f"its args do not say {name}" for name in _NEEDED if name not in args]
        if self.pose_unit is None:  # a script's run: no flag says what its other schedules do
            if (scheduler := args.get("scheduler_type", "plateau")) != "plateau":
                reasons.append(f"scheduler_type = {scheduler}; of a script only plateau is known")
            if args.get("warmup_epochs", 0) != 0:
                reasons.append(f"warmup_epochs = {args['warmup_epochs']}; how a script warms up is not known")
        if args.get("resume"):
            reasons.append(f"resume = {args['resume']}; a trial begins with new weights")
        if reasons:
            raise NotExpressible("; ".join(reasons))
        if "num_decoder_layers" in args:
            args["num_layers"] = args["num_decoder_layers"]
        sizes = {"d_model": "input_projection.weight", "dim_feedforward": "transformer_decoder.layers.0.linear1.weight"}
        values = {name: args[name] for name in (field.name for field in fields(TrialConfig)) if name in args}
        values |= {name: int(self.weights[weight].shape[0]) for name, weight in sizes.items()}
        if self.layout == "pose":
            # The pose layout has no such part, so a copy that builds it ignores the flag.
            values["use_spatial_attention"] = False
        floats = {field.name for field in fields(TrialConfig) if field.type is float}
        for name in floats & values.keys():
            if (number := checkpoint_file.number(values[name])) is None:
                raise NotExpressible(f"{name} = {describe(values[name])} in its args; expected a number")
            values[name] = number
        try:
            return TrialConfig(**{**values, "pose_unit": pose_unit, "layout": self.layout})
        except (ConfigError, TypeError, ValueError) as error:
            raise NotExpressible(str(error)) from error

    def run_id(self, config: TrialConfig) -> str:
        """Identify the run: equal for every file of one run, from its config and its first epochs."""
        first = [config.identity(), self.train_loss[0], self.val_loss[0], self.cosine[0]]
        return hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> EarlierRun:
    """Read a checkpoint file, without running any code in it. Raises EarlierRunError."""
    try:
        checkpoint = checkpoint_file.load(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (TrainingError, OSError) as error:
        raise EarlierRunError(str(error), _FILE) from error
    if missing := {"args", "model_state_dict", *_CURVES.values()} - checkpoint.keys():
        raise EarlierRunError(
            f"{path} is not a training checkpoint: it lacks {', '.join(sorted(missing))}; "
            f"it holds {_contents(checkpoint)}",
            _FILE,
        )
    args = checkpoint_file.mapping(checkpoint["args"])
    if args is None:
        raise EarlierRunError(
            f"{path}: args is {describe(checkpoint['args'])}; expected the script's flags, a dict or a namespace",
            "store them in the file: 'args': vars(args)",
        )
    curves = {name: _curve(path, key, checkpoint[key]) for name, key in _CURVES.items()}
    epochs = {len(curve) for curve in curves.values()}
    if len(epochs) != 1 or epochs == {0}:
        counted = ", ".join(f"{key} {len(curves[name])}" for name, key in _CURVES.items())
        raise EarlierRunError(f"{path}: its histories do not have one number for each epoch: {counted}", _FILE)
    if not weights.is_weights(checkpoint["model_state_dict"]):
        state = checkpoint["model_state_dict"]
        odd = [name for name in state if not isinstance(state[name], Tensor)] if isinstance(state, Mapping) else []
        content = f"holds {describe(state[odd[0]])} for {odd[0]}" if odd else f"is {describe(state)}"
        raise EarlierRunError(
            f"{path}: model_state_dict {content}; expected names and tensors",
            "store them in the file: 'model_state_dict': model.state_dict()",
        )
    model = weights.unwrapped(checkpoint["model_state_dict"])
    if not weights.structure(model):
        first = ", ".join(list(model)[:3])
        raise EarlierRunError(f"{path} holds another model: its weights have other names, such as {first}", _FILE)
    if not all(bool(torch.isfinite(weight).all()) for weight in model.values()):
        raise EarlierRunError(f"{path}: its weights hold values that are not finite", "omit this run")
    epoch = checkpoint.get("epoch")
    return EarlierRun(
        path=path,
        sha256=digest,
        args={name: plain(value) for name, value in args.items()},
        **curves,
        weights=model,
        epoch=epoch if isinstance(epoch, int) else None,
        lr=_learning_rate(checkpoint.get("optimizer_state_dict")),
    )


def _curve(path: Path, key: str, values: Any) -> tuple[float, ...]:
    """Read a history: one finite number an epoch. Raises EarlierRunError with the epoch and the value found."""
    leave = "import another run: a trial needs every number of its curves"
    if not isinstance(values, (list, tuple)) and not (isinstance(values, Tensor) and values.ndim == 1):
        raise EarlierRunError(
            f"{path}: {key} is {describe(values)}; expected a list with a number for each epoch", leave
        )
    curve = []
    for epoch, value in enumerate(values, 1):
        number = checkpoint_file.number(value)
        if number is None or not math.isfinite(number):
            raise EarlierRunError(
                f"{path}: {key} holds {describe(value)} for epoch {epoch}; expected a finite number", leave
            )
        curve.append(number)
    return tuple(curve)


def _learning_rate(optimizer: Any) -> float | None:
    """Read the rate in an optimizer's state; None if it is missing or no number."""
    try:
        return checkpoint_file.number(optimizer["param_groups"][0]["lr"])
    except (TypeError, KeyError, IndexError, RuntimeError):
        return None


def _contents(checkpoint: Mapping[Any, Any]) -> str:
    """Describe a file's content by its first names."""
    names = ", ".join(map(str, list(checkpoint)[:6]))
    kind = "weights without a training: " if weights.is_weights(checkpoint) else ""
    return (
        f"{kind}{names}{f' and {len(checkpoint) - 6} more' if len(checkpoint) > 6 else ''}" if checkpoint else "nothing"
    )


def find(paths: tuple[Path, ...]) -> list[Path]:
    """Find the files among `paths`, and every best_model.pth in the folders among them. Raises EarlierRunError."""
    checkpoints: list[Path] = []
    for path in paths:
        files = sorted(path.rglob("best_model.pth")) if path.is_dir() else [path]
        if not files:
            others = [str(file) for file in sorted(path.rglob("*.pt*"))]
            hint = (
                f"give a file of it by its name, such as {others[0]}"
                if others
                else "give the folder that --save_dir named"
            )
            raise EarlierRunError(f"{path} holds no best_model.pth", hint)
        checkpoints += files
    return list(dict.fromkeys(checkpoints))


def learning_rates(run: EarlierRun, config: TrialConfig) -> tuple[float, ...]:
    """Compute the learning rate of every epoch and of the next one, from config and validation losses.

    Empty if the file's own learning rate contradicts it.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.lr)
    schedule = Schedule(config, optimizer)
    rates = [float(optimizer.param_groups[0]["lr"])]
    for loss in run.val_loss:
        schedule.step(loss)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    at = run.best_epoch if run.epoch is None else min(run.epoch + 1, len(run.val_loss))
    agrees = run.lr is not None and any(math.isclose(run.lr, rate, rel_tol=1e-6) for rate in rates[at - 1 : at + 1])
    return tuple(rates) if agrees else ()
