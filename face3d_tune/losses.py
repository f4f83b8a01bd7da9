"""What training minimises and what the search is judged by (CONTRACT section 4), as pure functions of tensors."""

from typing import TypeVar

from torch import Tensor
from torch.nn import functional

from face3d_tune.config import TrialConfig

_Number = TypeVar("_Number", float, Tensor)


def squared_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of each pair, averaged over its F numbers: [B, F] and [B, F] to [B]."""
    return (prediction - target).square().mean(-1)


def cosines(prediction: Tensor, target: Tensor) -> Tensor:
    """Cosine similarity of each pair, in [-1, 1]: [B, F] and [B, F] to [B]."""
    return functional.cosine_similarity(prediction, target, dim=-1)


def combine(config: TrialConfig, mse: _Number, cosine: _Number) -> _Number:
    """The loss that `--loss_type` names, from the mean squared error and the mean cosine.

    Unit vectors have mse = 2(1 − cosine) / F, so the first term is hundreds of times smaller than the second.
    """
    match config.loss_type:
        case "mse":
            return mse
        case "cosine":
            return 1 - cosine
        case "combined":
            return config.mse_weight * mse + config.cosine_weight * (1 - cosine)
