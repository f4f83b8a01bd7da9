"""Small valid data folders for tests: a dozen invented people whose turned heads can be learned."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from face3d_tune.data.face_data import FaceData

NAMES = ("张伟", "Zoë", "محمد", "Ольга", 'O\'Brien, "Pat"')
FACE = np.array([[-3, 3, 0], [3, 3, 0], [0, 0, 2], [-2, -3, 0], [2, -3, 0]])  # eyes, nose, mouth corners


def write_data(folder: Path, *, people: int = 12, views: int = 6, feature_size: int = 16, seed: int = 0) -> Path:
    """Write the six files of trainer contract §2 into `folder` (made if need be) and return it.

    A view's embedding is the person's frontal one, mixed with a direction common to all by the sine of its yaw, plus
    a little noise: undoing that is learnable from embedding and pose. Yaw covers -75 to 75 degrees evenly.
    """
    random = np.random.default_rng(seed)
    front = unit(random.normal(size=(people, feature_size)))
    names = [NAMES[person] if person < len(NAMES) else f"person {person}" for person in range(people)]
    shape = FACE + random.normal(size=(people, 5, 3))

    rows = np.repeat(np.arange(people), views)
    poses = np.column_stack(
        (
            np.tile(np.linspace(-75, 75, views).round(3), people),
            random.uniform(-20, 20, len(rows)).round(3),
            random.uniform(-10, 10, len(rows)).round(3),
        )
    )
    sine = np.sin(np.deg2rad(poses[:, :1]))
    common = unit(random.normal(size=(1, feature_size)))
    video = unit(front[rows] + 1.5 * sine * common + 0.1 * random.normal(size=(len(rows), feature_size)))
    turned = shape[rows] * np.stack([np.sqrt(1 - sine**2), np.ones_like(sine), np.ones_like(sine)], axis=2)

    folder.mkdir(parents=True, exist_ok=True)
    _write_side(folder, "front", front, names, np.zeros((people, 3)), shape, {"standard_scale": 0.25})
    _write_side(folder, "video", video, [names[row] for row in rows], poses, turned, None)
    return folder


def with_more_fronts(data: FaceData) -> FaceData:
    """The same data with a second front row for every other person; that of the first equals the one before."""
    names = list(dict.fromkeys(data.front_names))[::2]
    first = [data.front_names.index(name) for name in names]
    noise = np.random.default_rng(3).normal(size=(len(names), data.feature_size)) * 0.2
    noise[0] = 0
    added = {row: len(data.front_names) + place for place, row in enumerate(first)}
    parts = {}
    for part, pairs in data.parts.items():
        again = np.array([(added[row], view) for row, view in pairs.tolist() if row in added], dtype=np.int64)
        parts[part] = np.concatenate((pairs, again.reshape(-1, 2)))
    more = (data.front_features[first] + noise).astype(np.float32)
    features = np.concatenate((data.front_features, more))
    return replace(data, front_features=features, front_names=(*data.front_names, *names), parts=parts)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _write_side(
    folder: Path,
    side: str,
    features: np.ndarray,
    names: list[str],
    poses: np.ndarray,
    landmarks: np.ndarray,
    standard_info: dict[str, float] | None,
) -> None:
    np.save(folder / f"{side}_feature.npy", features.astype(np.float32))
    keypoints = (landmarks - landmarks.mean(axis=1, keepdims=True)) / 4
    np.save(folder / f"{side}_keypoints.npy", keypoints.astype(np.float32))
    content = {
        "metadata": [{"person_name": name} for name in names],
        "poses": poses.tolist(),
        "landmarks_3d_original": landmarks.round(4).tolist(),
        **({"standard_info": standard_info} if standard_info else {}),
    }
    (folder / f"{side}_metadata.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
