"""Landmarks in the head's frame: what a turn did to them is undone, by the angles or by the landmarks alone."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from face3d_tune.training.head_frames import ALIGNED, AS_THEY_ARE, TURNED_BACK, frames

AXES = {"x": 0, "y": 1, "z": 2}


def rotation(axis, degrees):
    """By the formula of Rodrigues."""
    cross = np.cross(np.eye(3), np.eye(3)[AXES[axis]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def turned(data, order, signs, axes):
    """One head in every view, turned by the poses: `axes` of the three angles of a pose, in the order of the files."""
    head = np.array([[-3, 3, 1], [3, 3, 1], [0, 0, 3], [-2, -3, 1], [2, -3, 1]]) - [0, 0, 7 / 5]
    landmarks = []
    for pose in data.poses:
        angles = {axis: sign * angle for axis, angle, sign in zip(axes, pose, signs, strict=True)}
        matrix = np.eye(3)
        for axis in order:
            matrix = matrix @ rotation(axis, angles[axis])
        landmarks.append(head @ matrix.T + [5, 6, 7])
    return replace(data, landmarks=np.array(landmarks, dtype=np.float32))


@pytest.mark.parametrize("order", ["".join(order) for order in permutations("xyz")])
@pytest.mark.parametrize(("turn", "axes"), [("first", "yxz"), ("first", "yzx"), ("second", "zyx"), ("third", "xzy")])
def test_turning_back_finds_the_order_and_the_signs_of_the_angles(data, order, turn, axes):
    for signs in list(product((1, -1), repeat=3))[::3]:
        head = turned(replace(data, turn_angle=turn), order, signs, axes)
        back = frames(head)[TURNED_BACK](head.landmarks.astype(float), head.poses)
        assert np.ptp(back, axis=0).max() < 1e-5


def test_aligning_needs_no_angles(data):
    head = turned(data, "yxz", (1, 1, -1), "yxz")
    aligned = frames(head)[ALIGNED](head.landmarks.astype(float), 0 * head.poses)
    assert np.ptp(aligned, axis=0).max() < 1e-5
    assert np.ptp(frames(head)[AS_THEY_ARE](head.landmarks, head.poses), axis=0).max() > 3


def test_aligning_never_mirrors_a_face(data):
    head = turned(data, "yxz", (1, 1, 1), "yxz")
    mirrored = head.landmarks.astype(float) * [-1, 1, 1]
    aligned = frames(head)[ALIGNED](mirrored, head.poses)
    handed = np.linalg.det(aligned[:, :3] - aligned[:, 3:4])
    assert (np.sign(handed) == np.sign(np.linalg.det(mirrored[:, :3] - mirrored[:, 3:4]))).all()
