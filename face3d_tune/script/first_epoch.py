"""The first epoch of a script, from what it left: its checkpoints, or else its output."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from face3d_tune.errors import TrainingError
from face3d_tune.training import checkpoint_file

BEST = "best_model.pth"  # the documented trainer's best checkpoint
_NUMBER = r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|nan|inf)\b"
_VALIDATION = r"(?:\bval\w*|验证)[^\n\d]*?"


@dataclass(frozen=True, slots=True)
class FirstEpoch:
    """The result of the script's validation after one epoch; None where it cannot be read."""

    cosine: float | None
    val_loss: float | None
    source: Literal["checkpoint", "output", "nothing"]


def checkpoints_in(folder: Path) -> tuple[dict[Path, Mapping[str, Any]], list[str]]:
    """Read the checkpoints that the script wrote anywhere, by any name, `best_model.pth` first.

    Returns the checkpoints, and for each unreadable one a line that says why.
    """
    checkpoints: dict[Path, Mapping[str, Any]] = {}
    unreadable = []
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name != BEST, path)):
        if not path.is_file():
            continue
        try:
            if checkpoint_file.begins_like_one(path):
                checkpoints[path] = checkpoint_file.load(path)
        except OSError as error:
            unreadable.append(f"{path.name} cannot be read: {error.strerror}")
        except TrainingError as error:
            unreadable.append(error.message.replace(str(path), path.name))
    return checkpoints, unreadable


def first_epoch(checkpoints: Iterable[Mapping[str, Any]], printed: str) -> FirstEpoch:
    """Read the result of validation from a checkpoint, or else from the output."""
    for checkpoint in checkpoints:
        loss, cosine = (_first(checkpoint.get(name)) for name in ("val_loss_history", "val_cosine_sim_history"))
        if loss is not None:
            return FirstEpoch(cosine, loss, "checkpoint")
    losses = re.findall(rf"{_VALIDATION}(?:loss|损失)[^\n\d-]*?{_NUMBER}", printed, re.IGNORECASE)
    cosines = re.findall(rf"(?:\bcos\w*|余弦|相似度)[^\n\d-]*?{_NUMBER}", printed, re.IGNORECASE)
    if not losses and not cosines:
        return FirstEpoch(None, None, "nothing")
    return FirstEpoch(float(cosines[-1]) if cosines else None, float(losses[-1]) if losses else None, "output")


def _first(history: Any) -> float | None:
    """Read the first number of a history; None if there is none."""
    return checkpoint_file.number(history[0]) if isinstance(history, (list, tuple)) and history else None
