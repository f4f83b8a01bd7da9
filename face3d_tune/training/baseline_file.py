"""A fitted ridge or kernel ridge as one small `.npz`: what predicts without the training data, and without torch.

    format, kind       "face3d-tune baseline 1"; "ridge" or "kernel"
    ridge              penalty, weights [6F, F], turn_column
    kernel             landmarks, gamma, penalty, views, weights [centres, F], centre_embeddings [centres, F],
                       centre_angles [centres, 6], and with landmarks: centre_landmarks [centres, 15], mean [15],
                       scale [15], and `turns` [3, 3] or `reference` [5, 3] of its frame

The formulas stand in `ridge` and `kernel_ridge`, and the frames in `head_frames`.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face3d_tune.errors import CheckpointError
from face3d_tune.system import regular_file
from face3d_tune.system.whole_file import replacing
from face3d_tune.training import head_frames
from face3d_tune.training.head_frames import Frame
from face3d_tune.training.kernel_ridge import NO_LANDMARKS, Hyperparameters, KernelRidge, KernelRows, RowTransform
from face3d_tune.training.ridge import Ridge

FORMAT = "face3d-tune baseline 1"
LOSS = 1e-6  # of a number of a prediction, below which float32 is enough
_TABLES = ("weights", "centre_embeddings", "centre_landmarks", "centre_angles")
_LONGEST_COLUMNS = 3.0  # the greatest length of ridge's columns: √(1 + 1 + 4 + 1 + 1 + 1)

Kind = Literal["ridge", "kernel"]
Fitted: TypeAlias = Ridge | KernelRidge
Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A fitted ridge or kernel ridge that predicts from rows of any files."""

    fitted: Fitted

    @property
    def kind(self) -> Kind:
        """Return the name of the method."""
        return "ridge" if isinstance(self.fitted, Ridge) else "kernel"

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return int(self.fitted.weights.shape[1])

    @property
    def needs_landmarks(self) -> bool:
        """Tell whether `predict` reads the landmarks."""
        return isinstance(self.fitted, KernelRidge) and self.fitted.inputs.frame is not None

    def predict(
        self,
        view_embeddings: NDArray[np.float32],
        landmarks: NDArray[np.float32] | None,
        poses: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Predict frontal embeddings of unit length, [n, F], in float64.

        Args:
            view_embeddings: Of any length, [n, F].
            landmarks: As a training reads them, [n, 5, 3] (trainer contract §2); None unless `needs_landmarks`.
            poses: In degrees, [n, 3].
        """
        if isinstance(self.fitted, Ridge):
            return self.fitted.predict_views(view_embeddings, poses)
        return self.fitted.predict_views(view_embeddings, landmarks, poses)

    def arrays(self) -> Arrays:
        """Return its content by name, in float32 where no number of a prediction changes by LOSS."""
        wide = _arrays(self.fitted)
        narrow = {name: array.astype(np.float32) if name in _TABLES else array for name, array in wide.items()}
        return narrow if _loss(self.fitted, _fitted(narrow)) < LOSS else wide

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `arrays` gave. Raises ValueError or KeyError if something is missing or does not fit."""
        return cls(_fitted(arrays))


def save(path: Path, fitted: Fitted) -> None:
    """Write a file, so that a crash leaves the old one or the new one."""
    with replacing(path) as file:
        file.write(content(fitted))


def content(fitted: Fitted) -> bytes:
    """Return the content of a file."""
    arrays: dict[str, Any] = Baseline(fitted).arrays()
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def load(path: Path) -> Baseline:
    """Read a file, without running any code in it. Raises CheckpointError if it holds no such baseline."""
    try:
        read = regular_file.read_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", _HINT) from error
    try:
        if not zipfile.is_zipfile(io.BytesIO(read)):
            raise ValueError("it is no .npz file, or only a part of one")
        with np.load(io.BytesIO(read), allow_pickle=False) as file:
            return Baseline.of({name: file[name] for name in file.files})
    except Exception as error:  # numpy reads a damaged header as Python's source, which can raise anything
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise CheckpointError(f"{path} holds no baseline: {reason.splitlines()[0]}", _HINT) from error


_HINT = "give a baseline.npz that `face3d-tune data convert --inputs` wrote"


def _arrays(fitted: Fitted) -> Arrays:
    if isinstance(fitted, Ridge):
        values: dict[str, Any] = {"turn_column": fitted.turn_column, "penalty": fitted.penalty}
        return _named("ridge", values | {"weights": fitted.weights})
    choice, inputs, centres = fitted.choice, fitted.inputs, fitted.centres
    values = {"landmarks": choice.landmarks, "gamma": choice.gamma, "penalty": choice.penalty, "views": fitted.views}
    values |= {"centre_embeddings": centres.embeddings, "centre_angles": centres.angles, "weights": fitted.weights}
    if inputs.frame is not None:
        values |= {"centre_landmarks": centres.landmarks, "mean": inputs.mean, "scale": inputs.scale}
        if isinstance(inputs.frame, head_frames.TurnedBack):
            values |= {"turns": inputs.frame.turns}
        elif isinstance(inputs.frame, head_frames.Aligned):
            values |= {"reference": inputs.frame.reference}
    return _named("kernel", values)


def _named(kind: Kind, values: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in {"format": FORMAT, "kind": kind, **values}.items()}


def _fitted(arrays: Mapping[str, NDArray[Any]]) -> Fitted:
    if str(arrays["format"]) != FORMAT:
        raise ValueError(f"its format is {str(arrays['format'])[:60]!r}, expected {FORMAT!r}")
    read = _Reader(arrays)
    rows, size = read.table("weights", None, None).shape
    if (kind := str(arrays["kind"])) == "ridge":
        column = int(read.number("turn_column"))
        if column not in (0, 1, 2):
            raise ValueError(f"turn_column = {column}, expected 0, 1 or 2")
        return Ridge(read.number("penalty"), read.table("weights", 6 * size, size), column)
    if kind != "kernel":
        raise ValueError(f"its kind is {kind[:60]!r}, expected 'ridge' or 'kernel'")
    choice = Hyperparameters(str(arrays["landmarks"]), read.number("gamma"), read.number("penalty"))
    inputs, landmarks = RowTransform(None, np.zeros(0), np.zeros(0)), None
    if choice.landmarks != NO_LANDMARKS:
        inputs = RowTransform(read.frame(choice.landmarks), read.table("mean", 15), read.table("scale", 15))
        landmarks = read.table("centre_landmarks", rows, 15)
    centres = KernelRows(read.table("centre_embeddings", rows, size), landmarks, read.table("centre_angles", rows, 6))
    return KernelRidge(choice, int(read.number("views")), inputs, centres, read.table("weights", rows, size))


class _Reader:
    """The content of a file, checked as it is read. Raises KeyError or ValueError."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def table(self, name: str, *shape: int | None) -> NDArray[np.float64]:
        array = np.asarray(self._arrays[name])
        fits = len(array.shape) == len(shape) and all(
            size > 0 if wanted is None else size == wanted for size, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype.kind not in "fi":
            raise ValueError(f"{name} does not fit: it has shape {list(array.shape)} and dtype {array.dtype}")
        wide: NDArray[np.float64] = array.astype(np.float64)
        if not np.isfinite(wide).all():
            raise ValueError(f"{name} holds values that are not finite")
        return wide

    def number(self, name: str) -> float:
        return float(self.table(name))

    def frame(self, name: str) -> Frame:
        if name == head_frames.AS_THEY_ARE:
            return head_frames.AsTheyAre()
        if name == head_frames.ALIGNED:
            return head_frames.Aligned(self.table("reference", 5, 3))
        if name != head_frames.TURNED_BACK:
            raise ValueError(f"its landmarks are {name[:60]!r}, which this version does not know")
        turns = self.table("turns", 3, 3).astype(int)
        if not (np.isin(turns[:, :2], (0, 1, 2)).all() and np.isin(turns[:, 2], (-1, 1)).all()):
            raise ValueError(f"turns = {turns.tolist()} are no turns")
        return head_frames.TurnedBack(tuple((column, axis, sign) for column, axis, sign in turns.tolist()))


def _loss(fitted: Fitted, rounded: Fitted) -> float:
    """Return how far a number of a prediction moves: for ridge at most, for kernel ridge at its own centres."""
    if isinstance(fitted, Ridge) or isinstance(rounded, Ridge):
        columns = np.linalg.norm(fitted.weights - rounded.weights, axis=0)
        return float(_LONGEST_COLUMNS * columns.max())
    return float(np.abs(fitted.predict_at(fitted.centres) - rounded.predict_at(fitted.centres)).max())
