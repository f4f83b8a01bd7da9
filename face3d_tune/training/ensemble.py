"""Several predictions as one: the mean of unit vectors, and the blend of that mean with a baseline.

An ensemble averages the predictions of its members and scales the result to length 1. A blend of weight w takes a
baseline as one more member: (1 − w) · mean of the members + w · baseline, scaled to length 1. Where the members
disagree, their mean is shorter than 1, so the baseline has more to say there.

Source: Perrone & Cooper (1993), on averaging the outputs of networks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from face3d_tune.data.face_data import FaceData
from face3d_tune.training.recognition import Gallery

BLEND_WEIGHTS = tuple(step / 20 for step in range(21))  # tried: 0, 0.05 … 1
_TIE = 1e-12  # equal predictions differ by less in their identity

Predictions = NDArray[Any]  # [rows, F], every row of length 1
Matrix = NDArray[np.float64]


def average(predictions: Sequence[Predictions], weights: Sequence[float] | None = None) -> Matrix:
    """Return the weighted mean of unit predictions, scaled to length 1, [rows, F].

    Args:
        predictions: Of each member, [rows, F], every row of length 1.
        weights: Of each member, at least 0; only their ratios count. None: equal ones.

    Returns:
        Float64; NaN in a row whose mean has no direction.
    """
    weights = [1.0] * len(predictions) if weights is None else weights
    total = np.zeros(predictions[0].shape)
    for each, weight in zip(predictions, weights, strict=True):
        total += weight * each
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean: Matrix = total / np.linalg.norm(total, axis=1, keepdims=True)
    return mean


def blend(members: Sequence[Predictions], baseline: Predictions, weight: float) -> Matrix:
    """Return (1 − weight) · mean of `members` + weight · `baseline`, scaled to length 1, [rows, F]."""
    return average([*members, baseline], [*[(1 - weight) / len(members)] * len(members), weight])


def choose_weight(
    members: Sequence[Predictions], baseline: Predictions, data: FaceData, device: torch.device | None = None
) -> float:
    """Return the weight of the baseline, of BLEND_WEIGHTS, with the highest identity; of equal ones the smallest.

    Validation people judge, among everyone enrolled except the test people, who take no part in the choice.

    Args:
        members: Predictions of each member for the pairs of the validation people, [pairs, F].
        baseline: Those of the baseline.
        data: With the validation people.
        device: Of the scores.
    """
    gallery = Gallery(data, "validation", device, without=frozenset(data.people["test"]))
    reached = [gallery.scores(blend(members, baseline, weight)).summary().all.identity for weight in BLEND_WEIGHTS]
    identities = [-np.inf if each is None else each for each in reached]
    highest = max(identities) - _TIE
    return next(weight for weight, each in zip(BLEND_WEIGHTS, identities, strict=True) if each >= highest)
