"""Checkpoint files in the users' format (CONTRACT section 4), written so that a crash never leaves half a file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from face3d_tune.errors import TrainingError


def save(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write beside `path`, flush to the disk, then rename over it."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(dict(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running any code that may be in it. Raises TrainingError."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes of a file that is none can raise anything, also without a word
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise TrainingError(f"{path} is not a checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint
