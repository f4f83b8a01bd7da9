"""A second data set: invented people of another kind than the sample's, so that nothing is tuned to the sample.

    python -m benchmarks.other_people people7 --seed 7
    face3d-tune data check people7

No picture and no network is behind it. A person is a random direction in which a few components vary most, as in real
embeddings. In a side view, |sin yaw| mixes the frontal embedding with a bent copy of itself (tanh of a random map,
another for each side, which no linear model can undo), sin yaw pushes it along a direction common to all, sin pitch
along another, and noise grows with |yaw|. Landmarks are one head for each person, turned by the pose.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

_FACE = np.array([[-3.1, 2.9, 2.0], [3.1, 2.9, 2.0], [0.0, 0.0, 4.2], [-2.4, -3.2, 2.3], [2.4, -3.2, 2.3]])  # cm
_LIMITS = (75, 30, 15)  # degrees of yaw, pitch and roll
_BENT, _PUSH, _NOISE = 0.3, 1.0, (0.4, 0.6)  # of the length of an embedding; the first and the last in full profile
_SCALE = 0.22  # of landmarks: centimetres to about 1


def make(seed: int, people: int = 90, views: int = 14, size: int = 64) -> dict[str, Any]:
    """Make the content of the six files (trainer contract §2) by name: arrays, and what goes into JSON."""
    random = np.random.default_rng(seed)
    strength = np.exp(-np.arange(size) / (size / 1.5))  # of the components
    turn = np.linalg.qr(random.normal(size=(size, size)))[0]
    hidden = random.normal(size=(people, size)) * strength
    front = _unit(hidden @ turn)
    rows = np.repeat(np.arange(people), views)
    poses = np.column_stack([random.uniform(-limit, limit, len(rows)) for limit in _LIMITS]).round(3)
    radians = np.deg2rad(poses)
    sine = np.sin(radians[:, :1])
    side = np.abs(sine)
    maps = random.normal(size=(2, size, size)) * 2.0  # so large that tanh bends
    left, right = (_unit(np.tanh(front @ one) @ other) for one, other in zip(maps, maps[::-1], strict=True))
    bumps = np.tanh(radians @ (random.normal(size=(3, 4 * size)) * 5.0) + random.normal(size=4 * size))
    common = _unit((bumps - bumps.mean(axis=0)) @ random.normal(size=(4 * size, size)))  # [rows, size]
    video = _unit(
        (1 - _BENT * side) * front[rows]
        + _BENT * side * np.where(sine < 0, left[rows], right[rows])
        + _PUSH * common
        + (_NOISE[0] + _NOISE[1] * side) * _unit(random.normal(size=(len(rows), size)))
    )
    heads = _FACE * random.normal(1, 0.06, (people, 1, 3)) + random.normal(0, 0.15, (people, 5, 3))
    turned = np.einsum("nij,nkj->nki", _rotations(radians), heads[rows])
    names = [f"invented {number:03d}" for number in range(people)]
    return {
        **_side("front", front, names, np.zeros((people, 3)), heads),
        **_side("video", video, [names[row] for row in rows], poses, turned),
    }


def _side(side: str, features: np.ndarray, names: list[str], poses: np.ndarray, heads: np.ndarray) -> dict[str, Any]:
    centred = (heads - heads.mean(axis=1, keepdims=True)) * _SCALE
    return {
        f"{side}_feature.npy": features.astype(np.float32),
        f"{side}_keypoints.npy": centred.astype(np.float32),
        f"{side}_metadata.json": {
            "metadata": [{"person_name": name} for name in names],
            "poses": poses.tolist(),
            "landmarks_3d_original": heads.round(3).tolist(),
            "standard_info": {"standard_scale": _SCALE, "standard_center": [0.0, 0.0, 0.0]},
        },
    }


def _rotations(angles: np.ndarray) -> np.ndarray:
    """[rows, 3, 3] of yaw, pitch and roll in radians ([rows, 3])."""
    (sy, sp, sr), (cy, cp, cr) = np.sin(angles).T, np.cos(angles).T
    zero, one = np.zeros_like(sy), np.ones_like(sy)
    yaw = np.array([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    pitch = np.array([[one, zero, zero], [zero, cp, -sp], [zero, sp, cp]])
    roll = np.array([[cr, -sr, zero], [sr, cr, zero], [zero, zero, one]])
    return np.einsum("ijn,jkn,kln->nil", roll, pitch, yaw)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write(folder: Path, files: dict[str, Any]) -> None:
    """Write the six files into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name.endswith(".npy"):
            np.save(folder / name, content)
        else:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--people", type=int, default=90)
    parser.add_argument("--views", type=int, default=14, help="of each person")
    parser.add_argument("--size", type=int, default=64, help="numbers of an embedding")
    asked = parser.parse_args()
    write(asked.folder, make(asked.seed, asked.people, asked.views, asked.size))


if __name__ == "__main__":
    main()
