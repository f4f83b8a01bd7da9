"""The baseline without a Transformer: ridge regression from a view's embedding and pose to the frontal embedding.

With e the view's embedding and x = e times each of (1, sin yaw, 1 − cos yaw, sin pitch, sin roll, |sin yaw|), the
prediction is e + W'x, as the model's is (trainer contract §3, step 8). W = (X'X + λI)⁻¹ X'(Y − E) over the pairs of the
training people (Hoerl & Kennard, 1970). As λ grows, the prediction becomes the no-model baseline.

Yaw is the head turn, whichever angle that is; pitch and roll are the other two in their order. All embeddings are
scaled to length 1, whatever length they have in the files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import TURN_ANGLES, Pairs, Part, persons

PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)  # tried in this order
FOLDS = 3  # of training people, to choose among them

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A fitted regression."""

    penalty: float
    weights: Matrix  # [6F, F]
    turn_column: int  # of a pose, with the head turn

    def predict(self, data: FaceData, part: Part) -> Matrix:
        """Predict the frontal embedding of each pair of a part, [pairs, F], unit length."""
        video = data.parts[part][:, 1]
        return self.predict_views(data.video_features[video], data.poses[video])

    def predict_views(self, embeddings: NDArray[np.float32], poses: Matrix) -> Matrix:
        """Predict from embeddings of any length, [n, F], and poses in degrees, [n, 3]: [n, F], unit length."""
        view = _unit(embeddings)
        return _unit(view + _turned(view, poses, self.turn_column) @ self.weights)

    def cosines(self, data: FaceData, part: Part) -> Matrix:
        """Return the cosine of prediction and frontal embedding of each pair of a part, [pairs], in [-1, 1]."""
        _, front = _embeddings(data, data.parts[part])
        return _products(self.predict(data, part), front)


def fit(data: FaceData, penalty: float | None = None) -> Ridge:
    """Fit on the training people; without `penalty`, cross-validation over them chooses it.

    Float64. About 0.1 s for F = 128, some seconds of a few cores for F = 512 and 10,000 pairs.
    """
    penalty = choose_penalty(data) if penalty is None else penalty
    pairs = data.parts["train"]
    view, front = _embeddings(data, pairs)
    weights = _System(_columns(data, pairs), front - view).solve(penalty)
    return Ridge(penalty, weights, TURN_ANGLES.index(data.turn_angle))


def choose_penalty(data: FaceData) -> float:
    """Return the best of PENALTIES: the highest mean cosine on training people left out, each of FOLDS in turn.

    The search goes from the strongest penalty on until the cosine falls, which it does on both sides of the best. Every
    third person, in the order of the files, is in the same fold. A single person leaves no one to validate on, and gets
    the strongest penalty.
    """
    pairs = data.parts["train"]
    fold = persons(pairs) % FOLDS
    columns, (view, front) = _columns(data, pairs), _embeddings(data, pairs)
    folds = [fold == each for each in sorted(set(fold.tolist()))]
    if len(folds) < 2:
        return PENALTIES[0]
    systems = [_System(columns[~left_out], (front - view)[~left_out]) for left_out in folds]
    best, highest = PENALTIES[0], -np.inf
    for penalty in PENALTIES:
        cosines = [
            _cosines(view[left_out] + columns[left_out] @ system.solve(penalty), front[left_out])
            for left_out, system in zip(folds, systems, strict=True)
        ]
        mean = float(np.concatenate(cosines).mean())
        if mean < highest:
            break
        best, highest = penalty, mean
    return best


class _System:
    """The equations of one fit: the normal ones, or their dual if there are fewer pairs than columns."""

    def __init__(self, columns: Matrix, target: Matrix) -> None:
        pairs, width = columns.shape
        self._dual = columns if pairs < width else None
        self._gram = columns @ columns.T if pairs < width else columns.T @ columns
        self._right = target if pairs < width else columns.T @ target

    def solve(self, penalty: float) -> Matrix:
        """Solve for the weights, [columns, F]."""
        system = self._gram + penalty * np.eye(len(self._gram))
        solved = np.linalg.solve(system, self._right).astype(np.float64, copy=False)
        return solved if self._dual is None else self._dual.T @ solved


def _columns(data: FaceData, pairs: Pairs) -> Matrix:
    """Build X, [pairs, 6F]."""
    view, _ = _embeddings(data, pairs)
    return _turned(view, data.poses[pairs[:, 1]], TURN_ANGLES.index(data.turn_angle))


def _turned(view: Matrix, poses: Matrix, turn_column: int) -> Matrix:
    """Build the columns of unit embeddings, [n, F], with poses in degrees, [n, 3]: [n, 6F]."""
    yaw = np.deg2rad(poses[:, turn_column])
    pitch, roll = np.deg2rad(np.delete(poses, turn_column, axis=1)).T
    turned = (np.ones_like(yaw), np.sin(yaw), 1 - np.cos(yaw), np.sin(pitch), np.sin(roll), np.abs(np.sin(yaw)))
    return np.concatenate([each[:, None] * view for each in turned], axis=1)


def _embeddings(data: FaceData, pairs: Pairs) -> tuple[Matrix, Matrix]:
    """Return E and Y, [pairs, F] each."""
    front, video = pairs.T
    return _unit(data.video_features[video]), _unit(data.front_features[front])


def _unit(features: NDArray[np.float32] | Matrix) -> Matrix:
    wide = np.asarray(features, dtype=np.float64)
    length: Matrix = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return wide / length


def _cosines(prediction: Matrix, front: Matrix) -> Matrix:
    return _products(_unit(prediction), front)


def _products(prediction: Matrix, front: Matrix) -> Matrix:
    products: Matrix = np.einsum("ij,ij->i", prediction, front)
    return products
