"""The pairs of one part of the people as one table, so that a batch of every model is one gather."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from face3d_tune.data import FaceData, Part
from face3d_tune.engine.network import Inputs
from face3d_tune.training import Pairs


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and what is to come out: target [K, B, F] and its length [K, B, 1]."""

    inputs: Inputs
    target: Tensor
    length: Tensor


class Table:
    """One row a pair: embedding, landmarks, pose in both units, target."""

    def __init__(self, data: FaceData, part: Part, device: torch.device, dtype: torch.dtype) -> None:
        degrees, radians = (Pairs(data, part, unit, device, dtype) for unit in ("degrees", "radians"))
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
        self.degrees: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = degrees.degrees  # [pairs, 3]
        self._rows = torch.cat(list(columns.values()), 1)
        self._widths = [column.shape[1] for column in columns.values()]

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, pairs: Tensor | slice, in_radians: bool | Tensor) -> Batch:
        """The pairs with these indices [K, B], or [B] for one model, the pose in radians where asked: [K, 1, 1] or all.

        A slice gives the same pairs to every model.
        """
        if isinstance(pairs, slice):
            rows = self._rows[pairs]
        else:
            rows = self._rows.index_select(0, pairs.flatten()).view(*pairs.shape, -1)
        parts = torch.split_with_sizes(rows, self._widths, -1)
        src, landmarks, xy, degrees, radians, target, length = parts
        if isinstance(in_radians, Tensor):
            pose = torch.where(in_radians, radians, degrees)
        else:
            pose = radians if in_radians else degrees
        return Batch(Inputs(src, landmarks, xy, pose), target, length)


def loss_gradient(
    prediction: Tensor, batch: Batch, mse_weight: Tensor, cosine_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of each model's loss (CONTRACT section 4) by its predictions, its mean squared error and cosine.

    Predictions [K, B, F]; weights [K, 1, 1]; the means are [K].
    """
    target, pairs, size = batch.target, *prediction.shape[-2:]
    length = torch.linalg.vector_norm(prediction, dim=-1, keepdim=True).clamp(min=1e-8)
    cosine = (prediction * target).sum(-1, keepdim=True) / (length * batch.length)
    error = prediction - target
    by_cosine = target / (length * batch.length) - prediction * (cosine / length.square())
    gradient = error * (mse_weight * (2 / (pairs * size))) - by_cosine * (cosine_weight / pairs)
    return gradient, error.square().mean((-2, -1)), cosine.mean((-2, -1))
