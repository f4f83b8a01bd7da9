"""The embedding that a model gets in place of the raw view: the output of ridge or kernel ridge, at length 1.

The baseline is fitted to the training people of the data alone: of a fold, of a rotation, of the ordinary split.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from face3d_tune.config import InputsName, PoseUnit
from face3d_tune.data.convert import convert
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.errors import CheckpointError, DataError
from face3d_tune.training import baseline_file, kernel_ridge, ridge
from face3d_tune.training.baseline_file import Baseline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputData(FaceData):
    """Data whose `video_features` are a baseline's outputs; its people cannot be divided anew."""

    inputs: InputsName
    baseline: Baseline


BASELINE = "baseline"  # key of a checkpoint
BASELINE_FILE = "baseline.npz"  # in a converted folder

_seen: WeakKeyDictionary[FaceData, dict[InputsName, InputData]] = WeakKeyDictionary()


def seen(data: FaceData, inputs: InputsName) -> FaceData:
    """Return the data as a model with these inputs sees them; each baseline is fitted once, as long as `data` lives."""
    if isinstance(data, InputData):
        if data.inputs != inputs:
            raise ValueError(f"these data are for inputs = {data.inputs}, not {inputs}")
        return data
    if inputs == "view":
        return data
    found = _seen.setdefault(data, {})
    if inputs not in found:
        found[inputs] = _fitted(data, inputs)
    return found[inputs]


def write_copy(
    source: Path, out: Path, inputs: InputsName, *, unit: PoseUnit | None = None, **selection: Any
) -> PoseUnit:
    """Copy the six files to `out` with these inputs in place of the views' embeddings, and BASELINE_FILE beside them.

    The poses get the unit `unit`; None: they stay. Returns the unit that they had. `selection` are the arguments of
    `load`: which people train, and on which views. Raises DataError; then nothing is written.
    """
    if inputs == "view":
        return convert(source, out, unit=unit)
    if (source / BASELINE_FILE).exists():
        raise DataError(
            f"{source} has a {BASELINE_FILE}: its embeddings are the outputs of a baseline already",
            "give the folder that it was converted from",
        )
    data = seen(load(source, **selection), inputs)
    baseline = baseline_of(data)
    assert baseline is not None
    features = io.BytesIO()
    np.save(features, data.video_features)
    written = {"video_feature.npy": features.getvalue(), BASELINE_FILE: baseline_file.content(baseline.fitted)}
    return convert(source, out, unit=unit, instead=written)


def transform(
    baseline: Baseline,
    embeddings: NDArray[np.float32],
    landmarks: NDArray[np.float32] | None,
    degrees: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return the inputs of a model for views of people that the baseline was not fitted to: [n, F], length 1."""
    return baseline.predict(embeddings, landmarks, degrees).astype(np.float32)


def baseline_of(data: FaceData) -> Baseline | None:
    """Return the baseline whose outputs the data hold; None if they hold raw views."""
    return data.baseline if isinstance(data, InputData) else None


def _fitted(data: FaceData, inputs: InputsName) -> InputData:
    baseline = Baseline(ridge.fit(data) if inputs == "ridge" else kernel_ridge.fit(data))
    features = transform(baseline, data.video_features, data.landmarks, data.poses)
    values = {field.name: getattr(data, field.name) for field in fields(FaceData)} | {"video_features": features}
    return InputData(**values, inputs=inputs, baseline=baseline)


def with_baseline(content: dict[str, Any], baseline: Baseline | None) -> dict[str, Any]:
    """Return the content of a checkpoint or snapshot with what prediction needs beside the weights, under `baseline`.

    The owners' loader reads other keys only.
    """
    return content if baseline is None else {**content, BASELINE: to_state(baseline)}


def to_state(baseline: Baseline) -> dict[str, Any]:
    """Return a baseline as tensors, numbers and words, for a checkpoint."""
    return {name: torch.from_numpy(array) if array.ndim else array.item() for name, array in baseline.arrays().items()}


def of_state(state: Mapping[str, Any], where: str) -> Baseline:
    """Read what `to_state` gave. Raises CheckpointError, which names `where` it stands."""
    try:
        return Baseline.of({name: np.asarray(value) for name, value in state.items()})
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise CheckpointError(f"{where} holds a damaged baseline: {reason}", "use another checkpoint") from error
