"""Frontal embeddings for side views, with numpy and torch alone; config.json says what this folder was made of.

On the command line:    python predict.py DATA_DIR -o frontal.npy
In a program:           from predict import Predictor
                        rows = Predictor().predict(embeddings, landmarks, degrees)
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
ROWS = 1024  # at a time; only memory depends on it

Array = NDArray[np.float64]


class InputError(Exception):
    """A file or a row that cannot be used; the message says what to do."""


class Predictor:
    """The members in a folder and their blend with a baseline. Raises InputError if one of its files is damaged."""

    def __init__(self, folder: str | Path = HERE, device: str = "cpu") -> None:
        folder, self.device = Path(folder), torch.device(device)
        self.config = _json(folder / "config.json")
        self.members: list[tuple[dict[str, Tensor], dict[str, Any], str]] = []  # weights, baseline, unit of the poses
        for about in self.config["members"]:
            file = torch.load(_intact(folder, about), map_location="cpu", weights_only=True)
            weights = {name: value.to(self.device) for name, value in file["model_state_dict"].items()}
            inputs = {name: np.asarray(value) for name, value in file.get("baseline", {}).items()}
            self.members.append((weights, inputs, about["pose_unit"]))
        self.blend: dict[str, Any] | None = self.config["blend"]
        self.blended = dict(np.load(_intact(folder, self.blend))) if self.blend else {}

    def predict(self, embeddings: Any, landmarks: Any, degrees: Any, out: Any = None) -> NDArray[np.float32]:
        """Predict frontal embeddings, [n, F], every row of length 1. Raises InputError for a row without direction.

        Args:
            embeddings: Of the side views, [n, F].
            landmarks: Five 3D points of each view as `scaled` gives them, or as in video_keypoints.npy, [n, 5, 3]. None
                is enough if `config["needs_landmarks"]` is false.
            degrees: Poses in the order of the data files, [n, 3].
            out: Array to write to, such as a file in np.memmap.
        """
        rows: NDArray[np.float32] = np.empty(embeddings.shape, np.float32) if out is None else out
        points = np.zeros((len(embeddings), 5, 3), np.float32) if landmarks is None else landmarks
        for first in range(0, len(embeddings), ROWS):
            some = slice(first, first + ROWS)
            rows[some] = self._predict(np.array(embeddings[some], np.float32), points[some], degrees[some])
            if len(bad := np.flatnonzero(~np.isfinite(rows[some]).all(axis=1))):
                raise InputError(f"row {first + bad[0]}: no direction can be predicted; check its numbers")
        return rows

    def scaled(self, landmarks: Array, scale: float | None = None) -> Array:
        """Centre landmarks_3d_original, [n, 5, 3], and multiply it by standard_scale, or by that of the training."""
        factor: float = self.config["landmark_scale"] if scale is None else scale
        return np.asarray((landmarks - landmarks.mean(axis=1, keepdims=True)) * factor)

    def _predict(self, view: NDArray[np.float32], landmarks: NDArray[np.float32], degrees: Array) -> Array:
        view[~view.any(axis=1)] = np.nan  # it has no direction
        points = landmarks.astype(np.float32)
        total = np.zeros(view.shape)
        for weights, inputs, pose_unit in self.members:
            source = baseline(inputs, view, points, degrees).astype(np.float32) if inputs else view
            pose = (np.deg2rad(degrees) if pose_unit == "radians" else degrees).astype(np.float32)
            given = [torch.from_numpy(each).to(self.device) for each in (source, points, pose)]
            total += unit(member(weights, *given).cpu().numpy()) / len(self.members)
        if self.blend:
            weight = self.blend["weight"]
            total = (1 - weight) * total + weight * baseline(self.blended, view, points, degrees)
        return unit(total)


@torch.no_grad()
def member(weights: Mapping[str, Tensor], source: Tensor, landmarks: Tensor, pose: Tensor) -> Tensor:
    """Run one Transformer: `source` [n, F], `landmarks` [n, 5, 3] and `pose` [n, 3] to [n, F].

    Its attention is over a single token, so every softmax is 1, and neither query nor key counts.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def two_layers(name: str, x: Tensor) -> Tensor:
        return linear(f"{name}.2", linear(f"{name}.0", x).relu())

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attention(name: str, memory: Tensor) -> Tensor:
        value = [weights[f"{name}.in_proj_{part}"].chunk(3)[2] for part in ("weight", "bias")]
        return linear(f"{name}.out_proj", functional.linear(memory, *value))

    x = linear("input_projection", source)
    if "spatial_fusion.keypoint_encoder.0.weight" in weights:
        code = two_layers("spatial_fusion.keypoint_encoder", landmarks[:, :, :2].flatten(1))
        gate = two_layers("spatial_fusion.attention_generator", torch.cat((x, code), dim=1)).sigmoid()
        x = (1 - gate) * x + gate * code
    if "pose_attention.pose_to_value.weight" in weights:
        x = x + linear("pose_attention.pose_to_value", pose)
    pose_code = two_layers("pose_encoder", pose)
    if "fusion_weights" in weights:  # the keypoint layout
        share, batch_norm = weights["fusion_weights"].softmax(0), "keypoint_encoder.1"
        mean, variance = weights[f"{batch_norm}.running_mean"], weights[f"{batch_norm}.running_var"]
        hidden = (linear("keypoint_encoder.0", landmarks.flatten(1)) - mean) / (variance + 1e-5).sqrt()
        hidden = (hidden * weights[f"{batch_norm}.weight"] + weights[f"{batch_norm}.bias"]).relu()
        x = share[0] * x + share[1] * linear("keypoint_encoder.4", hidden) + share[2] * pose_code
    else:
        x = 0.7 * x + 0.3 * pose_code
    x = x + weights["angle_pe.scale"] * linear("angle_pe.angle_projection", pose)
    scale, shift = (two_layers(f"angle_conditioned_norm.angle_to_{name}", pose) for name in ("scale", "shift"))
    x = norm("angle_conditioned_norm.layer_norm", x) * (1 + scale.sigmoid()) + shift
    memory = linear("angle_memory_projection", pose)
    for layer in range(sum(name.endswith(".linear1.weight") for name in weights)):
        of = f"transformer_decoder.layers.{layer}"
        x = norm(f"{of}.norm1", x + attention(f"{of}.self_attn", x))
        x = norm(f"{of}.norm2", x + attention(f"{of}.multihead_attn", memory))
        x = norm(f"{of}.norm3", x + linear(f"{of}.linear2", functional.gelu(linear(f"{of}.linear1", x))))
    return source + linear("output_projection", x)


def unit(rows: NDArray[Any]) -> Array:
    """Scale rows to length 1, in float64; a row of zeros becomes NaN."""
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def baseline(of: Mapping[str, Any], embeddings: NDArray[Any], landmarks: NDArray[Any], degrees: Array) -> Array:
    """Predict with ridge or kernel ridge, [n, F], every row of length 1; `of` is the content of its file."""
    view, radians = unit(embeddings), np.deg2rad(degrees)
    if str(of["kind"]) == "ridge":
        yaw, (pitch, roll) = radians[:, of["turn_column"]], np.delete(radians, of["turn_column"], axis=1).T
        turned = (np.ones_like(yaw), np.sin(yaw), 1 - np.cos(yaw), np.sin(pitch), np.sin(roll), np.abs(np.sin(yaw)))
        return unit(view + np.concatenate([each[:, None] * view for each in turned], axis=1) @ of["weights"])
    kernel = similar(view, of["centre_embeddings"], of["gamma"])
    if "centre_landmarks" in of:
        points = in_head_frame(of, landmarks.astype(np.float64), radians).reshape(len(view), 15)
        kernel += similar((points - of["mean"]) * of["scale"], of["centre_landmarks"])
    angles = np.concatenate((np.sin(radians), np.cos(radians)), axis=1) / np.sqrt(0.5)
    return unit(view + (kernel * (0.2 + similar(angles, of["centre_angles"]))) @ of["weights"])


def similar(rows: Array, centres: NDArray[Any], gamma: float = 1.0) -> Array:
    """Return exp(−γ‖a − b‖²) of all rows, [n, centres]."""
    other = centres.astype(np.float64)
    distance = (rows**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * rows @ other.T
    return np.asarray(np.exp(-gamma * np.maximum(distance, 0)))


def in_head_frame(of: Mapping[str, Any], landmarks: Array, radians: Array) -> Array:
    """Turn landmarks so that a face has about the same ones wherever it looks, [n, 5, 3]."""
    points = landmarks - landmarks.mean(axis=1, keepdims=True)
    if "reference" in of:  # onto the mean near-frontal face (Kabsch, 1976)
        left, _, right = np.linalg.svd(points.transpose(0, 2, 1) @ of["reference"])
        left[:, :, 2] *= np.linalg.det(left @ right)[:, None]  # a rotation, never a reflection
        return np.asarray(points @ (left @ right))
    for column, axis, sign in reversed(of["turns"].tolist() if "turns" in of else []):
        plane = [(axis + 1) % 3, (axis + 2) % 3]
        one, other = points[:, :, plane[0]], points[:, :, plane[1]]
        sine, cosine = sign * np.sin(radians[:, column, None]), np.cos(radians[:, column, None])
        points[:, :, plane] = np.stack((cosine * one - sine * other, sine * one + cosine * other), axis=2)
    return points if "turns" in of else landmarks


def read_views(folder: Path, predictor: Predictor) -> tuple[NDArray[Any], NDArray[Any] | None, Array]:
    """Read embeddings, landmarks and degrees of the side views in a data folder. Raises InputError."""
    path, front = folder / "video_metadata.json", folder / "front_metadata.json"
    features, metadata = _array(folder / "video_feature.npy", predictor.config["feature_size"]), _json(path)
    poses, landmarks = _table(metadata.get("poses"), (3,), f"{path}: poses"), None
    recorded, original = metadata.get("pose_unit"), metadata.get("landmarks_3d_original")
    if recorded is None and 0.1 < np.abs(poses).max(initial=0) <= 3.2:
        raise InputError(f'{path}: its poses look like radians; add "pose_unit": "radians" (or "degrees") to it')
    if predictor.config["needs_landmarks"] and original and all(original):
        scale = (_json(front).get("standard_info") or {}).get("standard_scale", 1.0) if front.exists() else None
        if scale is None and predictor.config["landmark_scale"] is None:
            raise InputError(f"{front} is missing; add it: its standard_scale is the scale of the landmarks")
        landmarks = predictor.scaled(_table(original, (5, 3), f"{path}: landmarks_3d_original"), scale)
    elif predictor.config["needs_landmarks"]:
        landmarks = _table(_array(folder / "video_keypoints.npy", 5, 3), (5, 3), "video_keypoints.npy")
    for name, table in (("poses", poses), ("landmarks", landmarks)):
        if table is not None and len(table) != len(features):
            raise InputError(f"{folder}: {len(table)} {name} for {len(features)} embeddings; give one for each")
    return features, landmarks, poses if recorded != "radians" else np.asarray(np.rad2deg(poses).round(12), np.float64)


def main() -> None:
    """Predict for a folder and write the file that the command line names."""
    parser = argparse.ArgumentParser(description="Predict frontal embeddings for a folder of side views.")
    parser.add_argument("folder", type=Path, metavar="DATA_DIR", help="folder with video_feature.npy and others")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.npy", help="file to write")
    parser.add_argument("--force", action="store_true", help="overwrite FILE.npy")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where the members run (default: cpu)")
    given = parser.parse_args()
    partial = given.out.with_name(given.out.name + ".partial")
    try:
        if given.out.exists() and not given.force:
            raise InputError(f"{given.out} exists already; name another file with -o, or overwrite it with --force")
        predictor = Predictor(device=_usable(given.device))
        features, landmarks, degrees = read_views(given.folder, predictor)
        out = np.lib.format.open_memmap(partial, "w+", np.dtype("<f4"), features.shape)
        predictor.predict(features, landmarks, degrees, out)
        rows, numbers = out.shape
        del out, features  # Windows renames no open file
        partial.replace(given.out)
    except (InputError, OSError) as error:
        partial.unlink(missing_ok=True)
        print(f"error: {_line(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"wrote {given.out}: {rows} rows of {numbers} numbers, each row of length 1")


def _line(error: InputError | OSError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}; correct its path or rights"
    return str(error)


def _usable(device: str) -> str:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device} cannot be used ({reason}); try --device cpu") from error
    return device


def _intact(folder: Path, about: Mapping[str, Any]) -> Path:
    path = folder / str(about["file"])
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise InputError(f"{path} is damaged; copy or export the folder again")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no JSON object ({error}); write it again") from error


def _array(path: Path, *shape: int) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")  # its rows are read when they are used
    except ValueError as error:
        raise InputError(f"{path} holds no array of numbers; write it again with numpy.save") from error
    if array.shape[1:] != shape or array.dtype.kind != "f":
        raise InputError(f"{path} has rows of {array.dtype} {array.shape[1:]}, expected floating-point {shape}")
    return array


def _table(values: Any, shape: tuple[int, ...], what: str) -> Array:
    try:
        table = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        table = np.full(1, np.nan)
    if table.shape[1:] != shape or not np.isfinite(table).all():
        raise InputError(f"{what}: expected {' x '.join(map(str, shape))} finite numbers in every row; correct them")
    return table


if __name__ == "__main__":
    main()
