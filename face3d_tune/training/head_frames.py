"""Landmarks in frames of the head: a face has about the same landmarks, wherever it looks.

Training people alone fix a frame. Cross-validation chooses one, because files differ in the meaning, order and sign of
their angles, and in how exact their landmarks are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import TURN_ANGLES

AS_THEY_ARE, TURNED_BACK, ALIGNED = "as they are", "turned back", "aligned"

_VIEWS_TO_COMPARE = 1000  # at most, to choose among the conventions of angles
_NEAR_FRONTAL = 0.1  # of the training views, those with the smallest |turn|
_X, _Y, _Z = 0, 1, 2

Array: TypeAlias = NDArray[np.float64]
Turns: TypeAlias = tuple[tuple[int, int, int], ...]  # column of the pose, axis, sign


@dataclass(frozen=True, slots=True)
class AsTheyAre:
    """The frame of the files: landmarks [n, 5, 3] and poses [n, 3] in degrees to [n, 5, 3], as every frame."""

    def __call__(self, landmarks: Array, poses: Array) -> Array:  # noqa: D102
        return landmarks


@dataclass(frozen=True, slots=True)
class TurnedBack:
    """The frame of a head that is turned back by its three angles; the last of `turns` first."""

    turns: Turns

    def __call__(self, landmarks: Array, poses: Array) -> Array:  # noqa: D102
        points = _centred(landmarks)
        for turn in reversed(self.turns):
            points = _turned(points, poses, *turn)
        return points


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """The frame of a reference, [5, 3], onto which every view is rotated (Kabsch, 1976)."""

    reference: Array

    def __call__(self, landmarks: Array, poses: Array) -> Array:  # noqa: D102
        centred = _centred(landmarks)
        left, _, right = np.linalg.svd(centred.transpose(0, 2, 1) @ self.reference)
        left[:, :, 2] *= np.linalg.det(left @ right)[:, None]  # a rotation, never a reflection
        aligned: Array = centred @ (left @ right)
        return aligned


Frame: TypeAlias = AsTheyAre | TurnedBack | Aligned


def frames(data: FaceData) -> Mapping[str, Frame]:
    """Return the frames by name, as the training people of these data fix them.

    - AS_THEY_ARE: the landmarks of the files.
    - TURNED_BACK: rotated by the three angles, in the order and with the signs by which the landmarks vary least.
    - ALIGNED: each view rotated onto the mean of the near-frontal ones, without its angles.
    """
    views = np.unique(data.parts["train"][:, 1])
    landmarks, poses = data.landmarks[views].astype(np.float64), data.poses[views]
    near = np.argsort(np.abs(data.yaw[views]), kind="stable")[: max(1, round(_NEAR_FRONTAL * len(views)))]
    some = np.linspace(0, len(views) - 1, min(len(views), _VIEWS_TO_COMPARE)).round().astype(int)
    turns = _least_varying(landmarks[some], poses[some], TURN_ANGLES.index(data.turn_angle))
    return {
        AS_THEY_ARE: AsTheyAre(),
        TURNED_BACK: TurnedBack(turns),
        ALIGNED: Aligned(_centred(landmarks[near]).mean(axis=0)),
    }


def _least_varying(landmarks: Array, poses: Array, turn_column: int) -> Turns:
    """Choose among 96 conventions: every order and sign of the angles, the head turn about the vertical axis.

    A rotation changes no length, so the variance is smallest where the mean is longest.
    """
    others = [column for column in range(3) if column != turn_column]
    conventions = [
        tuple((column, axis, sign) for (column, axis), sign in zip(order, signs, strict=True))
        for axes in ((_X, _Z), (_Z, _X))
        for order in permutations([(turn_column, _Y), *zip(others, axes, strict=True)])
        for signs in product((1, -1), repeat=3)
    ]
    centred = _centred(landmarks)

    @cache
    def turned(turns: Turns) -> Array:
        return _turned(turned(turns[1:]), poses, *turns[0]) if turns else centred

    lengths = [np.linalg.norm(turned(turns).mean(axis=0)) for turns in conventions]
    return conventions[int(np.argmax(lengths))]


def _turned(points: Array, poses: Array, column: int, axis: int, sign: int) -> Array:
    """Rotate the points of each view about an axis by one of its angles, [n, 5, 3]."""
    angles = sign * np.deg2rad(poses[:, column, None])
    one, other = (axis + 1) % 3, (axis + 2) % 3
    turned = points.copy()
    turned[:, :, one] = np.cos(angles) * points[:, :, one] - np.sin(angles) * points[:, :, other]
    turned[:, :, other] = np.sin(angles) * points[:, :, one] + np.cos(angles) * points[:, :, other]
    return turned


def _centred(landmarks: Array) -> Array:
    centred: Array = landmarks - landmarks.mean(axis=1, keepdims=True)
    return centred
