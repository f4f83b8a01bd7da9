"""The line to pass: kernel ridge regression from a view's embedding, landmarks and pose to the frontal embedding.

The prediction is e + Σ k(view, c)·w_c over views c of training people, its centres, with the kernel

    k = [exp(−γ‖e − e'‖²) + exp(−‖l − l'‖² / 8·15)] · [0.2 + exp(−2‖p − p'‖²)]

e is the embedding at unit length. l holds the 15 numbers of the landmarks in a frame of the head (`head_frames`), each
with mean 0 and variance 1 over training views. p holds sine and cosine of the three angles: near 0 their distance is
that of the angles in radians, and +180° and −180° are the same angle. The weights solve ridge regression with penalty λ
in the space of the kernel (Saunders, Gammerman & Vovk, 1998). With fewer centres than views that space is the one that
the centres span (Nyström: Williams & Seeger, 2001).

Cross-validation over training people chooses λ, γ, and the frame of the landmarks, or to omit them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Pairs, Part, persons
from face3d_tune.training.head_frames import Frame, frames

NO_LANDMARKS = "none"
PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
GAMMAS = (0.25, 0.5, 1.0, 2.0, 4.0)
FOLDS = 3  # of training people, to choose among them
CENTRES = 2000  # at most, spread evenly over people and turn; every training view, if there are no more
CENTRES_TO_CHOOSE = 1000  # at most, in cross-validation: fewer would favour a kernel smoother than CENTRES need
PAIRS_TO_CHOOSE = 6000  # at most, for all but λ: it grows with the views of a person, so all pairs choose it

_LANDMARK_WIDTH = 8.0 * 15
_ANGLE_SHARE, _ANGLE_WIDTH = 0.2, 0.5
_JITTER = 1e-8  # on the diagonal of a kernel matrix, whose smallest eigenvalue is 0 if two centres are equal
_CONSTANT = 1e-6  # a number of the landmarks is constant if it deviates by less than this share of the largest
_ROWS = 2000  # of a kernel matrix at a time

Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The parameters that cross-validation chooses: enough to fit again without it."""

    landmarks: str  # the name of a frame, or NO_LANDMARKS
    gamma: float
    penalty: float

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Read a choice from what a study stores; other keys are ignored."""
        return cls(stored["landmarks"], stored["gamma"], stored["penalty"])


_choices: WeakKeyDictionary[FaceData, Hyperparameters] = WeakKeyDictionary()  # of fits, as long as their data live

START = Hyperparameters(NO_LANDMARKS, 0.5, 3.0)


@dataclass(frozen=True, slots=True, eq=False)
class KernelRidge:
    """A fitted regression."""

    choice: Hyperparameters
    views: int  # of training people
    inputs: "RowTransform"
    centres: "KernelRows"
    weights: Matrix  # [centres, F]

    def predict(self, data: FaceData, part: Part) -> Matrix:
        """Predict the frontal embedding of each pair of a part, [pairs, F], unit length."""
        video = data.parts[part][:, 1]
        return self.predict_views(data.video_features[video], data.landmarks[video], data.poses[video])

    def predict_views(
        self, embeddings: NDArray[np.float32], landmarks: NDArray[np.float32] | None, poses: Matrix
    ) -> Matrix:
        """Predict from embeddings of any length, [n, F], landmarks, [n, 5, 3], and poses in degrees, [n, 3].

        Returns [n, F], unit length. The landmarks may be None if the choice omits them.
        """
        return self.predict_at(self.inputs.of(embeddings, landmarks, poses))

    def predict_at(self, views: "KernelRows") -> Matrix:
        """Predict from the inputs of the kernel, [n, F], unit length."""
        return _unit(views.embeddings + _kernel(views, self.centres, self.choice.gamma, self.weights))

    def cosines(self, data: FaceData, part: Part) -> Matrix:
        """Return the cosine of prediction and frontal embedding of each pair of a part, [pairs], in [-1, 1]."""
        return _products(self.predict(data, part), _front(data, data.parts[part]))


def fit(data: FaceData, choice: Hyperparameters | None = None) -> KernelRidge:
    """Fit on the training people; without `choice`, cross-validation over them chooses.

    Float64; no random numbers. Times and memory stand in docs/measured.md.
    """
    if choice is None:
        choice = _choices[data] if data in _choices else _choices.setdefault(data, choose(data))
    pairs, gamma = data.parts["train"], choice.gamma
    inputs = _inputs(data, None if choice.landmarks == NO_LANDMARKS else frames(data)[choice.landmarks])
    views = len(np.unique(pairs[:, 1]))
    if len(pairs) <= CENTRES:
        centres = inputs.of_rows(data, pairs[:, 1])
        weights = _solve(_kernel(centres, centres, gamma), choice.penalty, _front(data, pairs) - centres.embeddings)
        return KernelRidge(choice, views, inputs, centres, weights)
    centres, whitening = _space(data, inputs, pairs[_spread(data, pairs, CENTRES)], gamma)
    gram, right = np.zeros((len(whitening), len(whitening))), np.zeros((len(whitening), data.feature_size))
    for begin in range(0, len(pairs), _ROWS):
        some = pairs[begin : begin + _ROWS]
        each = inputs.of_rows(data, some[:, 1])
        features = _kernel(each, centres, gamma, whitening)
        gram += features.T @ features
        right += features.T @ (_front(data, some) - each.embeddings)
    return KernelRidge(choice, views, inputs, centres, whitening @ _solve(gram, choice.penalty, right))


def choose(data: FaceData) -> Hyperparameters:
    """Return the choice with the highest mean cosine on training people left out, each of FOLDS in turn.

    λ is chosen without landmarks, then the landmarks, γ, and λ again. Every third person, in the order of the files, is
    in the same fold. A single person leaves no one to validate on, and gets no landmarks and the strongest penalty.
    """
    pairs = data.parts["train"]
    fold = persons(pairs) % FOLDS
    if len(np.unique(fold)) < 2:
        return replace(START, penalty=PENALTIES[0])
    by_name: dict[str, Frame | None] = {NO_LANDMARKS: None}
    if np.ptp(data.landmarks[pairs[:, 1]], axis=0).any():
        by_name |= frames(data)
    inputs = {name: _inputs(data, frame) for name, frame in by_name.items()}
    some = _spread(data, pairs, PAIRS_TO_CHOOSE)

    @cache
    def folds(landmarks: str, gamma: float) -> _Folds:
        return _Folds(data, inputs[landmarks], pairs[some], fold[some], gamma)

    @cache
    def score(choice: Hyperparameters) -> float:
        return folds(choice.landmarks, choice.gamma).cosine(choice.penalty)

    def with_best_penalty(choice: Hyperparameters) -> Hyperparameters:
        return replace(
            choice, penalty=_climb(PENALTIES, choice.penalty, lambda each: score(replace(choice, penalty=each)))
        )

    start = with_best_penalty(START)
    best = max((replace(start, landmarks=name) for name in inputs), key=score)
    best = replace(best, gamma=_climb(GAMMAS, best.gamma, lambda gamma: score(replace(best, gamma=gamma))))
    if len(some) == len(pairs):
        return with_best_penalty(best)
    every = _Folds(data, inputs[best.landmarks], pairs, fold, best.gamma)
    return replace(best, penalty=_climb(PENALTIES, best.penalty, every.cosine))


def _climb(options: Sequence[float], start: float, score: Callable[[float], float]) -> float:
    """Return the option with the highest score: from `start` on in both directions, as long as the score rises."""
    begin, best, highest = options.index(start), start, score(start)
    for way in (options[begin + 1 :], options[:begin][::-1]):
        for option in way:
            value = score(option)
            if value <= highest:
                break
            best, highest = option, value
    return best


@dataclass(frozen=True, slots=True, eq=False)
class KernelRows:
    """The inputs of the kernel, [n, …] each, scaled so that squared distances are its exponents, except for γ."""

    embeddings: Matrix  # of length 1
    landmarks: Matrix | None
    angles: Matrix

    def part(self, rows: slice) -> "KernelRows":
        """Return some of the rows."""
        landmarks = None if self.landmarks is None else self.landmarks[rows]
        return KernelRows(self.embeddings[rows], landmarks, self.angles[rows])


@dataclass(frozen=True, slots=True, eq=False)
class RowTransform:
    """The transformation from rows of the files to `KernelRows`, fitted to training views."""

    frame: Frame | None  # None: no landmarks
    mean: Matrix  # [15], as the next
    scale: Matrix

    def of(self, embeddings: NDArray[np.float32], landmarks: NDArray[np.float32] | None, poses: Matrix) -> KernelRows:
        """Transform embeddings of any length, landmarks and poses in degrees."""
        radians = np.deg2rad(poses)
        angles = np.concatenate((np.sin(radians), np.cos(radians)), axis=1) / np.sqrt(_ANGLE_WIDTH)
        scaled = None
        if self.frame is not None:
            if landmarks is None:
                raise ValueError("this kernel ridge needs landmarks")
            scaled = (_framed(self.frame, landmarks, poses) - self.mean) * self.scale
        return KernelRows(_unit(embeddings), scaled, angles)

    def of_rows(self, data: FaceData, rows: Rows) -> KernelRows:
        """Transform rows of the video files."""
        return self.of(data.video_features[rows], data.landmarks[rows], data.poses[rows])


def _inputs(data: FaceData, frame: Frame | None) -> RowTransform:
    """Take mean and scale of the landmarks from the training views."""
    if frame is None:
        return RowTransform(None, np.zeros(0), np.zeros(0))
    views = np.unique(data.parts["train"][:, 1])
    points = _framed(frame, data.landmarks[views], data.poses[views])
    deviation = points.std(axis=0)
    varies = deviation > _CONSTANT * np.abs(points).max()
    scale = np.where(varies, 1 / np.sqrt(_LANDMARK_WIDTH) / np.where(varies, deviation, 1), 0)
    return RowTransform(frame, points.mean(axis=0), scale)


def _framed(frame: Frame, landmarks: NDArray[np.float32], poses: Matrix) -> Matrix:
    return frame(landmarks.astype(np.float64), poses).reshape(len(landmarks), 15)


class _Folds:
    """Ridge regression over the features of a few centres, each fold left out in turn."""

    def __init__(self, data: FaceData, inputs: RowTransform, pairs: Pairs, fold: Rows, gamma: float) -> None:
        centres, whitening = _space(data, inputs, pairs[_spread(data, pairs, CENTRES_TO_CHOOSE)], gamma)
        self._parts = []
        for each in np.unique(fold).tolist():
            views, front = inputs.of_rows(data, pairs[fold == each, 1]), _front(data, pairs[fold == each])
            features = _kernel(views, centres, gamma, whitening)
            gram, right = features.T @ features, features.T @ (front - views.embeddings)
            self._parts.append((features, views.embeddings, front, gram, right))
        self._gram, self._right = (reduce(np.add, [part[place] for part in self._parts]) for place in (3, 4))

    def cosine(self, penalty: float) -> float:
        """Return the mean over all pairs, each predicted from the other folds."""
        cosines = []
        for features, view, front, gram, right in self._parts:
            weights = _solve(self._gram - gram, penalty, self._right - right)
            cosines.append(_products(_unit(view + features @ weights), front))
        return float(np.concatenate(cosines).mean())


def _space(data: FaceData, inputs: RowTransform, pairs: Pairs, gamma: float) -> tuple[KernelRows, Matrix]:
    """Return the views of these pairs as centres, and W: rows of K[·, centres] · W have inner products K."""
    centres = inputs.of_rows(data, np.unique(pairs[:, 1]))
    among = _kernel(centres, centres, gamma)
    among[np.diag_indices_from(among)] += _JITTER
    return centres, np.linalg.inv(np.linalg.cholesky(among)).T


def _solve(gram: Matrix, penalty: float, right: Matrix) -> Matrix:
    system = gram + penalty * np.eye(len(gram))
    return np.linalg.solve(system, right).astype(np.float64, copy=False)


def _kernel(views: KernelRows, centres: KernelRows, gamma: float, weights: Matrix | None = None) -> Matrix:
    """Return the kernel of every view with every centre, [views, centres], or that times `weights`."""
    width = len(centres.angles) if weights is None else weights.shape[1]
    product = np.empty((len(views.angles), width))
    for begin in range(0, len(product), _ROWS):
        rows = slice(begin, begin + _ROWS)
        some = views.part(rows)
        kernel = _similar(some.embeddings, centres.embeddings, gamma)
        if some.landmarks is not None and centres.landmarks is not None:
            kernel += _similar(some.landmarks, centres.landmarks, 1)
        kernel *= _ANGLE_SHARE + _similar(some.angles, centres.angles, 1)
        product[rows] = kernel if weights is None else kernel @ weights
    return product


def _similar(one: Matrix, other: Matrix, gamma: float) -> Matrix:
    """Return exp(−γ‖a − b‖²) of all rows, [n, m]."""
    exponents: Matrix = one @ (2 * gamma * other.T)
    exponents -= gamma * _products(one, one)[:, None]
    exponents -= gamma * _products(other, other)
    np.minimum(exponents, 0, out=exponents)
    np.exp(exponents, out=exponents)
    return exponents


def _spread(data: FaceData, pairs: Pairs, most: int) -> Rows:
    """Return the indices of at most `most` pairs, spread evenly over people and the turns of each."""
    if len(pairs) <= most:
        return np.arange(len(pairs))
    ordered = np.lexsort((data.yaw[pairs[:, 1]], persons(pairs)))
    return ordered[np.linspace(0, len(pairs) - 1, most).round().astype(np.int64)]


def _front(data: FaceData, pairs: Pairs) -> Matrix:
    return _unit(data.front_features[pairs[:, 0]])


def _unit(features: NDArray[np.float32] | Matrix) -> Matrix:
    wide = np.asarray(features, dtype=np.float64)
    length: Matrix = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return wide / length


def _products(one: Matrix, other: Matrix) -> Matrix:
    products: Matrix = np.einsum("ij,ij->i", one, other)
    return products
