"""The model of a checkpoint, ready to predict frontal embeddings (trainer contract §3 and §4).

Names and shapes of the weights say which model it is. The checkpoint's `args` say the rest, as far as it has any: ours
record the unit of the poses and the scale of the landmarks, those of scripts do not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from face3d_tune.config import InputsName, Layout, PoseUnit, TrialConfig
from face3d_tune.errors import CheckpointError, TrainingError
from face3d_tune.training import checkpoint_file, weights
from face3d_tune.training.base import EVALUATION_BATCH, in_unit
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.inputs import BASELINE, of_state, transform
from face3d_tune.training.model import Model

_FILE = "give a best_model.pth of `face3d-tune train`, of a search or of your script"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictor:
    """A model in evaluation, and what its checkpoint says of its training; unknown values are None."""

    path: Path
    sha256: str  # of the file
    model: Model
    feature_size: int  # numbers per embedding
    args: Mapping[str, Any]  # plain values; empty in a file of weights alone
    epoch: int | None  # as the file counts it
    baseline: Baseline | None = None  # whose outputs the model gets; None: raw views

    @property
    def layout(self) -> Layout:
        """Return the layout of the model, as the weights show it."""
        return self.model.config.layout

    @property
    def inputs(self) -> InputsName:
        """Return what the model gets in place of the view's embedding."""
        return "view" if self.baseline is None else self.baseline.kind

    @property
    def needs_landmarks(self) -> bool:
        """Tell whether a prediction depends on the landmarks."""
        return self.layout == "keypoint" or (self.baseline is not None and self.baseline.needs_landmarks)

    @property
    def pose_unit(self) -> PoseUnit | None:
        """Return the unit of the poses in training, if the checkpoint records it."""
        unit: PoseUnit | None = self.args.get("pose_unit")
        return unit if unit in get_args(PoseUnit) else None

    @property
    def landmark_scale(self) -> float | None:
        """Return the factor of the landmarks in training, if the checkpoint records it."""
        return checkpoint_file.number(self.args.get("landmark_scale"))

    @property
    def data_dir(self) -> str | None:
        """Return the folder of the data that it was trained on, as the training named it; None if unrecorded."""
        folder = self.args.get("data_dir")
        return folder if isinstance(folder, str) else None

    @property
    def data_fingerprint(self) -> str | None:
        """Return the fingerprint of the data that it was trained on, if the checkpoint records it."""
        fingerprint = self.args.get("data_fingerprint")
        return fingerprint if isinstance(fingerprint, str) else None

    @property
    def config(self) -> dict[str, Any]:
        """Return the parameters of the training: what the weights show, and the other known flags of `args`."""
        model = self.model.config.to_dict()
        values = {field.name: self.args[field.name] for field in fields(TrialConfig) if field.name in self.args}
        return values | {name: model[name] for name in weights.SHOWN}

    def predict(
        self,
        src: NDArray[np.float32],
        landmarks: NDArray[np.float32] | None,
        degrees: NDArray[np.float64],
        unit: PoseUnit,
    ) -> NDArray[np.float32]:
        """Predict frontal embeddings of unit length, [B, F], on the model's device, in float32.

        Args:
            src: Side-view embeddings, [B, F]; the model may get a baseline's output in their place.
            landmarks: Five 3D points, centred and scaled, [B, 5, 3]; None unless `needs_landmarks`.
            degrees: Poses in degrees, [B, 3].
            unit: Of the poses at the model's input.

        Returns:
            NaN in a row whose prediction has no direction.
        """
        if self.baseline is not None:
            src = transform(self.baseline, src, landmarks, degrees)
        device = self.model.output_projection.weight.device
        points = np.zeros((len(src), 5, 3), np.float32) if landmarks is None else landmarks
        with torch.no_grad():
            predicted = self.model(
                torch.from_numpy(src).to(device), torch.from_numpy(points).to(device), in_unit(unit, degrees).to(device)
            )
            wide = predicted.cpu().double()  # on the CPU: not every device has float64
            rows: NDArray[np.float32] = (wide / wide.norm(dim=-1, keepdim=True)).float().numpy()
        return rows

    def predict_all(
        self,
        src: NDArray[np.float32],
        landmarks: NDArray[np.float32],
        degrees: NDArray[np.float64],
        unit: PoseUnit,
        rows: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Return what `predict` gives for some rows of larger arrays, [rows, F], in batches."""
        pieces = [rows[first : first + EVALUATION_BATCH] for first in range(0, len(rows), EVALUATION_BATCH)]
        return np.concatenate([self.predict(src[piece], landmarks[piece], degrees[piece], unit) for piece in pieces])


class FromViews(nn.Module):
    """A model that gets a baseline's outputs, with that baseline before it: it takes raw views, as every other model.

    `unit` is that of the poses at the model's input.
    """

    def __init__(self, model: Model, baseline: Baseline, unit: PoseUnit) -> None:
        super().__init__()
        self.model, self.baseline, self.unit = model, baseline, unit

    def forward(self, src: Tensor, landmarks: Tensor, pose: Tensor) -> Tensor:
        """Predict as `Model.forward`, [B, F]; no gradient reaches the baseline."""
        degrees = pose.detach().cpu().double()
        degrees = degrees.rad2deg() if self.unit == "radians" else degrees
        views, points = (each.detach().cpu().numpy() for each in (src, landmarks))
        seen = torch.from_numpy(transform(self.baseline, views, points, degrees.numpy()))
        predicted: Tensor = self.model(seen.to(src), landmarks, pose)
        return predicted


def read(path: Path, device: torch.device, baseline: Baseline | None = None) -> Predictor:
    """Read the model of a checkpoint, without running any code in it. Raises CheckpointError.

    `baseline` is for a checkpoint that holds none, as those of scripts: the model gets its outputs.
    """
    try:
        checkpoint = checkpoint_file.load(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (TrainingError, OSError) as error:
        raise CheckpointError(str(error), _FILE) from error
    state = weights.find(checkpoint)
    if state is None:
        raise CheckpointError(f"{path} holds no weights of a model; it holds {_names(checkpoint)}", _FILE)
    shape = weights.structure(state)
    if not shape:
        raise CheckpointError(f"{path} holds another model: its weights are named {_names(state)} …", _FILE)
    feature_size = shape.pop("feature_size")
    if shape["layout"] == "pose":
        shape["use_spatial_attention"] = False  # this layout has no such part: its weights are reported below
    # Heads leave no trace in weights. Attention over a single token gives the same with any number of them.
    config = TrialConfig(**shape, nhead=1)
    if differences := weights.differences(state, config, feature_size):
        raise CheckpointError(f"{path} holds another model: {'; '.join(differences)}", _FILE)
    if not all(bool(torch.isfinite(weight).all()) for weight in state.values()):
        raise CheckpointError(f"{path}: its weights hold values that are not finite", "use another checkpoint")
    model = Model(config, feature_size, torch.Generator())
    model.load_state_dict(state)
    args = checkpoint_file.mapping(checkpoint.get("args")) or {}
    epoch = checkpoint.get("epoch")
    baseline = _baseline(path, checkpoint) or baseline
    if baseline is not None and baseline.feature_size != feature_size:
        raise CheckpointError(
            f"{path} takes {feature_size} numbers per embedding, its baseline gives {baseline.feature_size}",
            "give the baseline.npz of the folder that it was trained on",
        )
    inputs = args.get("inputs", "view")
    if baseline is None and inputs != "view":
        raise CheckpointError(
            f"{path} was trained with inputs = {checkpoint_file.plain(inputs)}, and holds no baseline",
            "give its baseline.npz with --baseline, or the checkpoint as it was written",
        )
    return Predictor(
        path=path,
        sha256=digest,
        model=model.to(device).eval(),
        feature_size=feature_size,
        args={str(name): checkpoint_file.plain(value) for name, value in args.items()},
        epoch=epoch if isinstance(epoch, int) else None,
        baseline=baseline,
    )


def _baseline(path: Path, checkpoint: Mapping[str, Any]) -> Baseline | None:
    """Return the baseline that a checkpoint holds."""
    state = checkpoint.get(BASELINE)
    return of_state(state, str(path)) if isinstance(state, Mapping) else None


def _names(content: Mapping[Any, Any]) -> str:
    """List the first names of a mapping."""
    return ", ".join(map(str, list(content)[:3])) or "nothing"
