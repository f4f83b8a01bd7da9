"""Checkpoint files in the users' format (trainer contract §4), written so that a crash never leaves half a file.

Sealed checkpoints are bytes with their own checksum, for places where a file may still be torn.
"""

import hashlib
import io
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import numpy as np
import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import TrainingError
from face3d_tune.system import regular_file
from face3d_tune.system.whole_file import replacing
from face3d_tune.training.unsearched_flags import UNSEARCHED_FLAGS, schedule_args

_MAGIC = b"face3d-tune training 1\n"  # 1 is the version of the content


_BEGINNINGS = (b"PK", b"\x80")  # a zip archive; a pickle, before version 1.6
_SHOWN = 60  # characters of a value in a message
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size


def save(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint, so that a crash leaves the old file or the new one."""
    with replacing(path) as file:
        torch.save(dict(checkpoint), file)


class Foreign:
    """A stand-in for an object of a class that a checkpoint names, such as a path, a date or a namespace.

    The class itself is never imported. So no code of the file can run, and a Windows path can be read on Linux. `parts`
    are the arguments that made the object, `stored` is its state.
    """

    parts: tuple[Any, ...]
    stored: Any

    def __new__(cls, *parts: Any) -> Self:  # noqa: D102
        made = super().__new__(cls)
        made.parts, made.stored = parts, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.stored = state

    @property
    def kind(self) -> str:
        """Return the name of the object's class; for a numpy array, the class that its rebuilding function gets."""
        first = self.parts[0] if self.parts else None
        named = first if isinstance(first, type) and issubclass(first, Foreign) else type(self)
        return f"{named.__module__}.{named.__name__}"

    def __repr__(self) -> str:
        return f"{type(self).__module__}.{type(self).__name__}({', '.join(map(repr, self.parts))})"


class _Dtype(Foreign):
    """A numpy type other than of numbers, such as text, dates or objects; a type of numbers is numpy's own."""

    def __new__(cls, code: object, *parts: Any) -> Any:
        return np.dtype(code) if isinstance(code, str) and code in _NUMBERS else super().__new__(cls, code, *parts)


class _Scalar(Foreign):
    """A numpy scalar other than a number; a number is numpy's own."""

    def __new__(cls, dtype: object, *parts: Any) -> Any:
        return _NUMBER(dtype, *parts) if isinstance(dtype, np.dtype) else super().__new__(cls, dtype, *parts)


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


def _empty_list(*_: object) -> list[Any]:
    return []


for _class, _name in ((_Dtype, "dtype"), (_Scalar, "scalar")):
    _class.__module__, _class.__name__ = "numpy", _name  # for messages
_NUMBER: Any = np.float64(0).__reduce__()[0]  # the function that makes a numpy scalar
_NUMBERS = {
    np.dtype(code).str[1:]: np.dtype(code) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
}
# What scripts store in their checkpoints and torch refuses: numpy's numbers, and dicts and lists of other classes.
_PLAIN: list[Any] = [
    (_Dtype, "numpy.dtype"),
    *{type(each) for each in _NUMBERS.values()},
    *((_Scalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),  # in numpy 2 and 1
    (_empty_dict, "collections.defaultdict"),
    (_empty_list, "collections.deque"),
]


def mapping(value: Any) -> Mapping[str, Any] | None:
    """Read a dict, or the attributes of a stored namespace or object, as a mapping; None if it is neither."""
    stored = value.stored if isinstance(value, Foreign) else value
    if isinstance(stored, tuple) and len(stored) == 2:  # of a class with __slots__
        stored = stored[1]
    return stored if isinstance(stored, Mapping) else None


def number(value: Any) -> float | None:
    """Read a float; None if there is no single number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # None, text, 10**400, several numbers in a tensor
        return None


def plain(value: Any) -> Any:
    """Turn a number of numpy or torch into Python's own, and an object of another class into text."""
    if isinstance(value, Foreign):
        return repr(value)
    if hasattr(value, "dtype"):
        return value.item() if math.prod(value.shape) == 1 else describe(value)
    return value


def describe(value: Any) -> str:
    """Describe a value for a message: itself if it is short, or else its type."""
    if isinstance(value, Foreign):
        return f"a {value.kind}"
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.numel()} numbers" if value.numel() != 1 else repr(value.item())
    text = repr(value)
    return text if len(text) <= _SHOWN else f"a {type(value).__name__}"


def begins_like_one(path: Path) -> bool:
    """Tell whether a file begins as those that torch.save writes. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(2).startswith(_BEGINNINGS)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running any code in it. Raises TrainingError.

    An object of a class that torch does not know becomes a `Foreign` with the name of that class.
    """
    try:
        regular_file.require(path)
        with torch.serialization.safe_globals([*_PLAIN, *_stand_ins(path)]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint can raise anything, also without a message
        raise TrainingError(f"{path} is not a readable checkpoint: {_reason(error)}") from error
    if not isinstance(checkpoint, dict):
        raise TrainingError(f"{path} is not a checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _stand_ins(path: Path) -> list[Any]:
    """Make a Foreign for every class that the file names and that torch would refuse."""
    with torch.serialization.safe_globals(_PLAIN), suppress(ValueError):  # a file from before torch 1.6 has none
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return [
            (type(name.rpartition(".")[2], (Foreign,), {"__module__": name.rpartition(".")[0]}), name) for name in names
        ]
    return []


def _reason(error: Exception) -> str:
    """Return the first line of an error.

    For a refusal by torch it is the cause, not torch's advice to run the file's code.
    """
    if isinstance(error, UnpicklingError) and isinstance(error.__context__, UnpicklingError):
        error = error.__context__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the message names
    return (str(error) or type(error).__name__).splitlines()[0]


def seal(content: Mapping[str, Any]) -> bytes:
    """Pack tensors and plain values into bytes: a header, their SHA-256, and a torch file."""
    buffer = io.BytesIO()
    buffer.write(bytes(_HEAD))
    torch.serialization.set_crc32_options(False)  # a weaker checksum than SHA-256, at a third of the time
    try:
        torch.save(dict(content), buffer)
    finally:
        torch.serialization.set_crc32_options(True)
    with buffer.getbuffer() as whole, whole[_HEAD:] as packed:  # a view that outlives its buffer is an error of Python
        whole[:_HEAD] = _MAGIC + hashlib.sha256(packed).digest()
    return buffer.getvalue()  # not a copy


def unseal(sealed: bytes) -> dict[str, Any]:
    """Unpack what `seal` packed, on the CPU. Raises TrainingError if a single bit has changed."""
    view = memoryview(sealed)
    if view[:_HEAD] != _MAGIC + hashlib.sha256(view[_HEAD:]).digest():
        raise TrainingError("it is torn, or of another version")
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(view[_HEAD:]), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise TrainingError(f"it is of another version: {str(error).splitlines()[0]}") from error
    return content


def checkpoint_args(config: TrialConfig, use: DataUse) -> dict[str, Any]:
    """Return the `args` of a checkpoint: every flag of old and new copies of the script, None where a trial has no
    value.

    The folder is the one that the data was read from. `min_yaw_angle` and `max_yaw_angle` are the limits of the script,
    in degrees of the angle that it limits. What no flag sets is there as well: `pose_unit`, `layout`, `turn_angle`,
    `min_yaw` and `max_yaw` (the limits of that angle), `landmark_scale` and `data_fingerprint`.
    """
    low, high = use.script_limits
    return {
        **dict.fromkeys(UNSEARCHED_FLAGS),
        **config.to_dict(),
        **schedule_args(config),
        "deterministic": False,
        "num_decoder_layers": config.num_layers,
        "data_dir": use.data_dir,
        "min_yaw_angle": low,
        "max_yaw_angle": high,
        "turn_angle": use.turn_angle,
        "min_yaw": use.min_yaw,
        "max_yaw": use.max_yaw,
        "landmark_scale": use.landmark_scale,
        "data_fingerprint": use.fingerprint,
    }
