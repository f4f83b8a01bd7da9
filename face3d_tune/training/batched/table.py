"""The pairs of one part of the people as one table, so that a batch of every model is one gather."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Part
from face3d_tune.training.augmentation import Augmented, TrainingViews
from face3d_tune.training.base import PairTensors, in_unit
from face3d_tune.training.batched.network import ViewBatch
from face3d_tune.training.training_people import TrainingPeople


@dataclass(frozen=True, slots=True)
class Weighting:
    """The factors [K, B, 1] and exponents [K, 1, 1] of the weight of each pair (`losses.pair_weights`)."""

    angle: Tensor  # 1 + angle_weight · |yaw| / 90°
    gamma: Tensor


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity term of M of the K models, those that have one; without the axis of models if there is one model."""

    people: TrainingPeople
    models: Tensor | None  # [M], places; None: there is one model
    person: Tensor  # [M, B, 1], of each pair
    weight: Tensor  # [M, 1, 1]
    temperature: Tensor  # [M, 1, 1]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """The inputs of a batch and its target: target [K, B, F] and the target's length [K, B, 1]."""

    inputs: ViewBatch
    target: Tensor
    length: Tensor
    weighting: Weighting | None = None  # None: all pairs have the same weight
    identity: Identity | None = None  # None: no model has the term


class PairTable:
    """One row a pair: embedding, landmarks, pose in both units, target."""

    def __init__(self, data: FaceData, part: Part, device: torch.device, dtype: torch.dtype) -> None:
        degrees, radians = (PairTensors(data, part, unit, device, dtype) for unit in ("degrees", "radians"))
        one = degrees.src.new_ones(len(degrees), 1)
        columns = {
            "src": degrees.src,
            "landmarks": degrees.landmarks.flatten(1),
            "xy": degrees.landmarks[..., :2].flatten(1),
            "degrees": torch.cat((degrees.poses, one), 1),
            "radians": torch.cat((radians.poses, one), 1),
            "target": degrees.target,
            "length": torch.linalg.vector_norm(degrees.target, dim=1, keepdim=True).clamp(min=1e-8),
        }
        self.yaw, self.turn = degrees.yaw, degrees.turn  # [pairs], degrees: with its sign and without
        self.person = degrees.person  # [pairs]
        self._rows = torch.cat(list(columns.values()), 1)
        self._widths = [column.shape[1] for column in columns.values()]
        self.width = sum(self._widths)
        src, landmarks = torch.split_with_sizes(self._rows, self._widths, 1)[:2]
        self.views = TrainingViews(src, landmarks.view(-1, 5, 3), degrees.views.degrees, degrees.views.front)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def people(self) -> TrainingPeople:
        """Return the frontal embeddings of the people of these pairs."""
        target = torch.split_with_sizes(self._rows, self._widths, 1)[-2]
        return TrainingPeople(target, self.views.front, self.person)

    def batch(self, pairs: Tensor | slice, in_radians: bool | Tensor) -> PairBatch:
        """Return the pairs with these indices [K, B], or [B] for one model, the pose in radians where asked: [K, 1, 1]
        or all.

        A slice gives the same pairs to every model.
        """
        return self.split(self._rows[pairs] if isinstance(pairs, slice) else self.rows(pairs), in_radians)

    def rows(self, pairs: Tensor, augmented: Augmented | None = None) -> Tensor:
        """Return all columns of the pairs with these indices, [*pairs, width]; their views may be `augmented`."""
        rows = self._rows.index_select(0, pairs.flatten())
        if augmented is not None:
            src, landmarks, xy, degrees, radians, _, _ = torch.split_with_sizes(rows, self._widths, 1)
            src.copy_(augmented.src)
            landmarks.copy_(augmented.landmarks.flatten(1))
            xy.copy_(augmented.landmarks[..., :2].flatten(1))
            degrees[:, :3] = in_unit("degrees", augmented.degrees.numpy()).to(rows)
            radians[:, :3] = in_unit("radians", augmented.degrees.numpy()).to(rows)
        return rows.view(*pairs.shape, -1)

    def split(self, rows: Tensor, in_radians: bool | Tensor) -> PairBatch:
        """Split the result of `rows` into a batch, as `batch` returns it."""
        parts = torch.split_with_sizes(rows, self._widths, -1)
        src, landmarks, xy, degrees, radians, target, length = parts
        if isinstance(in_radians, Tensor):
            pose = torch.where(in_radians, radians, degrees)
        else:
            pose = radians if in_radians else degrees
        return PairBatch(ViewBatch(src, landmarks, xy, pose), target, length)
