"""The gradient of `training/losses` by the predictions, for K models at once."""

import torch
from torch import Tensor

from face3d_tune.training import losses
from face3d_tune.training.batched.layers import product, steadily
from face3d_tune.training.batched.table import Identity, PairBatch, Weighting


def loss_gradient(
    prediction: Tensor, batch: PairBatch, mse_weight: Tensor, cosine_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of each model's loss by its predictions (trainer contract §4), mean squared error and cosine.

    Predictions [K, B, F]; weights [K, 1, 1]; the means are [K]. With a `weighting`, all three are of weighted pairs.
    """
    target, pairs, size = batch.target, *prediction.shape[-2:]
    length = torch.linalg.vector_norm(prediction, dim=-1, keepdim=True).clamp(min=1e-8)
    cosine = (prediction * target).sum(-1, keepdim=True) / (length * batch.length)
    error = prediction - target
    by_cosine = target / (length * batch.length) - prediction * (cosine / length.square())
    gradient = error * (mse_weight * (2 / (pairs * size))) - by_cosine * (cosine_weight / pairs)
    if (term := batch.identity) is not None and term.models is None:
        gradient += _identity_gradient(prediction, length, term)
    elif term is not None:
        gradient.index_add_(0, term.models, _identity_gradient(prediction[term.models], length[term.models], term))
    if batch.weighting is None:
        return gradient, error.square().mean((-2, -1)), cosine.mean((-2, -1))
    weights = _pair_weights(cosine, batch.weighting)
    return gradient * weights, (error.square() * weights).mean((-2, -1)), (cosine * weights).mean((-2, -1))


def _identity_gradient(prediction: Tensor, length: Tensor, term: Identity) -> Tensor:
    """Return the gradient of weight · cross-entropy (`training_people`) by the predictions, [M, B, F], mean over pairs.

    Predictions [M, B, F] of the models that have the term, and their lengths [M, B, 1].
    """
    people, unit = term.people, prediction / length
    fronts = people.fronts if unit.dim() == 2 else people.fronts.expand(len(unit), -1, -1)
    cosines = product(unit, fronts.mT)
    scores, rows = people.nearest(cosines)
    slopes = torch.softmax(scores / term.temperature, -1)
    slopes.scatter_add_(-1, term.person, -torch.ones_like(length))
    slopes *= term.weight / (term.temperature * unit.shape[-2])
    along = (slopes * scores).sum(-1, keepdim=True)
    if rows is not None:
        slopes = torch.zeros_like(cosines).scatter_(-1, rows, slopes)
    return (product(slopes, fronts) - unit * along) / length


def _pair_weights(cosine: Tensor, weighting: Weighting) -> Tensor:
    """Return `losses.pair_weights` of every model, [K, B, 1]; exactly 1 for a model without weights."""
    # Not pow, which rounds differently with one exponent than with one for each model.
    logarithm = steadily(torch.log, (1 - cosine).clamp(min=losses.LEAST_HARD))
    weights = weighting.angle * steadily(torch.exp, logarithm * weighting.gamma)
    return weights / weights.mean(-2, keepdim=True)
