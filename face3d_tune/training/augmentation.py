"""The training pairs of an epoch, in their order, and how augmentation changes them; validation is never augmented.

Every choice and every noise has a stream of its own that follows from (seed, purpose, epoch). It is drawn on the CPU
for the whole epoch at once, by place in the epoch's order. So every engine, on every device, draws the same numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face3d_tune import seeds
from face3d_tune.config import TrialConfig

EXTREME = 45.0  # degrees of |yaw| from which a view is oversampled
_AUGMENTATIONS = ("view_mixing", "feature_noise", "pose_jitter", "landmark_noise")


@dataclass(frozen=True, slots=True)
class TrainingViews:
    """The side views of all training pairs, ordered by front row."""

    src: Tensor  # [pairs, F]
    landmarks: Tensor  # [pairs, 5, 3]
    degrees: NDArray[np.float64]  # [pairs, 3], poses
    front: NDArray[np.int64]  # [pairs]: the front row, so the person


@dataclass(frozen=True, slots=True)
class Augmented:
    """The n drawn views as an epoch shows them, in its order."""

    src: Tensor  # [n, F]
    landmarks: Tensor  # [n, 5, 3]
    degrees: Tensor  # [n, 3], float64, on the CPU


def augments(config: TrialConfig) -> bool:
    """Tell whether a training changes the views that it shows."""
    return any(getattr(config, name) > 0 for name in _AUGMENTATIONS)


def order(config: TrialConfig, yaw: NDArray[np.float64], seed: int, epoch: int) -> Tensor:
    """Draw the pairs of an epoch as indices [pairs] on the CPU, from their `yaw` [pairs] in degrees.

    They are a permutation. With `oversampling` they are drawn with replacement, views of EXTREME yaw 1 + oversampling
    times as often.
    """
    if config.oversampling == 0:
        return torch.randperm(len(yaw), generator=seeds.generator(seed, "order", epoch))
    odds = torch.from_numpy(1 + config.oversampling * (np.abs(yaw) >= EXTREME))
    generator = seeds.generator(seed, "oversampling", epoch)
    return torch.multinomial(odds, len(yaw), replacement=True, generator=generator)


def augmented(config: TrialConfig, views: TrainingViews, drawn: Tensor, seed: int, epoch: int) -> Augmented:
    """Augment the views with the indices `drawn` [n], on the CPU: mix them, then add noise.

    - view_mixing: with this probability a view is mixed with another one of the same front row, drawn evenly:
      (1 − t) · own + t · other with t uniform in [0, 1), in embedding, landmarks and pose (Zhang et al., 2018)
    - feature_noise: normal, of about this length relative to the embedding's: each of its F numbers has the standard
      deviation feature_noise / √F · |embedding|
    - landmark_noise: normal, this standard deviation times the root mean square of all training landmarks
    - pose_jitter: normal, this standard deviation in degrees, of all three angles

    Mixing and noise leave an embedding as long as it was.
    """
    index = drawn.to(views.src.device)
    src, landmarks, degrees = views.src[index], views.landmarks[index], torch.from_numpy(views.degrees)[drawn]
    if config.view_mixing > 0:
        others, t = _partners(config.view_mixing, views.front, drawn, seed, epoch)
        index, share = others.to(src.device), t.to(src)
        src = _as_long_as(src, torch.lerp(src, views.src[index], share[:, None]))
        landmarks = torch.lerp(landmarks, views.landmarks[index], share[:, None, None])
        degrees = torch.lerp(degrees, torch.from_numpy(views.degrees)[others], t[:, None])
    if config.feature_noise > 0:
        size = config.feature_noise / src.shape[1] ** 0.5 * torch.linalg.vector_norm(src, dim=1, keepdim=True)
        src = _as_long_as(src, src + size * _normal(src, seed, "feature noise", epoch))
    if config.landmark_noise > 0:
        size = config.landmark_noise / views.landmarks.numel() ** 0.5 * torch.linalg.vector_norm(views.landmarks)
        landmarks = landmarks + size * _normal(landmarks, seed, "landmark noise", epoch)
    if config.pose_jitter > 0:
        degrees = degrees + config.pose_jitter * _normal(degrees, seed, "pose jitter", epoch)
    return Augmented(src, landmarks, degrees)


def _partners(
    probability: float, front: NDArray[np.int64], drawn: Tensor, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Draw the partner of each drawn view, [n], and the partner's share, [n]; the share is 0 for views left unmixed."""
    _, first, person, views = np.unique(front, return_index=True, return_inverse=True, return_counts=True)
    begin, count = (torch.from_numpy(each[person])[drawn] for each in (first, views))
    generator = seeds.generator(seed, "view mixing", epoch)
    chosen, other, t = torch.rand(3, len(drawn), generator=generator, dtype=torch.float64)
    step = 1 + (other * (count - 1)).long()  # from 1 to count - 1 places on among the views of a person
    others = torch.where(count > 1, begin + (drawn - begin + step) % count, drawn)
    return others, torch.where(chosen < probability, t, 0.0)


def _normal(like: Tensor, seed: int, purpose: str, epoch: int) -> Tensor:
    """Draw standard normal numbers, the same ones in every precision."""
    return torch.randn(like.shape, generator=seeds.generator(seed, purpose, epoch)).to(like)


def _as_long_as(model: Tensor, changed: Tensor) -> Tensor:
    """Scale each row of `changed` to the length of the same row of `model`."""
    wanted, lengths = (torch.linalg.vector_norm(rows, dim=1, keepdim=True) for rows in (model, changed))
    scaled: Tensor = changed * (wanted / lengths.clamp(min=torch.finfo(lengths.dtype).tiny))
    return scaled
