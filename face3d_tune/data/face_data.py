"""The data of a training, from six files: pairs of rows, filtered by yaw, split by person (trainer contract §2)."""

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.doubts import find_doubts
from face3d_tune.data.files import DataFiles, Side, read_files
from face3d_tune.data.pairs import (
    PARTS,
    TURN_ANGLES,
    Pairs,
    Part,
    Selection,
    Split,
    TurnAngle,
    find_too_few,
    find_unmatched,
    fold_people,
    in_degrees,
    make_pairs,
    split_pairs,
)
from face3d_tune.data.problems import Problem, errors_among, first_of, unusable
from face3d_tune.data.yaw_bands import YAW_BANDS

Content = TypeVar("Content")

SAMPLE = Path(__file__).with_name("faces160.zip")
SAMPLE_NAME = "faces160 (bundled sample)"
NO_SPLIT_WARNING = (
    "split = none: validation on the training pairs themselves; such values say nothing about people never seen"
)


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class FaceData:
    """Valid data, ready to train on. A pair is (front row, video row) of one person."""

    source: str  # the folder as it was given, or SAMPLE_NAME
    front_features: NDArray[np.float32] = field(repr=False)  # [N, feature size]
    front_names: tuple[str, ...] = field(repr=False)  # [N], the person of each front row
    video_features: NDArray[np.float32] = field(repr=False)  # [M, feature size]
    landmarks: NDArray[np.float32] = field(repr=False)  # [M, 5, 3], of the video rows
    poses: NDArray[np.float64] = field(repr=False)  # [M, 3] of the video rows in degrees, whatever the file's unit
    parts: Mapping[Part, Pairs] = field(repr=False)  # [pairs, 2], ordered by front row, then video row
    people: Mapping[Part, tuple[str, ...]] = field(repr=False)
    file_pose_unit: PoseUnit
    pose_unit_recorded: bool
    split: Split
    min_yaw: float  # degrees
    max_yaw: float | None  # degrees; None = no limit
    landmark_source: str  # in words
    warnings: tuple[str, ...]
    landmark_scale: float | None = None  # factor of landmarks_3d_original; None: video_keypoints.npy as it is
    turn_angle: TurnAngle = "first"  # which of the three angles is the head turn, called yaw here

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return int(self.front_features.shape[1])

    @property
    def yaw(self) -> NDArray[np.float64]:
        """Return the head turn of each video row, [M], in degrees, with its sign."""
        return self.poses[:, TURN_ANGLES.index(self.turn_angle)]

    def fold(self, number: int, *, of: int) -> "FaceData":
        """Return fold `number` (1-based) of `of`: the same data with other people in training and validation.

        The people outside the test set are cut into `of` blocks, equal up to one person. Blocks count from the last
        person in split order to the first. Fold k validates on the k-th block and trains on the others. Over all folds
        every person validates once, and the test people stay the same.

        The first of 3 folds is the ordinary split (trainer contract §2); the only one of 1 is this data itself. Raises
        ConfigError if there are fewer people than folds, or if no people are set apart.
        """
        if of == 1:
            return self
        return self.with_people(fold_people(self.people, self.split, number, of))

    def with_people(self, people: Mapping[Part, tuple[str, ...]]) -> "FaceData":
        """Return the same data with its people, each in one part, divided anew; the pairs of a part in file order."""
        home = {name: part for part in people for name in people[part]}
        pairs = np.concatenate([self.parts[part] for part in PARTS])
        pairs = pairs[np.lexsort(pairs.T[::-1])]  # by front row, then video row
        homes = np.array([home[self.front_names[row]] for row in pairs[:, 0]])
        return replace(self, people=people, parts={part: pairs[homes == part] for part in PARTS})

    def folds(self, of: int) -> list["FaceData"]:
        """Return every fold in order, fold 1 first."""
        return [self.fold(number, of=of) for number in range(1, of + 1)]

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with any number, pair or name that a training sees, not with the
        folder.
        """
        settings: list[Any] = [self.split, self.min_yaw, self.max_yaw, [self.people[part] for part in PARTS]]
        if self.turn_angle != "first":  # version 0.1.0 had only the first angle, and its fingerprints are stored
            settings.append(self.turn_angle)
        digest = hashlib.sha256(json.dumps(settings).encode())
        arrays: list[NDArray[Any]] = [self.front_features, self.video_features, self.landmarks, self.poses]
        for array in arrays + [self.parts[part] for part in PARTS]:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def no_model_predictions(self, part: Part) -> NDArray[np.float32]:
        """Return what the no-model baseline predicts, the view's own embedding: [pairs, F], unit length."""
        return _unit(self.video_features)[self.parts[part][:, 1]]

    def no_model_cosines(self, part: Part) -> NDArray[np.float32]:
        """Return the cosine between view and front embedding of each pair, untransformed: [pairs], in [-1, 1]."""
        front = _unit(self.front_features)[self.parts[part][:, 0]]
        cosines: NDArray[np.float32] = np.einsum("ij,ij->i", front, self.no_model_predictions(part))
        return cosines

    def no_model_cosine(self, part: Part) -> float:
        """Return the no-model baseline: the mean of `no_model_cosines`; NaN for a part without pairs."""
        cosines = self.no_model_cosines(part)
        return float(cosines.mean(dtype=np.float64)) if len(cosines) else math.nan

    def no_model_by_yaw(self, part: Part) -> dict[str, float | None]:
        """Return the no-model baseline by |yaw| band."""
        return mean_by_yaw(self.no_model_cosines(part), self.yaw[self.parts[part][:, 1]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """The outcome of `inspect`: every problem, and the data if no problem is an error."""

    source: str
    data: FaceData | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Return the problems that prevent the data from being used."""
        return errors_among(self.problems)


def load(
    folder: str | Path | None,
    *,
    split: Split = "person",
    min_yaw: float = 0.0,
    max_yaw: float | None = None,
    turn_angle: TurnAngle = "first",
) -> FaceData:
    """Load the six files in `folder`, or the bundled sample.

    Only views with min_yaw <= |yaw| <= max_yaw (degrees) make pairs. Raises DataError if the files have an error.
    """
    place = None if folder is None else Path(folder)
    inspection = inspect(place, split=split, min_yaw=min_yaw, max_yaw=max_yaw, turn_angle=turn_angle)
    if inspection.data is None:
        raise first_of(inspection.errors, inspection.source)
    return inspection.data


def recorded_selection(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `load` that the `data` attribute of a study stores; version 0.1.0 had no turn angle."""
    return {field.name: attrs.get(field.name, field.default) for field in fields(Selection)}


def inspect(
    folder: Path | None,
    *,
    split: Split = "person",
    min_yaw: float = 0.0,
    max_yaw: float | None = None,
    turn_angle: TurnAngle = "first",
) -> Inspection:
    """Load the six files in `folder`, or the bundled sample, and find everything that is wrong with them."""
    selection = Selection(split, float(min_yaw), None if max_yaw is None else float(max_yaw), turn_angle)
    if folder is None:
        source = SAMPLE_NAME
        with zipfile.ZipFile(SAMPLE) as archive:
            files = read_files(zipfile.Path(archive))
    else:
        source = str(folder)
        files = read_files(folder)
    problems = [*files.problems, *find_unmatched(files)]
    pairs = make_pairs(files, selection)
    if pairs is not None:
        problems += find_too_few(files, pairs, selection)
    data = None
    if pairs is not None and not errors_among(problems):
        landmarks, landmark_source = landmark_input(files.video, files.front.metadata.standard_scale)
        problems += [*find_overscaled(landmarks, landmark_source), *find_doubts(files, selection)]
        if not errors_among(problems):
            data = _assemble(source, files, pairs, selection, problems, landmarks, landmark_source)
    return Inspection(source=source, data=data, problems=tuple(problems))


def yaw_band(yaw: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the position in YAW_BANDS of each row's |yaw|, [rows], from `yaw` in degrees."""
    inner_edges = [low for low, _ in YAW_BANDS.values()][1:]
    return np.digitize(np.abs(yaw), inner_edges).astype(np.int64)


def mean_by_yaw(values: NDArray[Any], yaw: NDArray[np.float64]) -> dict[str, float | None]:
    """Average `values` ([pairs]) in each of YAW_BANDS, by `yaw` ([pairs], degrees); None for an empty band."""
    band = yaw_band(yaw)
    by_band = {name: values[band == position] for position, name in enumerate(YAW_BANDS)}
    return {name: float(part.mean(dtype=np.float64)) if len(part) else None for name, part in by_band.items()}


def _assemble(
    source: str,
    files: DataFiles,
    pairs: Pairs,
    selection: Selection,
    warnings: list[Problem],
    landmarks: NDArray[np.float32],
    landmark_source: str,
) -> FaceData:
    """Build the data from files without errors."""
    front, video = files.front, files.video
    unit = video.metadata.pose_unit
    parts, people = split_pairs(files, pairs, selection)
    return FaceData(
        source=source,
        front_features=_present(front.features),
        front_names=tuple(map(str, _present(front.metadata.names))),
        video_features=_present(video.features),
        landmarks=landmarks,
        poses=in_degrees(_present(video.metadata.poses), unit),
        parts=parts,
        people=people,
        file_pose_unit=unit or "degrees",
        pose_unit_recorded=unit is not None,
        split=selection.split,
        min_yaw=selection.min_yaw,
        max_yaw=selection.max_yaw,
        turn_angle=selection.turn_angle,
        landmark_source=landmark_source,
        landmark_scale=None if video.metadata.landmarks is None else front.metadata.standard_scale or 1.0,
        warnings=(*map(str, warnings), *([NO_SPLIT_WARNING] if selection.split == "none" else [])),
    )


def landmark_input(video: Side, scale: float | None) -> tuple[NDArray[np.float32], str]:
    """Return the landmark input of every video row, [M, 5, 3], and its source in words (trainer contract §2).

    `scale` is the standard_scale of the front file; None if that file records none.
    """
    points = video.metadata.landmarks
    if points is not None:
        factor = 1.0 if scale is None else scale
        centred = (points - points.mean(axis=1, keepdims=True)) * factor
        source = "landmarks_3d_original, centred, times " + ("1 (no standard_scale)" if scale is None else f"{scale:g}")
        return centred.astype(np.float32), source
    keypoints, gaps = _present(video.keypoints), video.metadata.landmark_gaps
    where = "" if gaps is None else f" from {gaps} of {len(keypoints)} rows"
    return keypoints, f"video_keypoints.npy (landmarks_3d_original is missing{where})"


def find_overscaled(landmarks: NDArray[np.float32], source: str) -> list[Problem]:
    """Report landmarks that fit into float32 in the file, but not after scaling."""
    file, key = "video_metadata.json", "landmarks_3d_original"
    return [
        Problem(file=file, key=key, rows=tuple(rows), what=what, expected=f"finite numbers from {source}")
        for what, rows in unusable(landmarks)
    ]


def _present(part: Content | None) -> Content:
    """Return a part that files without errors always have."""
    if part is None:
        raise ValueError("something is missing, and no problem says so")
    return part


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit
