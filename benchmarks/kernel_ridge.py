"""Kernel ridge on the sample and on invented people: time, memory beside the data, and the cosine against ridge.

The last two rows have as many training pairs as 36 people with 280 views each, and 100,080.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil

from benchmarks.common import machine, options, table
from benchmarks.other_people import make
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.data.pairs import split_people
from face3d_tune.training import kernel_ridge, ridge

_RIDGE_CHOOSES = 20_000  # training pairs at most: with more its cross-validation takes many minutes
_PENALTY = 100.0  # of ridge then


def main() -> None:
    """Measure row by row."""
    asked = options(__doc__).parse_args()
    print(machine(), flush=True)
    shapes = ((10, 6, 16),) if asked.quick else ((60, 280, 512), (600, 278, 512))
    header = (
        "training pairs",
        "choose, s",
        "fit, s",
        "cpu, s",
        "MiB",
        "centres",
        "choice",
        "cosine",
        "ridge",
        "ridge, s",
    )
    rows = []
    for data in ([] if asked.quick else [load(None)]) + [people_of(*shape) for shape in shapes]:
        rows.append(_row(data))
        print(rows[-1], flush=True)
    table(header, rows)


def _row(data: FaceData) -> list[str]:
    pairs, cpu = len(data.parts["train"]), time.process_time()
    with memory() as peak:
        choice, choosing = _timed(lambda: kernel_ridge.choose(data))
        fitted, fitting = _timed(lambda: kernel_ridge.fit(data, choice))
        cosine = fitted.cosines(data, "validation").mean()
    cpu = time.process_time() - cpu
    simple, simply = _timed(lambda: ridge.fit(data, None if pairs <= _RIDGE_CHOOSES else _PENALTY))
    return [
        f"{pairs}",
        f"{choosing:.1f}",
        f"{fitting:.1f}",
        f"{cpu:.1f}",
        f"{peak[0] / 2**20:.0f}",
        f"{len(fitted.weights)}",
        f"{choice.landmarks}, {choice.gamma:g}, {choice.penalty:g}",
        f"{cosine:.4f}",
        f"{simple.cosines(data, 'validation').mean():.4f}",
        f"{simply:.1f}",
    ]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


@contextmanager
def memory() -> Iterator[list[int]]:
    """Give the highest memory of this process above that at the beginning, in bytes, as the only item of a list."""
    process, done = psutil.Process(), threading.Event()
    before, peak = process.memory_info().rss, [0]

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def people_of(people: int, views: int, size: int) -> FaceData:
    """Return invented people, split as files would be."""
    files = make(7, people, views, size)
    names = [each["person_name"] for each in files["front_metadata.json"]["metadata"]]
    parts = split_people(names)
    pairs = np.column_stack((np.repeat(np.arange(people), views), np.arange(people * views)))
    home = np.array([next(part for part in parts if name in parts[part]) for name in names])[pairs[:, 0]]
    landmarks = np.array(files["video_metadata.json"]["landmarks_3d_original"], dtype=np.float32)
    return FaceData(
        source="invented",
        front_features=files["front_feature.npy"],
        front_names=tuple(names),
        video_features=files["video_feature.npy"],
        landmarks=landmarks - landmarks.mean(axis=1, keepdims=True),
        poses=np.array(files["video_metadata.json"]["poses"]),
        parts={part: pairs[home == part] for part in parts},
        people=parts,
        file_pose_unit="degrees",
        pose_unit_recorded=True,
        split="person",
        min_yaw=0.0,
        max_yaw=None,
        landmark_source="invented",
        warnings=(),
    )


if __name__ == "__main__":
    main()
