"""A run of the users' script, as its checkpoint tells it (CONTRACT section 4): its flags, curves and weights."""

import hashlib
import json
import math
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from face3d_tune import checkpoint
from face3d_tune.config import Layout, PoseUnit, TrialConfig
from face3d_tune.errors import ConfigError, EarlierRunError, TrainingError
from face3d_tune.schedules import Schedule

_CURVES = {"train_loss": "train_loss_history", "val_loss": "val_loss_history", "cosine": "val_cosine_sim_history"}
_NEEDED = ("lr", "batch_size", "epochs")  # what no copy of the script ever fixed in its source


class NotExpressible(Exception):
    """The reasons for which no trial can be what this run was."""


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
        """The epoch with the lowest validation loss, from 1: the one whose weights `best_model.pth` holds."""
        return self.val_loss.index(min(self.val_loss)) + 1

    @property
    def holds_best(self) -> bool:
        """Whether the weights are of the best epoch, as far as the file says; scripts count epochs from 0 or from 1."""
        known = self.epoch is not None and len(self.val_loss) > self.best_epoch
        return not known or self.epoch in (self.best_epoch - 1, self.best_epoch)

    @property
    def layout(self) -> Layout:
        """Of the model, as the weights show."""
        return "keypoint" if "fusion_weights" in self.weights else "pose"

    @property
    def pose_unit(self) -> PoseUnit | None:
        """Of the poses that it trained on, if the file says so; a script knows of no unit."""
        unit: PoseUnit | None = self.args.get("pose_unit")
        return unit

    @property
    def feature_size(self) -> int:
        """Numbers per embedding."""
        return int(self.weights["input_projection.weight"].shape[1])

    def config(self, pose_unit: PoseUnit) -> TrialConfig:
        """What it trained with. Flags that an old copy did not have are what it did without them: the defaults here.

        Raises NotExpressible.
        """
        args = {name: value for name, value in self.args.items() if value is not None}
        reasons = [f"its args do not say {name}" for name in _NEEDED if name not in args]
        if self.pose_unit is None:  # a script's: what its other schedules do, no flag says
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
        known = {name: args[name] for name in (field.name for field in fields(TrialConfig)) if name in args}
        known |= {name: int(self.weights[weight].shape[0]) for name, weight in sizes.items()}
        floats = {field.name for field in fields(TrialConfig) if field.type is float}
        try:
            known = {name: float(value) if name in floats else value for name, value in known.items()}
            return TrialConfig(**{**known, "pose_unit": pose_unit, "layout": self.layout})
        except (ConfigError, TypeError, ValueError) as error:
            raise NotExpressible(str(error)) from error

    def run_id(self, config: TrialConfig) -> str:
        """The same for every file of one run, also an earlier one: what it trained with and where it began."""
        first = [config.identity(), self.train_loss[0], self.val_loss[0], self.cosine[0]]
        return hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> EarlierRun:
    """Read a checkpoint file, without running any code that may be in it. Raises EarlierRunError."""
    hint = "give the best_model.pth of a run, or a folder of such runs"
    try:
        held = checkpoint.load(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (TrainingError, OSError) as error:
        raise EarlierRunError(str(error), hint) from error
    if missing := {"args", "model_state_dict", *_CURVES.values()} - held.keys():
        raise EarlierRunError(f"{path} is no checkpoint of a training: it lacks {', '.join(sorted(missing))}", hint)
    args, weights = held["args"], held["model_state_dict"]
    args = vars(args) if isinstance(args, Namespace) else args
    curves = {name: tuple(map(float, held[key])) for name, key in _CURVES.items()}
    epochs = {len(curve) for curve in curves.values()}
    if len(epochs) != 1 or epochs == {0}:
        raise EarlierRunError(f"{path}: its histories do not have one number for each epoch", hint)
    if not all(math.isfinite(value) for curve in curves.values() for value in curve):
        raise EarlierRunError(f"{path}: its histories hold values that are not finite", "leave this run out")
    if not isinstance(args, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise EarlierRunError(f"{path}: its args or weights are not what a training script stores", hint)
    if not {"input_projection.weight", "transformer_decoder.layers.0.linear1.weight"} <= weights.keys():
        raise EarlierRunError(f"{path} holds another model: its weights have other names", hint)
    groups = held.get("optimizer_state_dict", {}).get("param_groups", [{}])
    epoch = held.get("epoch")
    return EarlierRun(
        path=path,
        sha256=digest,
        args=dict(args),
        **curves,
        weights=weights,
        epoch=int(epoch) if isinstance(epoch, int) else None,
        lr=groups[0].get("lr"),
    )


def find(paths: tuple[Path, ...]) -> list[Path]:
    """The files among `paths`, and every best_model.pth in the folders among them. Raises EarlierRunError."""
    found: list[Path] = []
    for path in paths:
        files = sorted(path.rglob("best_model.pth")) if path.is_dir() else [path]
        if not files:
            raise EarlierRunError(f"{path} holds no best_model.pth", "give the folder that --save_dir named")
        found += files
    return list(dict.fromkeys(found))


def learning_rates(run: EarlierRun, config: TrialConfig) -> tuple[float, ...]:
    """The learning rate of every epoch and of the one after, which follow from config and validation losses.

    Empty if the file's own learning rate says otherwise.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.lr)
    schedule = Schedule(config, optimizer)
    rates = [float(optimizer.param_groups[0]["lr"])]
    for loss in run.val_loss:
        schedule.step(loss)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    at = run.best_epoch if run.epoch is None else min(run.epoch + 1, len(run.val_loss))
    known = run.lr is not None and any(math.isclose(run.lr, rate, rel_tol=1e-6) for rate in rates[at - 1 : at + 1])
    return tuple(rates) if known else ()
