"""Doubts about valid data that a person should check before a search: odd poses, huge numbers, equal embeddings."""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from face3d_tune.data.files import DataFiles
from face3d_tune.data.pairs import TURN_ANGLES, Selection, in_degrees
from face3d_tune.data.problems import Problem

SHARE = 0.9  # of the views: an angle that this share has in common deserves a look
_HALF_CIRCLE = 30.0  # degrees from ±180 in which a head that hardly moves jumps from one sign to the other
_NARROW = 30.0  # degrees: a head turn that stays within them leaves nothing to tell views apart by
_HUGE = 1000.0  # times the largest number of the median row

Angles = NDArray[np.float64]


def find_doubts(files: DataFiles, selection: Selection) -> list[Problem]:
    """Return a warning for each doubt about files without errors; all their rows are used nevertheless."""
    poses, unit = files.video.metadata.poses, files.video.metadata.pose_unit
    doubts = [] if poses is None else _doubt_poses(in_degrees(poses, unit), selection.turn_column)
    return [*doubts, *_find_huge_numbers(files), *_find_equal_embeddings(files)]


def narrowest_arc(angles: Angles) -> float:
    """Return the width in degrees of the narrowest arc of the circle that contains SHARE of `angles`; NaN if there are
    none.
    """
    count = len(angles)
    if not count:
        return math.nan
    inside = math.ceil(SHARE * count)
    ordered = np.sort(angles % 360)
    twice_round = np.concatenate((ordered, ordered + 360))
    return float((twice_round[inside - 1 : inside - 1 + count] - ordered).min())


def _doubt_poses(poses: Angles, turn: int) -> list[Problem]:
    """Doubt angles beyond ±90, poses of exactly 0, 0, 0 and a head turn that hardly varies; `turn` is the turn's
    column.
    """
    unknown = (poses == 0).all(axis=1)
    problems = [problem for column in range(3) for problem in _doubt_wide_angles(poses[:, column], column)]
    if unknown.any():
        what = f"exactly 0, 0, 0 in {unknown.sum()} of {len(poses)} views, as if no pose had been found"
        problems.append(_warning("a pose for each view", what, np.flatnonzero(unknown).tolist()))
    arcs = [narrowest_arc(column) for column in poses[~unknown].T]
    widest = int(np.nanargmax(arcs)) if not unknown.all() else turn
    if arcs[turn] < _NARROW <= arcs[widest] and arcs[widest] >= 2 * arcs[turn]:
        own, other = TURN_ANGLES[turn], TURN_ANGLES[widest]
        what = (
            f"the {own} angle hardly varies: {SHARE:.0%} of the views lie within {arcs[turn]:.0f} degrees, "
            f"in the {other} angle within {arcs[widest]:.0f}"
        )
        problems.append(_warning(f"the head turn in the {own} angle; if it is the {other}: --turn-angle {other}", what))
    return problems


def _doubt_wide_angles(angles: Angles, column: int) -> list[Problem]:
    wide = np.flatnonzero(np.abs(angles) > 90).tolist()
    if not wide:
        return []
    what = f"{TURN_ANGLES[column]} angle beyond ±90 degrees in {len(wide)} of {len(angles)} views"
    near = angles[np.abs(angles) >= 180 - _HALF_CIRCLE]
    if len(set(np.sign(near).tolist())) > 1:
        what += f", near ±180 with both signs in {len(near)}: a head that moves by 1 degree may jump by 359"
    return [_warning("-90 to 90", what, wide)]


def _find_huge_numbers(files: DataFiles) -> list[Problem]:
    """Warn of rows whose largest number is far beyond that of the median row: one may spoil every training."""
    arrays = {"front_feature.npy": files.front.features, "video_feature.npy": files.video.features}
    arrays |= {"front_keypoints.npy": files.front.keypoints, "video_keypoints.npy": files.video.keypoints}
    problems = []
    for file, array in arrays.items():
        if array is None or not len(array):
            continue
        largest = np.abs(array.reshape(len(array), -1)).max(axis=1)
        usual = float(np.median(largest))
        far = np.flatnonzero(largest > _HUGE * usual).tolist()
        if far and usual:
            what = f"numbers up to {largest.max():.2g} in {len(far)} of {len(array)} rows, where {usual:.2g} is usual"
            problems.append(
                Problem(file=file, rows=tuple(far), what=what, expected="rows of one scale", severity="warning")
            )
    return problems


def _find_equal_embeddings(files: DataFiles) -> list[Problem]:
    """Warn of embeddings that occur more than once, as when a picture was added twice."""
    problems = []
    seen: dict[bytes, str] = {}  # digest of an embedding: the file with its first occurrence
    for file, features in (("front_feature.npy", files.front.features), ("video_feature.npy", files.video.features)):
        rows_of_file = () if features is None else features
        digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows_of_file]
        equal: dict[str, list[int]] = {}  # rows of this file, by that file
        for row, digest in enumerate(digests):
            if digest in seen:
                equal.setdefault(seen[digest], []).append(row)
            seen.setdefault(digest, file)
        for first, rows in equal.items():
            other = "an earlier row" if first == file else f"a row of {first}"
            what = f"the same embedding as {other} in {len(rows)} of {len(digests)} rows"
            problems.append(
                Problem(file=file, rows=tuple(rows), what=what, expected="each picture once", severity="warning")
            )
    return problems


def _warning(expected: str, what: str, rows: list[int] | None = None) -> Problem:
    file, key = "video_metadata.json", "poses"
    return Problem(file=file, key=key, what=what, expected=expected, rows=tuple(rows or ()), severity="warning")
