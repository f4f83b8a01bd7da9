"""The six data files: read them, and check what one file or two side by side can show.

Nothing here raises for a broken file. Every fault becomes a `Problem`, so that a user fixes all of them at once.
"""

import io
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, SupportsInt, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.metadata import LANDMARK_SHAPE, Metadata, read_metadata
from face3d_tune.data.problems import Problem, unusable
from face3d_tune.system import regular_file

SIDES: tuple[Literal["front", "video"], ...] = ("front", "video")
CONTENTS = ("feature.npy", "keypoints.npy", "metadata.json")
FILES = tuple(f"{side}_{content}" for side in SIDES for content in CONTENTS)

_MAGIC = b"\x93NUMPY"
_LONGEST_REASON = 300  # characters of numpy's message, which may quote the whole header

LIKE_RADIANS = (0.1, 3.2)  # if the largest |angle| of a file is between these, the unit is surely radians

Root: TypeAlias = Path | zipfile.Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """The front or the video half of the files. An array that is unreadable or has the wrong shape is None."""

    features: NDArray[np.float32] | None  # [rows, feature size]
    keypoints: NDArray[np.float32] | None  # [rows, 5, 3]
    metadata: Metadata


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataFiles:
    """The readable part of the six files, and every problem found. Without errors, no array is None."""

    front: Side
    video: Side
    problems: tuple[Problem, ...]


def read_files(root: Root, *, unit_if_unrecorded: PoseUnit | None = None) -> DataFiles:
    """Read and check the six files in a folder or archive.

    `unit_if_unrecorded` is the unit that the user states for poses whose file records none. Without it such poses count
    as degrees, and are an error if they look like radians.
    """
    problems: list[Problem] = []
    if root.is_dir():
        front, video = (_read_side(root, side, problems) for side in SIDES)
        _check_feature_sizes(front, video, problems)
        _check_pose_units(front.metadata, video.metadata, unit_if_unrecorded, problems)
    else:
        front = video = Side(features=None, keypoints=None, metadata=Metadata())
        what = "not a folder" if root.exists() else "no such folder"
        problems.append(Problem(file=str(root), what=what, expected=f"a folder with {', '.join(FILES)}"))
    return DataFiles(front=front, video=video, problems=tuple(problems))


def read_bytes(root: Root, file: str) -> bytes:
    """Return the content of one file. Raises OSError if it cannot be read, e.g. a pipe."""
    if isinstance(root, Path):
        return regular_file.read_bytes(root / file)
    with (root / file).open("rb") as stream:
        content: bytes = stream.read()
    return content


def _read_side(root: Root, side: Literal["front", "video"], problems: list[Problem]) -> Side:
    feature_file, keypoint_file, metadata_file = (f"{side}_{content}" for content in CONTENTS)
    features = _read_array(root, feature_file, (None, None), problems)
    keypoints = _read_array(root, keypoint_file, (None, *LANDMARK_SHAPE), problems)
    data = _try_read(root, metadata_file, problems)
    metadata = Metadata() if data is None else read_metadata(metadata_file, data, problems)
    if features is not None:
        _report_zero_rows(feature_file, features, problems)
    arrays = [(feature_file, features), (keypoint_file, keypoints)]
    array_counts = [(file, None, len(array)) for file, array in arrays if array is not None]
    _check_counts([*array_counts, *((metadata_file, key, count) for key, count in metadata.counts)], problems)
    return Side(features=features, keypoints=keypoints, metadata=metadata)


def _try_read(root: Root, file: str, problems: list[Problem]) -> bytes | None:
    try:
        return read_bytes(root, file)
    except FileNotFoundError:
        problems.append(Problem(file=file, what="missing", expected="one of the six data files"))
    except OSError as error:
        problems.append(Problem(file=file, what=error.strerror or str(error), expected="a readable file"))
    return None


def _read_array(
    root: Root, file: str, shape: tuple[int | None, ...], problems: list[Problem]
) -> NDArray[np.float32] | None:
    data = _try_read(root, file, problems)
    return None if data is None else parse_array(file, data, shape, problems)


def parse_array(
    file: str, data: bytes, shape: tuple[int | None, ...], problems: list[Problem]
) -> NDArray[np.float32] | None:
    """Parse the bytes of `file` as a float32 array, and append what is wrong to `problems`.

    Returns None after a problem that leaves nothing to use. In `shape`, None is any size above 0.
    """
    array = _load_array(file, data[: len(_MAGIC)], lambda: np.load(io.BytesIO(data), allow_pickle=False), problems)
    if array is None or not _fits(file, array, shape, problems):
        return None
    numbers = in_float32(array)
    for what, rows in unusable(numbers):
        _report_rows(problems, file, what, "finite numbers", rows)
    return numbers


def map_embeddings(path: Path, problems: list[Problem]) -> NDArray[Any] | None:
    """Open an array of embeddings, [rows, feature size], where it lies on the disk: its rows are read when used.

    Appends what is wrong with its form to `problems`, and returns None then; the numbers are for `find_bad_rows`.
    """
    try:
        regular_file.require(path, most=sys.maxsize)  # it is not read into memory
        with path.open("rb") as file:
            first = file.read(len(_MAGIC))
    except FileNotFoundError:
        problems.append(Problem(file=path.name, what="missing", expected="embeddings of the side views"))
        return None
    except OSError as error:
        problems.append(Problem(file=path.name, what=error.strerror or str(error), expected="a readable file"))
        return None
    array = _load_array(path.name, first, lambda: np.load(path, mmap_mode="r", allow_pickle=False), problems)
    return None if array is None or not _fits(path.name, array, (None, None), problems) else array


def find_bad_rows(file: str, features: NDArray[np.float32], problems: list[Problem], *, first: int = 0) -> None:
    """Append the rows that hold NaN, infinity, numbers too large or only zeros; `first` is the number of row 0."""
    for what, rows in unusable(features):
        _report_rows(problems, file, what, "finite numbers", (first + row for row in rows))
    _report_zero_rows(file, features, problems, first=first)


def in_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Round numbers to float32, as the users' script does; what is beyond it becomes infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: NDArray[np.float32] = array.astype(np.float32)
    return numbers


def _fits(file: str, array: NDArray[Any], shape: tuple[int | None, ...], problems: list[Problem]) -> bool:
    """Tell whether an array has the shape, and a type that embeddings and landmarks may have."""
    fits = array.ndim == len(shape) and all(
        size > 0 if wanted is None else size == wanted for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = "[rows, numbers per embedding]" if len(shape) == 2 else f"[rows, {shape[1]}, {shape[2]}]"
        problems.append(Problem(file=file, what=f"shape {list(array.shape)}", expected=f"{expected}, none of them 0"))
        return False
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        problems.append(Problem(file=file, what=f"dtype {array.dtype}", expected="float16, float32 or float64"))
        return False
    return True


def _load_array(
    file: str, first: bytes, load: Callable[[], NDArray[Any]], problems: list[Problem]
) -> NDArray[Any] | None:
    """Load an array whose file begins with `first`."""
    expected = "a NumPy array saved by numpy.save"
    if first != _MAGIC:
        what = "a pickled object, which is never opened" if first[:1] == b"\x80" else "not a .npy file"
        problems.append(Problem(file=file, what=what, expected=expected))
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "\d" in a damaged header, which is a string of Python
            array = load()
    except Exception as error:  # numpy reads the header as Python's source, which can raise anything
        reason = textwrap.shorten(str(error) or type(error).__name__, _LONGEST_REASON, placeholder=" …")
        what = f"damaged ({reason})"
        if "Object arrays" in str(error):
            what, expected = "an array of pickled objects, which are never opened", "an array of numbers"
        problems.append(Problem(file=file, what=what, expected=expected))
        return None
    return array


def _check_counts(counts: list[tuple[str, str | None, int]], problems: list[Problem]) -> None:
    """Check that every list of one side is as long as the first readable one."""
    for file, key, count in counts[1:]:
        first_file, first_key, rows = counts[0]
        if count != rows:
            expected = f"{rows}, as many as in {first_key or first_file}"
            problems.append(Problem(file=file, key=key, what=f"{count} rows", expected=expected))


def _check_feature_sizes(front: Side, video: Side, problems: list[Problem]) -> None:
    if front.features is not None and video.features is not None:
        wanted, size = front.features.shape[1], video.features.shape[1]
        if wanted != size:
            expected = f"{wanted}, as in front_feature.npy"
            problems.append(Problem(file="video_feature.npy", what=f"{size} numbers per embedding", expected=expected))


def _check_pose_units(
    front: Metadata, video: Metadata, unit_if_unrecorded: PoseUnit | None, problems: list[Problem]
) -> None:
    file, key = "video_metadata.json", "pose_unit"
    if front.pose_unit != video.pose_unit:
        what: str = video.pose_unit or "not recorded"
        expected = f"{front.pose_unit or 'none recorded'}, as in front_metadata.json"
        problems.append(Problem(file=file, key=key, what=what, expected=expected))
    elif unit_if_unrecorded is None:
        hint = (
            "`face3d-tune data convert DIR OUT --from radians --pose-unit radians` writes a copy that records it"
            " (`--from degrees --pose-unit degrees` if they are degrees)"
        )
        check_unit(file, video, hint, problems)


def check_unit(file: str, metadata: Metadata, hint: str, problems: list[Problem]) -> None:
    """Report poses without a recorded unit that look like radians."""
    if metadata.pose_unit is not None or metadata.poses is None:
        return
    low, high = LIKE_RADIANS
    largest = np.abs(metadata.poses).max(initial=0)
    if low < largest <= high:
        what = f"not recorded, and no angle exceeds {largest:.3g}: these look like radians"
        expected = "degrees, or a recorded unit"
        problems.append(Problem(file=file, key="pose_unit", what=what, expected=expected, hint=hint))


def _report_zero_rows(file: str, features: NDArray[np.float32], problems: list[Problem], *, first: int = 0) -> None:
    with np.errstate(all="ignore"):  # rows that are too large or not finite have been reported
        zero = np.flatnonzero(np.linalg.norm(features, axis=1) == 0)
    _report_rows(problems, file, "a zero vector", "an embedding with a direction", first + zero)


def _report_rows(problems: list[Problem], file: str, what: str, expected: str, rows: Iterable[SupportsInt]) -> None:
    if affected := tuple(int(row) for row in rows):
        problems.append(Problem(file=file, what=what, expected=expected, rows=affected))
