"""The loss that training minimises, the cosine that the search maximises (trainer contract §4): pure functions."""

from typing import TypeVar

from torch import Tensor
from torch.nn import functional

from face3d_tune.config import TrialConfig

LEAST_HARD = 1e-6  # of 1 - cosine, which rounding can bring below 0

_Number = TypeVar("_Number", float, Tensor)


def squared_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each pair, averaged over its F numbers: [B, F] and [B, F] to [B]."""
    return (prediction - target).square().mean(-1)


def cosines(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the cosine similarity of each pair, in [-1, 1]: [B, F] and [B, F] to [B]."""
    return functional.cosine_similarity(prediction, target, dim=-1)


def weighs(config: TrialConfig) -> bool:
    """Tell whether the pairs of a batch have weights."""
    return config.focal_gamma > 0 or config.angle_weight > 0


def pair_weights(config: TrialConfig, cosine: Tensor, turn: Tensor) -> Tensor:
    """Return the weight of each training pair in its batch, mean 1: [B] and |yaw| in degrees [B] to [B].

    (1 + angle_weight · |yaw| / 90°) · (1 − cosine)^focal_gamma, divided by its mean over the batch. No gradient flows
    through it. The second factor is focal weighting (Lin et al., 2017) with the cosine as the probability.
    """
    hardness = (1 - cosine.detach()).clamp(min=LEAST_HARD) ** config.focal_gamma
    weights = (1 + config.angle_weight * turn / 90) * hardness
    return weights / weights.mean()


def combine(config: TrialConfig, mse: _Number, cosine: _Number) -> _Number:
    """Return the loss that `--loss_type` names, from the mean squared error and the mean cosine.

    Unit vectors have mse = 2(1 − cosine) / F, so the first term is hundreds of times smaller than the second.
    """
    match config.loss_type:
        case "mse":
            return mse
        case "cosine":
            return 1 - cosine
        case "combined":
            return config.mse_weight * mse + config.cosine_weight * (1 - cosine)


def with_identity(config: TrialConfig, combined: _Number, cross_entropy: _Number) -> _Number:
    """Return what training minimises: the result of `combine`, or its mix with the identity term.

    (1 − identity_weight) · combined + identity_weight · cross-entropy. `TrainingPeople` defines the cross-entropy.
    """
    weight = config.identity_weight
    return combined if weight == 0 else (1 - weight) * combined + weight * cross_entropy
