"""One metadata file, read and checked: the person of each row, the head turn, the landmarks."""

import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.problems import LARGEST, Problem, unusable

LANDMARK_SHAPE = (5, 3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metadata:
    """The content of one metadata file; a part that is missing or broken is None."""

    names: list[str | None] | None = None  # of each row; None where an entry has none
    poses: NDArray[np.float64] | None = None  # [rows, 3]: yaw, pitch, roll as they stand in the file
    landmarks: NDArray[np.float64] | None = None  # [rows, 5, 3]; None also if any row has none
    landmark_gaps: int | None = None  # rows without landmarks; None if the file has no landmarks at all
    pose_unit: PoseUnit | None = None  # None: not recorded
    standard_scale: float | None = None  # None: not recorded
    counts: tuple[tuple[str, int], ...] = ()  # entries under each key that has a list


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse the object in a UTF-8 file, with or without a byte order mark. Raises ValueError, saying what is wrong and
    where.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("lists nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} at the top")
    return content


def read_metadata(file: str, data: bytes, problems: list[Problem]) -> Metadata:
    """Read the bytes of the metadata file called `file`, and append what is wrong to `problems`."""
    try:
        content = parse_json(data)
    except ValueError as error:
        problems.append(Problem(file=file, what=str(error), expected="a JSON object in UTF-8"))
        return Metadata()
    reader = _MetadataReader(file, content, problems)
    names = reader.names()
    poses = reader.poses()
    landmarks, gaps = reader.landmarks()
    return Metadata(
        names=names,
        poses=poses,
        landmarks=landmarks,
        landmark_gaps=gaps,
        pose_unit=reader.pose_unit(),
        standard_scale=reader.standard_scale(),
        counts=tuple((key, len(value)) for key, value in content.items() if key in _LISTS and isinstance(value, list)),
    )


def read_standard_scale(file: str, data: bytes, problems: list[Problem]) -> float | None:
    """Read the scale of landmarks alone; None if the file called `file` records none."""
    try:
        content = parse_json(data)
    except ValueError as error:
        problems.append(Problem(file=file, what=str(error), expected="a JSON object in UTF-8"))
        return None
    return _MetadataReader(file, content, problems).standard_scale()


_LISTS = ("metadata", "poses", "landmarks_3d_original")


@dataclass(frozen=True, slots=True)
class _MetadataReader:
    """Reader with one method for each key of the file."""

    file: str
    content: dict[str, Any]
    problems: list[Problem]

    def names(self) -> list[str | None] | None:
        entries = self._list("metadata")
        if entries is None:
            return None
        values = [entry.get("person_name") if isinstance(entry, dict) else None for entry in entries]
        names = [name if isinstance(name, str) and name else None for name in values]
        if bad := [row for row, name in enumerate(names) if name is None]:
            what = f"no usable person_name in {reprlib.repr(entries[bad[0]])}"
            self._report("metadata", what, 'an entry such as {"person_name": "Eve"}', bad)
        return names

    def poses(self) -> NDArray[np.float64] | None:
        entries = self._list("poses")
        return None if entries is None else self._table("poses", entries, (3,), "[yaw, pitch, roll], finite numbers")

    def landmarks(self) -> tuple[NDArray[np.float64] | None, int | None]:
        """Return the landmarks, if every row has them, and the number of rows without."""
        key = "landmarks_3d_original"
        if self.content.get(key) is None:
            return None, None
        entries = self._list(key)
        if entries is None:
            return None, None
        rows = [row for row, entry in enumerate(entries) if entry is not None and entry != []]
        present = [entries[row] for row in rows]
        expected = "five points of three finite numbers, or null"
        table = self._table(key, present, LANDMARK_SHAPE, expected, rows)
        gaps = len(entries) - len(present)
        return (None if gaps else table), gaps

    def pose_unit(self) -> PoseUnit | None:
        unit: PoseUnit | None = self.content.get("pose_unit")
        if unit is None or unit in get_args(PoseUnit):
            return unit
        self._report("pose_unit", reprlib.repr(unit), " or ".join(map(repr, get_args(PoseUnit))))
        return None

    def standard_scale(self) -> float | None:
        info = self.content.get("standard_info")
        if info is None:
            return None
        if not isinstance(info, dict):
            self._report("standard_info", reprlib.repr(info), "an object with standard_scale")
            return None
        scale = info.get("standard_scale")
        if scale is None:
            return None
        if isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale <= LARGEST:
            return float(scale)
        self._report("standard_info.standard_scale", reprlib.repr(scale), f"a number above 0, at most {LARGEST:g}")
        return None

    def _list(self, key: str) -> list[Any] | None:
        value = self.content.get(key)
        if isinstance(value, list):
            return value
        what = "not a list" if key in self.content else "missing"
        self._report(key, what, "a list with one entry per row")
        return None

    def _table(
        self, key: str, entries: list[Any], shape: tuple[int, ...], expected: str, rows: Sequence[int] | None = None
    ) -> NDArray[np.float64] | None:
        """Return entries of `shape` as one array, or None and a problem that names the rows at fault.

        `rows` are the entries' places in the file, if they are not 0, 1, 2, …
        """
        rows = range(len(entries)) if rows is None else rows
        if not entries:
            return np.zeros((0, *shape))
        table = _numbers(entries)
        if table is None or table.shape[1:] != shape:
            arrays = [_numbers(entry) for entry in entries]
            fits = [array is not None and array.shape == shape for array in arrays]
            bad = [index for index, fit in enumerate(fits) if not fit]
            entry = reprlib.repr(entries[bad[0]])
            self._report(key, f"wrong shape or not numbers: {entry}", expected, [rows[index] for index in bad])
            return None
        table = table.astype(np.float64)
        for what, bad in unusable(table):
            self._report(key, what, expected, [rows[index] for index in bad])
        return table

    def _report(self, key: str, what: str, expected: str, rows: Sequence[int] = ()) -> None:
        self.problems.append(Problem(file=self.file, key=key, what=what, expected=expected, rows=tuple(rows)))


def _numbers(value: Any) -> NDArray[Any] | None:
    """Convert a list of (lists of) numbers to an array; None if it is ragged or contains anything else."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "iuf" else None
