"""The side views of a folder, to predict from: only the video files, and of those only what a model reads.

Frontal files, names and people may be missing. The embeddings stay on the disk until their rows are used.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import find_overscaled, landmark_input
from face3d_tune.data.files import Side, check_unit, find_bad_rows, in_float32, map_embeddings, parse_array, read_bytes
from face3d_tune.data.metadata import LANDMARK_SHAPE, Metadata, read_metadata, read_standard_scale
from face3d_tune.data.pairs import in_degrees
from face3d_tune.data.problems import Problem, errors_among, first_of
from face3d_tune.errors import DataError

FEATURES, KEYPOINTS, METADATA = "video_feature.npy", "video_keypoints.npy", "video_metadata.json"
FRONT_METADATA = "front_metadata.json"  # of it, only the scale of the landmarks
_ROWS = 8192  # that are checked at once
_UNUSED = ("metadata", "standard_info", "standard_info.standard_scale")  # keys of video_metadata.json
_HINT = (
    f"predict reads {FEATURES}, {METADATA} and, if that has no landmarks_3d_original for every row, {KEYPOINTS}: "
    "docs/data.md"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """Side views without errors, one for each row of `video_feature.npy`, in its order."""

    folder: Path
    features: NDArray[Any]  # [M, feature size], float16, float32 or float64, on the disk
    landmarks: NDArray[np.float32] | None  # [M, 5, 3]; None for a model that reads none
    landmark_source: str | None  # in words
    landmark_scale: float | None  # factor of landmarks_3d_original, if those are the landmarks
    poses: NDArray[np.float64]  # [M, 3], degrees, whatever the file's unit
    pose_unit: PoseUnit | None  # of the file; None: not recorded, so degrees
    sha256: Mapping[str, str]  # of every file that was read, by its name

    def __len__(self) -> int:
        return len(self.features)

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return int(self.features.shape[1])

    def rows(self, rows: slice) -> NDArray[np.float32]:
        """Read some embeddings from the disk, [rows, feature size]."""
        return in_float32(self.features[rows])


def read_views(
    folder: Path, *, with_landmarks: bool, scale: float | None = None, recorded_scale: float | None = None
) -> Views:
    """Read and check the video files in a folder.

    The factor of `landmarks_3d_original` is `scale`. If that is None, it is the standard_scale of the folder's front
    file, as for a training on this folder; without a front file it is `recorded_scale`.

    Raises DataError: a file, a key or a row cannot be used, or the factor is not known.
    """
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; expected a folder with {FEATURES} and {METADATA}", _HINT)
    reader = _FolderReader(folder)
    features = map_embeddings(folder / FEATURES, reader.problems)
    metadata = reader.metadata(with_landmarks)
    keypoints = reader.keypoints() if with_landmarks and metadata.landmarks is None else None
    reader.refuse()
    assert features is not None
    assert metadata.poses is not None
    reader.check_counts(len(features), metadata, keypoints)
    landmarks = source = factor = None
    if with_landmarks:
        if metadata.landmarks is not None:
            factor = reader.scale(scale, recorded_scale)
        side = Side(features=None, keypoints=keypoints, metadata=metadata)
        landmarks, source = landmark_input(side, factor)
        reader.problems += find_overscaled(landmarks, source)
    for first in range(0, len(features), _ROWS):
        rows = in_float32(features[first : first + _ROWS])
        find_bad_rows(FEATURES, rows, reader.problems, first=first)
    reader.refuse()
    reader.digest(FEATURES)
    return Views(
        folder=folder,
        features=features,
        landmarks=landmarks,
        landmark_source=source,
        landmark_scale=factor,
        poses=in_degrees(metadata.poses, metadata.pose_unit),
        pose_unit=metadata.pose_unit,
        sha256=dict(sorted(reader.sha256.items())),
    )


class _FolderReader:
    """The files of one folder as they are read: their digests, and what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[Problem] = []
        self.sha256: dict[str, str] = {}

    def metadata(self, with_landmarks: bool) -> Metadata:
        data = self._bytes(METADATA)
        if data is None:
            return Metadata()
        problems: list[Problem] = []
        metadata = read_metadata(METADATA, data, problems)
        unused = _UNUSED if with_landmarks else (*_UNUSED, "landmarks_3d_original")
        self.problems += [problem for problem in problems if problem.key not in unused]
        hint = f'add "pose_unit": "radians" (or "degrees") to {METADATA}'
        check_unit(METADATA, metadata, hint, self.problems)
        return metadata

    def keypoints(self) -> NDArray[np.float32] | None:
        data = self._bytes(KEYPOINTS)
        return None if data is None else parse_array(KEYPOINTS, data, (None, *LANDMARK_SHAPE), self.problems)

    def scale(self, option: float | None, recorded: float | None) -> float:
        """Return the factor of landmarks_3d_original. Raises DataError."""
        if option is not None:
            return option
        if (self.folder / FRONT_METADATA).exists():
            data = self._bytes(FRONT_METADATA)
            scale = None if data is None else read_standard_scale(FRONT_METADATA, data, self.problems)
            self.refuse()
            return scale or 1.0
        if recorded is not None:
            return recorded
        raise DataError(
            f"{self.folder} has no {FRONT_METADATA}, and the checkpoint does not record the scale of the landmarks",
            f"give the standard_scale of the training data's {FRONT_METADATA} with --landmark-scale",
        )

    def check_counts(self, rows: int, metadata: Metadata, keypoints: NDArray[np.float32] | None) -> None:
        """Raise DataError unless every list has a row for each embedding."""
        counts = [(METADATA, "poses", metadata.poses), (METADATA, "landmarks_3d_original", metadata.landmarks)]
        for file, key, table in (*counts, (KEYPOINTS, None, keypoints)):
            if table is not None and len(table) != rows:
                what, expected = f"{len(table)} rows", f"{rows}, as many as in {FEATURES}"
                self.problems.append(Problem(file=file, key=key, what=what, expected=expected))
        self.refuse()

    def digest(self, file: str) -> None:
        """Note the SHA-256 of a file that is read from the disk again and again."""
        with (self.folder / file).open("rb") as stream:
            self.sha256[file] = hashlib.file_digest(stream, "sha256").hexdigest()

    def refuse(self) -> None:
        """Raise the first error, if there is one."""
        if errors := errors_among(self.problems):
            first = first_of(errors, str(self.folder))
            raise DataError(f"{self.folder}: {first.message}", errors[0].hint or _HINT)

    def _bytes(self, file: str) -> bytes | None:
        try:
            data = read_bytes(self.folder, file)
        except OSError as error:
            what = "missing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            self.problems.append(Problem(file=file, what=what, expected="a readable file of the side views"))
            return None
        self.sha256[file] = hashlib.sha256(data).hexdigest()
        return data
