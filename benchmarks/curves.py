"""Trainings to their end, hundreds of them, whose curves a search can be replayed on (`benchmarks.replay`).

    python -m benchmarks.curves make default     # hours; stop it at any time, and it goes on where it was
    python -m benchmarks.curves pack             # adds them to benchmarks/curves.npz, which is committed
    python -m benchmarks.curves show

Every training goes its 100 epochs with early stopping off, on the bundled sample, in float32 on one core; what early
stopping or a pruner would have cut off is cut off in the replay. Parts:

    presets   the guide's four presets, two seeds
    default   256 Sobol and 256 random points of studies/default.toml, in turn; `inputs` is the view in all of them
    explore   the same of studies/explore.toml
    repeats   more seeds of some points of each: the best ones, and others at even ranks
    folds     folds 2 and 3 of the same, with the seed of fold 1
    best, explore-best
              what a surrogate of the records so far holds for the best of the space, in rounds of six
    identity  of studies/identity.toml: the presets, known good settings with every input, Sobol and random points, and
              second seeds of some of them; mixed, so that the first 20 or 60 will do

Points, seeds and ids follow from this file alone; those of `repeats` and whatever follows it from the records made
before them too. One that diverged stays in, with what it said.
"""

import argparse
import json
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.quasirandom import SobolEngine

from benchmarks.common import data_of, machine, options, table
from benchmarks.identity_term import ATTENTION, SETTINGS
from benchmarks.packed import EPOCHS, PACKED, Curves, at, pack, read, study_of, unpacked
from benchmarks.surrogate import Surrogate
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import NonFiniteError
from face3d_tune.study import study_file
from face3d_tune.study.objective import IDENTITY
from face3d_tune.system import limits
from face3d_tune.training.batched.batch import alone

PARTS = ("presets", "default", "explore", "repeats", "folds", "best", "explore-best", "identity")
RECORDS = Path("build/curves")  # one JSON object a line, in any number of files
_POINTS = 256  # of each kind
_FIRST_SEED = {"default": 1000, "explore": 3000, "best": 5000, "explore-best": 7000, "identity": 9000}
_STREAM = {"default": 1, "explore": 2, "identity": 3}  # of Sobol's scrambling and of the random points
_CHOSEN_FROM = 32  # so many Sobol and as many random points of a space
_BEST, _SPREAD, _SEEDS = 4, 4, 2
_WITHOUT = {"early_stopping_patience": 0, "use_mixed_precision": False}
_ROUND = 6  # points of the part `best`
_WEIGHTS = (0.1, 0.0, 0.3)  # of the identity term, with the known good settings
_BETWEEN = 2  # Sobol and random points of the part `identity` between two others


@dataclass(frozen=True, slots=True)
class Point:
    """One training to make."""

    id: str
    study: str
    params: Mapping[str, Any]
    overrides: Mapping[str, Any]
    seed: int
    fold: int = 1


def points(part: str, records: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the trainings of a part, in order. Raises SystemExit if it needs records that are missing."""
    match part:
        case "presets":
            initial_trials = [s for s in study_of("default").initial_trials() if s.name != "quickstart"]
            return [
                Point(f"preset-{s.name}-{seed}", "default", s.params, s.overrides, seed)
                for seed in (0, 1)
                for s in initial_trials
            ]
        case "default" | "explore":
            return list(_space_filling(part))
        case "repeats":
            return [
                Point(f"{p.id}/seed{k}", p.study, p.params, p.overrides, 100_000 * k + p.seed)
                for k in range(1, _SEEDS + 1)
                for p in _dozens(records)
            ]
        case "folds":
            return [
                Point(f"{p.id}/fold{k}", p.study, p.params, p.overrides, p.seed, k)
                for p in _dozens(records)
                for k in (2, 3)
            ]
        case "best":
            return _favourites(part, "default", records)
        case "explore-best":
            return _favourites(part, "explore", records)
        case "identity":
            return list(_identity())
    raise SystemExit(f"no part named {part}")


def _space_filling(study: str) -> Iterator[Point]:
    """Sobol and random points of a study's space in turn."""
    space, prefix = study_of(study).space, "" if study == "default" else f"{study}-"
    stream = _STREAM[study]
    sobol = SobolEngine(len(space), scramble=True, seed=stream).draw(_POINTS, dtype=torch.float64).tolist()
    rng = random.Random(stream)
    uniform = [[rng.random() for _ in space] for _ in range(_POINTS)]
    for i in range(_POINTS):
        for kind, drawn in (("sobol", sobol), ("random", uniform)):
            params = {name: at(row, u) for (name, row), u in zip(space.items(), drawn[i], strict=True)}
            yield Point(f"{prefix}{kind}-{i}", study, params, {}, _FIRST_SEED[study] + i)


def _identity() -> Iterator[Point]:
    """Points of the study `identity`, mixed: every third one is a preset, a known one or a second seed."""
    file, filling = study_of("identity"), _space_filling("identity")
    seed = _FIRST_SEED["identity"] + 2 * _POINTS
    presets = [
        Point(f"identity-preset-{s.name}-0", "identity", s.params, s.overrides, 0)
        for s in file.initial_trials()
        if s.name != "quickstart"
    ]
    good = {name: value for name, value in (SETTINGS | ATTENTION).items() if name in file.space}
    known = [
        Point(f"identity-known-{n}", "identity", {**good, "inputs": inputs, "identity_weight": weight}, {}, seed + n)
        for n, (weight, inputs) in enumerate(product(_WEIGHTS, file.space["inputs"].choices))
    ]
    again = [replace(p, id=f"{p.id}/seed1", seed=100_000 + p.seed) for p in (*known[:3], *presets[:1], *known[3:6])]
    for other in (*known[:3], *presets, *again[:4], *known[3:], *again[4:]):
        yield from islice(filling, _BETWEEN)
        yield other
    yield from filling


def _dozens(records: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Of each space whose first points are all there, the best by kept cosine and others at even ranks."""
    held = {record["id"]: record for record in records}
    chosen: list[Point] = []
    for study in ("default", "explore"):
        first = [p for p in _space_filling(study) if int(p.id.rsplit("-", 1)[1]) < _CHOSEN_FROM]
        if missing := [p.id for p in first if p.id not in held]:
            print(f"no repeats or folds of {study} yet: {len(missing)} records are missing, such as {missing[0]}")
            continue
        sound = [p for p in first if held[p.id]["error"] is None]
        ranked = sorted(sound, key=lambda p: -_kept(held[p.id]))
        step = (len(ranked) - _BEST) / _SPREAD
        chosen += ranked[:_BEST] + [ranked[_BEST + int((i + 0.5) * step)] for i in range(_SPREAD)]
    if not chosen:
        raise SystemExit("make the part default first")
    return chosen


def _favourites(part: str, study: str, records: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Another round of points that look best to a surrogate of `records`: trained, they mend what it is wrong about."""
    with tempfile.TemporaryDirectory() as folder:
        pack(records, Path(folder) / PACKED.name)
        favourites = Surrogate(read(Path(folder) / PACKED.name), study).favourites(_ROUND)
    first = sum(record["id"].startswith(f"{part}-") for record in records)
    return [
        Point(f"{part}-{n}", study, params, {}, _FIRST_SEED[part] + n) for n, params in enumerate(favourites, first)
    ]


def _kept(record: Mapping[str, Any], metric: str = "cosine") -> float:
    """Return the cosine, or another metric, at the lowest validation loss of 100 epochs."""
    cosine, weight = np.array(record["cosine"]), record["params"].get("cosine_weight", 0.5)
    return float(record[metric][np.argmin(weight * (1 - cosine) + (1 - weight) * np.array(record["mse"]))])


_data: dict[int, FaceData] = {}  # of a process, by fold


def train(point: Point, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train one point, in a process that has one thread; its record."""
    torch.set_num_threads(1)
    if not _data:
        _data[1] = data_of("sample")
    if point.fold not in _data:
        _data[point.fold] = _data[1].fold(point.fold, of=3)
    data = _data[point.fold]
    file = study_file.read(point.study).bind("keypoint", data.feature_size, epochs)
    config = file.config(point.params, {**point.overrides, **_WITHOUT})
    started, error = time.time(), None
    member = alone(config, data, seed=point.seed, device=torch.device("cpu"), precision="off")
    try:
        while member.stop_reason is None:
            member.train_epoch()
    except NonFiniteError as diverged:
        error = str(diverged)
    history = member.history
    return {
        "id": point.id,
        "params": {**point.overrides, **_WITHOUT, **point.params},
        "seed": point.seed,
        "fold": point.fold,
        "error": error,
        "seconds": time.time() - started,
        "cosine": [result.val_cosine for result in history],
        "mse": [2 * result.val_loss_equal - (1 - result.val_cosine) for result in history],
        "identity": [IDENTITY.of_epoch(result) for result in history],
    }


def records_in(folder: Path, packed: Path = PACKED) -> list[dict[str, Any]]:
    """All records of the packed file and of a folder, one of each id, in the order of the ids' points."""
    held = {record["id"]: record for record in unpacked(packed)} if packed.exists() else {}
    lines = (line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines())
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the last line of a process that was killed
            continue
        held.setdefault(record["id"], record)
    return sorted(held.values(), key=lambda record: _natural(record["id"]))


def _natural(id: str) -> tuple[Any, ...]:
    head, _, tail = id.partition("/")
    name, _, number = head.rpartition("-")
    return name, int(number), tail


def make(folder: Path, todo: Iterable[Point], workers: int, deadline: float, epochs: int = EPOCHS) -> None:
    """Train what is to do in so many processes, one record a line as each ends; none starts after `deadline`."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting, running = iter(todo), set[Future[dict[str, Any]]]()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, mp_context=context) as pool,
        (folder / f"made-{time.time_ns()}.jsonl").open("a", encoding="utf-8") as file,
    ):
        while True:
            while len(running) < workers and time.monotonic() < deadline:
                if (point := next(waiting, None)) is None:
                    break
                running.add(pool.submit(train, point, epochs))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                record = future.result()
                file.write(json.dumps(record) + "\n")
                file.flush()
                kept = f"{_kept(record):.4f}" if record["cosine"] else "none"
                print(f"{record['id']}: {kept}, {record['seconds']:.0f} s {record['error'] or ''}", flush=True)


def show(curves: Curves) -> None:
    """Print what is there."""
    last = np.nanmax(curves.cosine, axis=1)
    kinds: dict[str, list[float]] = {}
    for id, value in zip(curves.ids, last, strict=True):
        head, _, tail = id.partition("/")
        kinds.setdefault(f"{head.rpartition('-')[0]}{' ' + tail.rstrip('0123456789') if tail else ''}", []).append(
            value
        )
    rows = [(kind, len(v), *(f"{np.quantile(v, q):.4f}" for q in (0, 0.5, 0.9, 1))) for kind, v in kinds.items()]
    table(("highest cosine of", "trainings", "least", "median", "best tenth", "most"), rows)
    print(f"{len(curves)} trainings, {sum(e is not None for e in curves.errors)} of them diverged")


def show_known(records: Iterable[Mapping[str, Any]]) -> None:
    """Print what the known good settings of the part `identity` keep, with every input and weight of the term."""
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for record in records:
        if record["id"].startswith("identity-known-") and record["error"] is None:
            key = record["params"]["inputs"], record["params"]["identity_weight"]
            found.setdefault(key, []).append((_kept(record), _kept(record, "identity")))
    rows = [
        (inputs, weight, len(kept), *(f"{mean:.4f}" for mean in np.mean(kept, axis=0)))
        for (inputs, weight), kept in sorted(found.items())
    ]
    if rows:
        table(("known settings, inputs", "identity weight", "seeds", "cosine", "identity"), rows)


def main() -> None:
    """Make, pack or show."""
    parser = options(__doc__)
    parser.add_argument("action", choices=("make", "pack", "show"))
    parser.add_argument("part", nargs="?", default="default", choices=PARTS, help="of make; see above")
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"folder of the records ({RECORDS})")
    parser.add_argument("--packed", type=Path, default=PACKED, help="the packed file")
    parser.add_argument("--workers", type=int, default=limits.cores().amount, help="processes, of one thread each")
    parser.add_argument("--limit", type=int, default=None, help="trainings to make at most")
    parser.add_argument("--hours", type=float, default=math.inf, help="no training starts after so long")
    asked = parser.parse_args()
    match asked.action:
        case "make":
            _make(asked)
        case "pack":
            pack(records := records_in(asked.records, asked.packed), asked.packed)
            print(f"{len(records)} trainings, {asked.packed.stat().st_size / 1000:.0f} kB")
        case "show":
            show(read(asked.packed))
            show_known(unpacked(asked.packed))


def _make(asked: argparse.Namespace) -> None:
    print(machine(), flush=True)
    records = records_in(asked.records, asked.packed)
    made = {record["id"] for record in records}
    todo = [point for point in points(asked.part, records) if point.id not in made]
    limit, epochs = (asked.workers, 2) if asked.quick else (asked.limit, EPOCHS)
    print(f"{asked.part}: {len(todo)} trainings to make", flush=True)
    make(asked.records, todo[:limit], asked.workers, time.monotonic() + asked.hours * 3600, epochs)


if __name__ == "__main__":
    main()
