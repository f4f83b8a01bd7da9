"""The dropout sites of the model by name, in the order in which the plain model draws its masks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from face3d_tune.config import TrialConfig
from face3d_tune.training.dropout import room

Masks = Mapping[str, Tensor | None]


def sites(config: TrialConfig) -> dict[str, tuple[int, ...]]:
    """Return name and mask shape of every dropout of the model, in drawing order."""
    batch, d, heads = config.batch_size, config.d_model, config.nhead
    shapes: dict[str, tuple[int, ...]] = {"keypoints": (batch, 256)} if config.layout == "keypoint" else {}
    shapes["input"] = (batch, d)
    for layer in range(config.num_layers):
        shapes |= {f"{layer}.self_heads": (batch, heads, 1), f"{layer}.self": (batch, d)}
        shapes |= {f"{layer}.cross_heads": (batch, heads, 1), f"{layer}.cross": (batch, d)}
        shapes |= {f"{layer}.hidden": (batch, config.dim_feedforward), f"{layer}.out": (batch, d)}
    return shapes


def mask_views(config: TrialConfig, numbers: Tensor) -> dict[str, Tensor | None]:
    """Return the mask of each site as a view of [K, mask_length]."""
    views: dict[str, Tensor | None] = {}
    start = 0
    for name, shape in sites(config).items():
        elements = torch.Size(shape).numel()
        views[name] = numbers[..., start : start + elements].view(*numbers.shape[:-1], *shape)
        start += room(elements)
    return views


def mask_length(config: TrialConfig) -> int:
    """Return how many numbers all masks of one step take."""
    return sum(room(torch.Size(shape).numel()) for shape in sites(config).values())
