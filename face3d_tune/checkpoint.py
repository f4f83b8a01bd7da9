"""Checkpoint files in the users' format (CONTRACT section 4), written so that a crash never leaves half a file.

And sealed ones: bytes that carry their own checksum, for places where a file may be torn all the same.
"""

import argparse
import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from face3d_tune import regular_file
from face3d_tune.errors import TrainingError

_MAGIC = b"face3d-tune training 1\n"  # 1 is the version of what is inside
# Plain values that scripts keep in their checkpoints: numbers of numpy, the flags as argparse gave them.
_SCALAR = np.float64(0).__reduce__()[0]  # the function that makes a numpy scalar, by its names in numpy 2 and 1
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
]
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size


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
        regular_file.require(path)
        with torch.serialization.safe_globals(_PLAIN):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes of a file that is none can raise anything, also without a word
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise TrainingError(f"{path} is not a checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def seal(content: Mapping[str, Any]) -> memoryview:
    """Tensors and plain values as bytes: who wrote them, their SHA-256, and a torch file."""
    buffer = io.BytesIO()
    buffer.write(bytes(_HEAD))
    torch.serialization.set_crc32_options(False)  # a weaker sum than the one below, and a third of the time
    try:
        torch.save(dict(content), buffer)
    finally:
        torch.serialization.set_crc32_options(True)
    whole = buffer.getbuffer()
    whole[:_HEAD] = _MAGIC + hashlib.sha256(whole[_HEAD:]).digest()
    return whole


def unseal(sealed: bytes) -> dict[str, Any]:
    """What `seal` was given, on the CPU. Raises TrainingError if a single bit is not as it was written."""
    view = memoryview(sealed)
    if view[:_HEAD] != _MAGIC + hashlib.sha256(view[_HEAD:]).digest():
        raise TrainingError("it is torn, or of another version")
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(view[_HEAD:]), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise TrainingError(f"it is of another version: {str(error).splitlines()[0]}") from error
    return content
