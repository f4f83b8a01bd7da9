"""The blend of a prediction: a baseline and its weight, from the folder of an ensemble or from training data."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import CheckpointError, ConfigError
from face3d_tune.refit.baselines import NAMES, Blended, fit_one
from face3d_tune.refit.ensemble_folder import ABOUT
from face3d_tune.refit.judge import predictions, require_fit
from face3d_tune.training import baseline_file, ensemble
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.prediction_file import Blend, Member
from face3d_tune.training.predictor import Predictor

_INSTEAD = "give the training data with --data-dir"
_THOSE = "give those of its training with --data-dir, --split, --min-yaw and --max-yaw, or a --weight"
_AGAIN = f"run the same training again, or {_INSTEAD}"


def of_folder(folder: Path, kind: Blended, members: Sequence[Member], weight: float | None) -> Blend:
    """Read the blend that `train --seeds` left in its folder; `weight` replaces the stored one.

    Raises CheckpointError if the folder has other members or another baseline than it had then.
    """
    about = _read(folder / ABOUT)
    try:
        held, known = about["baselines"][kind], [each["sha256"] for each in about["members"]]
        path, stored = folder / held["file"], float(held["weight"])
        scale, data, people = about["landmark_scale"], about["data"], about["people"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / ABOUT} has no {error}", _INSTEAD) from error
    if sorted(known) != sorted(each.predictor.sha256 for each in members):
        raise CheckpointError(f"{folder} has other members than its {ABOUT} names", _AGAIN)
    baseline = baseline_file.load(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != held["sha256"]:
        raise CheckpointError(f"{path} is not the file that {ABOUT} names", _AGAIN)
    chosen = {"data": data, "people": people} if weight is None else None
    source = {"file": str(path), "sha256": digest, "data": data}
    return Blend(baseline, NAMES[kind], stored if weight is None else weight, scale, source, chosen)


def of_data(
    kind: Blended, members: Sequence[Member], data: FaceData, weight: float | None, device: torch.device
) -> Blend:
    """Fit the baseline on the training people of `data`; without `weight`, its validation people choose that.

    Raises:
        ConfigError: Members record other data, whose validation people may be among those they were trained on.
        CheckpointError: A member takes embeddings of another size, or predicts no direction for a view.
    """
    for each in members:
        require_fit(each.predictor, data)
        if weight is None:
            require_same(each.predictor, data, _THOSE)
    return fit_blend(kind, members, data, weight=weight, device=device)


def fit_blend(
    kind: Blended,
    members: Sequence[Member],
    data: FaceData,
    attrs: Mapping[str, Any] | None = None,
    *,
    weight: float | None = None,
    device: torch.device | None = None,
) -> Blend:
    """Fit the baseline on the training people; without `weight`, the validation people choose that.

    `attrs` are the user attributes of a study on these data: what it chose for its baselines is not chosen again.
    Raises CheckpointError if a model predicts no direction for a view.
    """
    fitted = fit_one(kind, data, attrs)
    trained_on, chosen = {"source": data.source, "fingerprint": data.fingerprint()}, None
    if weight is None:
        made = [predictions(each.predictor, data, "validation", each.unit) for each in members]
        weight = ensemble.choose_weight(made, fitted.predict(data, "validation"), data, device)
        chosen = {"data": trained_on, "people": len(data.people["validation"])}
    return Blend(Baseline(fitted), NAMES[kind], weight, data.landmark_scale, {"data": trained_on}, chosen)


def require_same(predictor: Predictor, data: FaceData, hint: str) -> None:
    """Raise ConfigError if a checkpoint records other data, whose validation people it may have been trained on."""
    recorded, own = predictor.data_fingerprint, data.fingerprint()
    if recorded not in (None, own):
        raise ConfigError(
            f"{predictor.path} was trained on other data, or another split or limits ({recorded}), than "
            f"{data.source} ({own}), whose people cannot choose the weight",
            hint,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", _INSTEAD) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} cannot be read: it holds no object", _INSTEAD)
    return content
