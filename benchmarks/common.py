"""What the benchmarks share: the machine in words, data of two shapes, interleaved timing, and a table on paper."""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import numpy as np
import psutil
import torch

from face3d_tune.data.face_data import FaceData, load

SHAPES = ("d512", "sample")  # of the network the users have, and of the bundled sample: d = feature size = 512 and 128
NAMES = {"d512": "d=512 L=4 batch 32", "sample": "sample d=128"}
_PEOPLE = {"validation": 2, "test": 1}
_VIEWS = 32  # of each synthetic person: as many pairs as a batch has


def data_of(shape: str, steps: int = 20) -> FaceData:
    """Return the bundled sample, or synthetic pairs that make `steps` training steps an epoch and little validation."""
    return load(None, split="person", min_yaw=0.0, max_yaw=None) if shape == "sample" else synthetic(steps)


def synthetic(steps: int, feature_size: int = 512) -> FaceData:
    """Make `steps` training people with 32 views each: the frontal embedding, some noise, any pose."""
    random = np.random.default_rng(0)
    counts = {"train": steps, **_PEOPLE}
    person = np.repeat(np.arange(sum(counts.values())), _VIEWS)
    front = _unit(random.normal(size=(sum(counts.values()), feature_size)))
    pairs = np.column_stack((person, np.arange(len(person))))
    ends = np.cumsum(list(counts.values()))
    return FaceData(
        source="synthetic",
        front_features=front,
        front_names=tuple(f"person {n}" for n in range(len(front))),
        video_features=_unit(front[person] + random.normal(size=(len(person), feature_size)) / feature_size**0.5),
        landmarks=random.normal(size=(len(person), 5, 3)).astype(np.float32),
        poses=random.uniform(-75, 75, (len(person), 3)),
        parts={
            part: pairs[(person >= end - count) & (person < end)]
            for (part, count), end in zip(counts.items(), ends, strict=True)
        },
        people={
            part: tuple(f"person {n}" for n in range(end - count, end))
            for (part, count), end in zip(counts.items(), ends, strict=True)
        },
        file_pose_unit="degrees",
        pose_unit_recorded=True,
        split="person",
        min_yaw=0.0,
        max_yaw=None,
        landmark_source="synthetic",
        warnings=(),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def options(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test of under a minute; its numbers mean nothing")
    return parser


def machine() -> str:
    """Where these numbers come from."""
    cores, memory = psutil.cpu_count() or 1, psutil.virtual_memory().total / 2**30
    simd = torch.backends.cpu.get_cpu_capability()
    return (
        f"{_processor()}, {cores} cores ({simd}), {memory:.0f} GiB; torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}; load before: {psutil.getloadavg()[0]:.1f}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or not x86
        return platform.processor() or platform.machine()


def interleaved(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of a call of each, in turn, so that a slower hour hits all; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(measured[1:]) for name, measured in seconds.items()}


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process keeps one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, the first to the left and the numbers to the right."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join((first.strip().ljust(widths[0]), *rest)))
    print(flush=True)
