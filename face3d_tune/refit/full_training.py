"""One full training with its results in a folder: checkpoint, history and curve.

best_model.pth   the epoch with the lowest validation loss, in the users' format (trainer contract §4)
history.json     every epoch, the config, seed, device and data, and the final results on validation people
curve.svg        losses and cosine by epoch
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from face3d_tune.analysis.curve import curve_picture
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.provenance import DataUse
from face3d_tune.device import Precision
from face3d_tune.errors import NonFiniteError, TrainingError
from face3d_tune.executor.plan import Plan
from face3d_tune.executor.tasks import Task
from face3d_tune.refit.retrain import Kept
from face3d_tune.study.history import History
from face3d_tune.system.whole_file import replacing
from face3d_tune.training import checkpoint_file
from face3d_tune.training.base import EpochResult, Evaluation, Training, best_epoch, precision_for
from face3d_tune.training.batched.batch import BatchedTraining, alone
from face3d_tune.training.checkpoint_file import checkpoint_args
from face3d_tune.training.plain import Trainer

FILES = ("best_model.pth", "history.json", "curve.svg")
_CURVES = ("curve.svg", "curve.png")  # version 0.1.0 wrote a PNG


@dataclass(frozen=True, slots=True)
class Trained:
    """The results of a full training: means of the kept checkpoint over validation pairs."""

    best: EpochResult
    epochs_run: int
    validation: Evaluation


def train_fully(
    config: TrialConfig,
    data: FaceData,
    out: Path,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    engine: Literal["plain", "batched"],
    after_epoch: Callable[[EpochResult], None],
    notice: Callable[[str], None],
) -> Trained:
    """Train to the end or to early stopping; write into `out` at once, so that an interrupt keeps the best epoch so
    far.

    A training that becomes NaN in mixed precision begins again without it. Raises NonFiniteError if it does so without.
    """
    task = Task(0, config, seed, precision_for(config, precision))
    while True:
        trainer: Trainer | BatchedTraining
        if engine == "plain":
            trainer = Trainer(config, data, seed=seed, device=device, precision=task.precision)
        else:
            trainer = alone(config, data, seed=seed, device=device, precision=task.precision)
        out.mkdir(parents=True, exist_ok=True)
        for name in _CURVES:  # an interrupt would leave an old curve beside the new files
            (out / name).unlink(missing_ok=True)
        try:
            _train(trainer, data, out, device, after_epoch)
            break
        except NonFiniteError as error:
            again = task.without_mixed_precision()
            if again is None:
                raise
            notice(f"{error.message}: starting again without mixed precision")
            task = again
    return _conclude(_Facts.of(trainer, data, device), trainer.history, data, out)


def keep(kept: Kept, config: TrialConfig, seed: int, data: FaceData, plan: Plan, out: Path) -> Trained:
    """Write a training that `retrain` has ended into `out`, as `train_fully` writes one."""
    out.mkdir(parents=True, exist_ok=True)
    args = {**kept.checkpoint["args"], "save_dir": str(out), "device": str(plan.device)}
    checkpoint_file.save({**kept.checkpoint, "args": args}, out / "best_model.pth")
    facts = _Facts(config, seed, plan.device, ",".join(map(str, plan.devices)), plan.engine, kept.precision, data)
    return _conclude(facts, kept.history, data, out)


@dataclass(frozen=True, slots=True)
class _Facts:
    """A training, without its epochs."""

    config: TrialConfig
    seed: int
    device: torch.device  # that evaluates
    trained_on: str  # it, or every GPU that trained members of an ensemble
    engine: str
    precision: Precision
    data: FaceData

    @classmethod
    def of(cls, training: Training, data: FaceData, device: torch.device) -> Self:
        return cls(training.config, training.seed, device, str(device), training.engine, training.precision, data)

    def to_dict(self) -> dict[str, Any]:
        """Return the history's entries beside the epochs."""
        return {
            "config": self.config.to_dict(),
            "seed": self.seed,
            "device": self.trained_on,
            "engine": self.engine,
            "amp": self.precision,
            "data": {"source": self.data.source, "fingerprint": self.data.fingerprint()},
        }


def _train(
    trainer: Trainer | BatchedTraining,
    data: FaceData,
    out: Path,
    device: torch.device,
    after_epoch: Callable[[EpochResult], None],
) -> None:
    args = {**checkpoint_args(trainer.config, DataUse.of(data)), "save_dir": str(out), "device": str(device)}
    facts = _Facts.of(trainer, data, device).to_dict()
    while trainer.stop_reason is None:
        result = trainer.train_epoch()
        if result.is_best:
            checkpoint_file.save(trainer.checkpoint(args), out / "best_model.pth")
        _write_history(trainer.history, out, facts)
        after_epoch(result)


def _conclude(facts: _Facts, history: Sequence[EpochResult], data: FaceData, out: Path) -> Trained:
    """Evaluate the kept checkpoint, not the last epoch, with the plain model."""
    best = best_epoch(history)
    if best is None:
        raise TrainingError("no epoch was trained")
    plain = Trainer(facts.config, data, seed=facts.seed, device=facts.device, precision=facts.precision)
    plain.model.load_state_dict(checkpoint_file.load(out / "best_model.pth")["model_state_dict"])
    validation = plain.evaluate(plain.validation)
    ended = {"best_epoch": best.epoch, "stop_reason": history[-1].stop_reason, "validation": asdict(validation)}
    curve = curve_picture(History.of_epochs(history), best.epoch, data.no_model_cosine("validation"))
    (out / "curve.svg").write_text(curve, encoding="utf-8")
    _write_history(history, out, facts.to_dict() | ended)
    return Trained(best, len(history), validation)


def _write_history(history: Sequence[EpochResult], out: Path, facts: Mapping[str, Any]) -> None:
    content = {**facts, "epochs": [_epoch(result) for result in history]}
    with replacing(out / "history.json") as file:
        file.write(json.dumps(content, indent=1).encode())


def _epoch(result: EpochResult) -> dict[str, Any]:
    """Return an epoch without recognition by band and pooled, which would be most of the file."""
    recognition = None if result.recognition is None else result.recognition.all.to_dict()
    return {**result.to_dict(), "recognition": recognition}
