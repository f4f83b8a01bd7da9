"""Predicted frontal embeddings as a .npy file, and beside it a JSON that says what was made of what."""

import hashlib
import json
from collections.abc import Callable, Mapping
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
from face3d_tune.training.base import EVALUATION_BATCH
from face3d_tune.training.predictor import Predictor

VERSION = 1  # of the keys of the JSON


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
    predictor: Predictor, views: Views, unit: PoseUnit, out: Path, *, device: str, after_rows: Callable[[int], object]
) -> dict[str, Any]:
    """Predict every row of `views`, in their order, and write both files whole or not at all.

    Args:
        predictor: The model.
        views: Rows that the model takes.
        unit: Of the poses at the model's input.
        out: The .npy file, float32 [rows, feature size], every row of length 1.
        device: The device of the model, in words.
        after_rows: Receives the number of rows predicted so far, after every batch.

    Returns:
        The content of the JSON.

    Raises:
        CheckpointError: The model predicts no direction for a row.
        ConfigError: The files cannot be written.
    """
    check_fits(predictor, views)
    try:
        with replacing(out) as file, replacing(about_file(out)) as beside:
            digest = hashlib.sha256()
            _write_rows(predictor, views, unit, _Hashed(file, digest.update), after_rows)
            content = _about(predictor, views, unit, device)
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
    predictor: Predictor, views: Views, unit: PoseUnit, file: _Hashed, after_rows: Callable[[int], object]
) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(views), views.feature_size)}
    np.lib.format.write_array_header_1_0(file, header)
    for first in range(0, len(views), EVALUATION_BATCH):
        rows = slice(first, min(first + EVALUATION_BATCH, len(views)))
        landmarks = None if views.landmarks is None else views.landmarks[rows]
        predicted = predictor.predict(views.rows(rows), landmarks, views.poses[rows], unit)
        _require_directions(predictor, predicted, first)
        file.write(predicted.astype("<f4").tobytes())
        after_rows(rows.stop)


def _require_directions(predictor: Predictor, predicted: NDArray[np.float32], first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(predicted).all(axis=1))
    if len(bad):
        raise CheckpointError(
            f"{predictor.path} predicts no finite embedding for row {first + bad[0]} of {FEATURES}",
            "check the numbers of that row, or use another checkpoint",
        )


def _about(predictor: Predictor, views: Views, unit: PoseUnit, device: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "face3d_tune": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "checkpoint": {
            "path": str(predictor.path),
            "sha256": predictor.sha256,
            "epoch": predictor.epoch,
            "layout": predictor.layout,
            "pose_unit": predictor.pose_unit,
            "config": _json_safe(predictor.config),
        },
        "input": {
            "folder": str(views.folder),
            "sha256": dict(views.sha256),
            "pose_unit": views.pose_unit,
            "landmarks": views.landmark_source,
        },
        "model_input": {"pose_unit": unit, "landmark_scale": views.landmark_scale},
        "output": {"rows": len(views), "feature_size": views.feature_size, "dtype": "float32", "length": 1},
    }


def _json_safe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep numbers and words as they are, and write anything else as text."""
    return {
        name: value if value is None or isinstance(value, bool | int | float | str) else str(value)
        for name, value in values.items()
    }
