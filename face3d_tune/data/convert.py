"""The six files written anew: the bundled sample, or a copy of a folder with its poses in another unit."""

import io
import json
import math
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import SAMPLE
from face3d_tune.data.files import FILES, read_bytes, read_files
from face3d_tune.data.metadata import parse_json
from face3d_tune.data.problems import errors_among, first_of
from face3d_tune.errors import DataError


def write_sample(folder: Path) -> None:
    """Write the bundled sample into `folder`; make the folder if it does not exist.

    Raises DataError if one of the six files exists already; then nothing is written.
    """
    _write(folder, _contents(None))


def convert(
    source: Path,
    out: Path,
    *,
    unit: PoseUnit | None,
    unit_if_unrecorded: PoseUnit | None = None,
    instead: Mapping[str, bytes] | None = None,
) -> PoseUnit:
    """Copy the files in `source` to `out` with their poses in `unit`, and record the unit in both metadata files.

    With None the poses stay as they are. The files of `instead`, by name, replace those in `source` or are added.
    Everything else stays as it is. Returns the unit that the poses had.

    Raises DataError, and writes nothing, if `source` has an error or records another unit than `unit_if_unrecorded`.
    The same holds if it records none and looks like radians, or if `out` has one of the files already.
    """
    files = read_files(source, unit_if_unrecorded=unit_if_unrecorded)
    if errors := errors_among(files.problems):
        raise first_of(errors, str(source))
    recorded = files.video.metadata.pose_unit
    if recorded and unit_if_unrecorded and recorded != unit_if_unrecorded:
        raise DataError(f"{source} records its poses in {recorded}, not {unit_if_unrecorded}", "omit --from")
    old_unit: PoseUnit = recorded or unit_if_unrecorded or "degrees"
    contents = {file: read_bytes(source, file) for file in FILES}
    if unit is not None:
        for file in contents:
            if file.endswith(".json"):
                contents[file] = _rescale(contents[file], old_unit, unit)
    _write(out, {**contents, **(instead or {})})
    return old_unit


def copy(source: Path, out: Path) -> None:
    """Copy the six files in `source` to `out` as they are. Raises DataError; then nothing is written."""
    _write(out, _contents(source))


def excerpt(source: Path | None, out: Path, *, views: int) -> None:
    """Write files with every person in `source` (None: the bundled sample), but at most `views` views of each.

    The files must be valid; the views are taken evenly from the file. Raises DataError; then nothing is written.
    """
    contents = _contents(source)
    video = parse_json(contents["video_metadata.json"])
    rows_of: dict[str, list[int]] = {}
    for row, about in enumerate(video["metadata"]):
        rows_of.setdefault(about["person_name"], []).append(row)
    rows = sorted(row for each in rows_of.values() for row in each[:: math.ceil(len(each) / views)])
    count = len(video["metadata"])
    for name, values in video.items():
        if isinstance(values, list) and len(values) == count:
            video[name] = [values[row] for row in rows]
    contents["video_metadata.json"] = _encode(video)
    for file in ("video_feature.npy", "video_keypoints.npy"):
        taken = io.BytesIO()
        np.save(taken, np.load(io.BytesIO(contents[file]))[rows])
        contents[file] = taken.getvalue()
    _write(out, contents)


def _contents(source: Path | None) -> dict[str, bytes]:
    """Read the six files as they are, of the bundled sample if `source` is None. Raises DataError."""
    if source is None:
        with zipfile.ZipFile(SAMPLE) as archive:
            return {file: archive.read(file) for file in FILES}
    try:
        return {file: read_bytes(source, file) for file in FILES}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _rescale(metadata: bytes, old_unit: PoseUnit, unit: PoseUnit) -> bytes:
    content = parse_json(metadata)
    if unit != old_unit:
        poses: NDArray[np.float64] = np.asarray(content["poses"], dtype=np.float64)
        content["poses"] = (np.deg2rad(poses) if unit == "radians" else np.rad2deg(poses)).tolist()
    content["pose_unit"] = unit
    return _encode(content, ensure_ascii=metadata.isascii())


def _encode(content: Any, *, ensure_ascii: bool = False) -> bytes:
    # JSON allows half of a surrogate pair and UTF-8 does not; it is written as JSON's own escape.
    return json.dumps(content, ensure_ascii=ensure_ascii).encode("utf-8", errors="backslashreplace")


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files or, if one exists or cannot be written, none."""
    if taken := [file for file in contents if os.path.lexists(folder / file)]:
        raise DataError(f"{folder} already has {', '.join(taken)}; nothing was written", "name another folder")
    # Write beside the new folder or inside the old one, so that the files can be renamed into place.
    unfinished = (folder if folder.exists() else folder.parent) / f".unfinished-{secrets.token_hex(4)}"
    try:
        unfinished.mkdir(parents=True)
        for file, content in contents.items():
            (unfinished / file).write_bytes(content)
        if folder.exists():
            for file in contents:
                (unfinished / file).rename(folder / file)
        else:
            unfinished.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
