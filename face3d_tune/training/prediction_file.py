"""Predicted frontal embeddings as a .npy file, and beside it a JSON that says what was made of what."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from face3d_tune import __version__
from face3d_tune.config import PoseUnit
from face3d_tune.data.views import FEATURES, Views
from face3d_tune.errors import CheckpointError, ConfigError, DataError
from face3d_tune.system.whole_file import replacing
from face3d_tune.training import ensemble
from face3d_tune.training.base import EVALUATION_BATCH
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.predictor import Predictor

VERSION = 1  # of the keys of the JSON


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A model, and the unit of the poses at its input."""

    predictor: Predictor
    unit: PoseUnit


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """A baseline that predicts beside the members, and its weight in [0, 1]."""

    baseline: Baseline
    name: str
    weight: float
    landmark_scale: float | None  # factor of landmarks_3d_original where it was fitted, if those were the landmarks
    fitted: Mapping[str, Any]  # on which data, and its file if it was read from one
    chosen: Mapping[str, Any] | None  # whose validation people chose the weight; None: it was given


def about_file(out: Path) -> Path:
    """Return the path of the JSON beside `out`."""
    return out.with_suffix(".json")


def check_fits(predictor: Predictor, views: Views) -> None:
    """Raise DataError unless the model takes embeddings of this size."""
    if views.feature_size != predictor.feature_size:
        raise DataError(
            f"{views.folder / FEATURES} has {views.feature_size} numbers per embedding, "
            f"the model of {predictor.path} takes {predictor.feature_size}",
            "give views of the network that the model was trained on",
        )


def write(
    members: Sequence[Member],
    views: Views,
    out: Path,
    *,
    blend: Blend | None = None,
    device: str,
    after_rows: Callable[[int], object],
) -> dict[str, Any]:
    """Predict every row of `views`, in their order, and write both files whole or not at all.

    Args:
        members: One model, or those of an ensemble.
        views: Rows that the members take.
        out: The .npy file, float32 [rows, feature size], every row of length 1.
        blend: A baseline that is blended with the members.
        device: The device of the model, in words.
        after_rows: Receives the number of rows predicted so far, after every batch.

    Returns:
        The content of the JSON.

    Raises:
        CheckpointError: The model predicts no direction for a row.
        ConfigError: The files cannot be written.
    """
    for each in members:
        check_fits(each.predictor, views)
    try:
        with replacing(out) as file, replacing(about_file(out)) as beside:
            digest = hashlib.sha256()
            _write_rows(members, blend, views, _Hashed(file, digest.update), after_rows)
            content = _about(members, blend, views, device)
            content["output"] |= {"file": out.name, "sha256": digest.hexdigest()}
            beside.write(json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}", "name another file with -o") from error
    return content


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO, update: Callable[[bytes], object]) -> None:
        self._file, self._update = file, update

    def write(self, data: bytes) -> int:
        self._update(data)
        return self._file.write(data)


def _write_rows(
    members: Sequence[Member], blend: Blend | None, views: Views, file: _Hashed, after_rows: Callable[[int], object]
) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(views), views.feature_size)}
    np.lib.format.write_array_header_1_0(file, header)
    for first in range(0, len(views), EVALUATION_BATCH):
        rows = slice(first, min(first + EVALUATION_BATCH, len(views)))
        file.write(_predicted(members, blend, views, rows).astype("<f4").tobytes())
        after_rows(rows.stop)


def _predicted(members: Sequence[Member], blend: Blend | None, views: Views, rows: slice) -> NDArray[Any]:
    """Predict some rows, unit length. Raises CheckpointError."""
    src, poses = views.rows(rows), views.poses[rows]
    landmarks = None if views.landmarks is None else views.landmarks[rows]
    predicted: list[NDArray[Any]] = []
    for each in members:
        predicted.append(each.predictor.predict(src, landmarks, poses, each.unit))
        _require_directions(str(each.predictor.path), predicted[-1], rows.start)
    if blend is None and len(predicted) == 1:
        return predicted[0]
    if blend is None:
        together = ensemble.average(predicted)
    else:
        together = ensemble.blend(predicted, blend.baseline.predict(src, landmarks, poses), blend.weight)
    _require_directions("the ensemble", together, rows.start)
    return together


def _require_directions(who: str, predicted: NDArray[Any], first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(predicted).all(axis=1))
    if len(bad):
        raise CheckpointError(
            f"{who} predicts no finite embedding for row {first + bad[0]} of {FEATURES}",
            "check the numbers of that row, or use another checkpoint",
        )


def _about(members: Sequence[Member], blend: Blend | None, views: Views, device: str) -> dict[str, Any]:
    """Return the content of the JSON but for what the output file adds; `checkpoint` of a model, else `checkpoints`."""
    models = [
        {
            "path": str(each.predictor.path),
            "sha256": each.predictor.sha256,
            "epoch": each.predictor.epoch,
            "layout": each.predictor.layout,
            "pose_unit": each.predictor.pose_unit,
            "inputs": each.predictor.inputs,
            "config": _json_safe(each.predictor.config),
        }
        for each in members
    ]
    inputs = [{"pose_unit": each.unit, "landmark_scale": views.landmark_scale} for each in members]
    content: dict[str, Any] = {
        "version": VERSION,
        "face3d_tune": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
    }
    if len(members) == 1:
        content |= {"checkpoint": models[0]}
    else:
        content |= {"checkpoints": [{**model, "model_input": own} for model, own in zip(models, inputs, strict=True)]}
    if blend is not None:
        content["blend"] = {
            "baseline": blend.name,
            "weight": blend.weight,
            "fitted": blend.fitted,
            "weight_chosen": blend.chosen,
        }
    content["input"] = {
        "folder": str(views.folder),
        "sha256": dict(views.sha256),
        "pose_unit": views.pose_unit,
        "landmarks": views.landmark_source,
    }
    if len(members) == 1:
        content["model_input"] = inputs[0]
    return content | {
        "output": {"rows": len(views), "feature_size": views.feature_size, "dtype": "float32", "length": 1}
    }


def _json_safe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep numbers and words as they are, and write anything else as text."""
    return {
        name: value if value is None or isinstance(value, bool | int | float | str) else str(value)
        for name, value in values.items()
    }
