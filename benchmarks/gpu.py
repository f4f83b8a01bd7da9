"""What a GPU does with this package, in at most eight minutes, as one JSON: no GPU has measured anything yet.

    python -m benchmarks.gpu --out gpu.json

1. Equality: a few epochs of the batched engine against the plain trainer, on the device, in float64, fp32, fp16 and
   bf16. In float64 every number agrees to 1e-9 and in fp32 to 1e-4. A lower precision rounds differently in both: there
   the engines may differ by three times what the precision itself changes in the plain trainer.
2. Memory: sixteen trainings whose memory is cut to three quarters after their first epoch. The engine must take fewer
   at once, and all must end with the results that they have without the cut.
3. A whole short `face3d-tune run`, as `face3d_tune.run`.
4. Steps a second of K = 1, 4, 16 and 64 models in one batch at d = 128 and d = 512, against the plain trainer.

The file is written anew after each part, so that a run which is cut off leaves what it has; after eight minutes the
program ends itself. A part that fails leaves its error, and the others follow; the exit code is then 1. `--device cpu
--quick` tries the program without a GPU: memory is then cut by a simulation, and its numbers mean nothing.
"""

import json
import math
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import face3d_tune
from benchmarks.common import data_of, machine, options, synthetic
from benchmarks.steps import config_of, engine, steps_of
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.device import Precision, choose_device, choose_precision, device_name
from face3d_tune.errors import NonFiniteError
from face3d_tune.executor.slots import BatchedSlots
from face3d_tune.executor.tasks import Event, Failure, Task
from face3d_tune.training.base import EpochResult
from face3d_tune.training.batched.batch import Batch, Data
from face3d_tune.training.plain import Trainer

LIMIT = 8 * 60  # seconds in all
RATES = (3e-4, 1e-3, 1e-4, 5e-4)  # of the trainings that are compared
NUMBERS = ("train_loss", "val_loss", "val_cosine")
EXACT, SINGLE = 1e-9, 1e-4  # how far numbers may differ in float64 and in fp32


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each part trains."""

    epochs: int = 2  # that are compared, and that trainings have whose memory is cut
    models: tuple[int, ...] = (1, 4, 16, 64)  # in one batch
    steps: int = 20  # of an epoch at d = 512
    window: float = 4.0  # seconds in which steps are counted
    short_of_memory: int = 16  # trainings
    trials: int = 12  # of the whole run
    trial_epochs: int = 10
    run_seconds: float = 120.0  # after which it starts no trial


TINY = Sizes(models=(1, 2), steps=2, window=0.1, short_of_memory=4, trials=1, trial_epochs=1, run_seconds=30)


# Equality


def equality(
    data: FaceData, device: torch.device, base: TrialConfig, epochs: int, deadline: float = math.inf
) -> dict[str, Any]:
    """Compare the engines in every precision that the device has."""
    compared: dict[str, Any] = {"float64": compare(data, device, base, epochs, "off", torch.float64)}
    compared["fp32"] = compare(data, device, base, epochs, "off")
    for precision in ("fp16", "bf16"):
        chosen, notice = choose_precision(precision, device)
        if chosen != precision:
            compared[precision] = {"skipped": notice}
        elif time.monotonic() > deadline:
            compared[precision] = {"skipped": "no time left", "ok": False}
        else:
            compared[precision] = compare(data, device, base, epochs, chosen)
    return {**compared, "ok": all(each.get("ok", True) for each in compared.values())}


def compare(
    data: FaceData,
    device: torch.device,
    base: TrialConfig,
    epochs: int,
    precision: Precision,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Train the same four configs with both engines; return how far apart they are, and how far they may be."""
    configs = [replace(base, lr=rate, epochs=epochs, use_mixed_precision=precision != "off") for rate in RATES]
    batch = Batch(configs[0], Data(data, device, dtype), precision)
    members = [batch.add(config, seed, precision) for seed, config in enumerate(configs)]
    for _ in range(epochs):
        for result in batch.train_epoch() or []:
            if isinstance(result, NonFiniteError):
                raise result
    plain = trained(data, device, configs, precision, dtype)
    apart = max(distance(member.history, trainer.history) for member, trainer in zip(members, plain, strict=True))
    weights = max(
        (state[name].double() - value.double()).abs().max().item()
        for member, trainer in zip(members, plain, strict=True)
        for state in (member.model_state(),)
        for name, value in trainer.model_state().items()
    )
    limit = EXACT if dtype == torch.float64 else SINGLE
    found: dict[str, Any] = {
        "models": len(configs),
        "epochs": epochs,
        "largest_difference": apart,
        "of_weights": weights,
    }
    if precision != "off":
        single = trained(data, device, configs, "off", dtype)
        effect = max(distance(low.history, high.history) for low, high in zip(plain, single, strict=True))
        found["effect_of_the_precision"], limit = effect, max(limit, 3 * effect)
    return found | {"limit": limit, "ok": apart <= limit}


def trained(
    data: FaceData, device: torch.device, configs: Sequence[TrialConfig], precision: Precision, dtype: torch.dtype
) -> list[Trainer]:
    """Train configs to their ends with the plain trainer."""
    trainers = [
        Trainer(config, data, seed=seed, device=device, precision=precision, dtype=dtype)
        for seed, config in enumerate(configs)
    ]
    for trainer in trainers:
        for _ in range(trainer.config.epochs):
            trainer.train_epoch()
    return trainers


def distance(ours: Sequence[EpochResult], theirs: Sequence[EpochResult]) -> float:
    """Return the largest difference of losses and cosines between two trainings; infinite if their epochs differ."""
    if [each.epoch for each in ours] != [each.epoch for each in theirs]:
        return math.inf
    return max(
        abs(getattr(one, name) - getattr(other, name))
        for one, other in zip(ours, theirs, strict=True)
        for name in NUMBERS
    )


# Memory


def memory(data: FaceData, device: torch.device, base: TrialConfig, count: int, epochs: int) -> dict[str, Any]:
    """Cut the memory of trainings after their first epoch; return whether fewer go on, and end as without the cut."""
    tasks = [Task(number, replace(base, epochs=epochs), number, "off") for number in range(count)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    whole, expected = to_the_end(BatchedSlots(data, device, count), tasks, nothing_cut)
    cut, given = to_the_end(BatchedSlots(data, device, count), tasks, cut_for(device, count))
    failed = [str(each.message) for results in given.values() for each in results if isinstance(each, Failure)]
    ended = {number: [each for each in results if isinstance(each, EpochResult)] for number, results in given.items()}
    apart = max(distance(ended[task.number][-epochs:], expected[task.number]) for task in tasks)
    ok = cut < whole and not failed and apart <= SINGLE
    simulated = device.type != "cuda"
    return {
        **{"at_once_before": whole, "at_once_after": cut, "halved": cut == whole // 2, "simulated": simulated},
        **{"failed": failed, "largest_difference": apart, "ok": ok},
    }


Cut = Callable[[], AbstractContextManager[None]]


def to_the_end(slots: BatchedSlots, tasks: Sequence[Task], cut: Cut) -> tuple[int, dict[int, list[Any]]]:
    """Train tasks, from their second epoch on with less memory; return how many train at once, and all results."""
    for task in tasks:
        slots.start(task)
    given: dict[int, list[Any]] = {task.number: [] for task in tasks}
    take(slots.wait(), given)
    with cut():
        while slots.busy:
            take(slots.wait(), given)
    count = slots.count
    slots.close()
    return count, given


def take(events: Sequence[Event], given: dict[int, list[Any]]) -> None:
    """Sort the contents of events by training."""
    for event in events:
        given[event.number].append(event.content)


@contextmanager
def nothing_cut() -> Iterator[None]:
    """Leave the memory as it is."""
    yield


def cut_for(device: torch.device, count: int) -> Cut:
    """Return what cuts the memory: of a GPU really; on a CPU by a simulation, in which half of the models fit."""
    if device.type != "cuda":
        return lambda: too_many(count // 2)
    return lambda: three_quarters(device)


@contextmanager
def three_quarters(device: torch.device) -> Iterator[None]:
    """Let this process have three quarters of the memory that it needed so far."""
    torch.cuda.empty_cache()
    needed, whole = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(0.75 * needed / whole, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@contextmanager
def too_many(room: int) -> Iterator[None]:
    """Let a batch of more models run out of memory."""
    train_epoch = Batch.train_epoch

    def limited(batch: Batch, *arguments: Any) -> Any:
        if len(batch.members) > room:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return train_epoch(batch, *arguments)

    with mock.patch.object(Batch, "train_epoch", limited):
        yield


# A whole run


def whole_run(device: str, sizes: Sizes, **options: Any) -> dict[str, Any]:
    """Search from nothing to the end; return what it took. `options` are more of `face3d_tune.run`."""
    engines: list[str] = []

    def listen(happened: face3d_tune.Progress) -> None:
        if happened.text.startswith("engine: "):
            engines.append(happened.text)

    budget = {"trials": sizes.trials, "epochs": sizes.trial_epochs, "timeout": sizes.run_seconds}
    with tempfile.TemporaryDirectory() as folder:
        place = {"storage": f"sqlite:///{Path(folder).as_posix()}/gpu.db", "artifacts": str(Path(folder) / "kept")}
        started = time.perf_counter()
        study = face3d_tune.run(device=device, progress=listen, **budget, **place, **options)
        seconds = time.perf_counter() - started
        reloaded = None if study.best is None else study.model(artifacts=place["artifacts"], device=device)
    states = [trial.state for trial in study.trials]
    finished = states.count("complete") + states.count("pruned")
    return {
        **{"engine": engines[-1] if engines else None, "seconds": seconds, "finished": finished},
        **{"epochs": sum(trial.epochs for trial in study.trials), "failed": states.count("fail")},
        **{"best": None if study.best is None else study.best.value},
        "ok": finished > 0 and states.count("fail") == 0 and reloaded is not None,
    }


# Steps a second


def speeds(
    data: FaceData, device: torch.device, models: Sequence[int], window: float, deadline: float
) -> dict[str, Any]:
    """Return model steps a second of the plain trainer, and of batches of so many models, with their peak memory."""
    config = config_of(data)
    steps = len(data.parts["train"]) // config.batch_size
    plain = Trainer(config, data, seed=0, device=device)
    found: dict[str, Any] = {"d": config.d_model, "batch_size": config.batch_size, "ok": True}
    found["plain"] = alone = per_second(lambda: plain._train_all_batches(1), steps, window)
    shared = Data(data, device)
    for count in models:
        if time.monotonic() > deadline:
            found[str(count)] = {"skipped": "no time left"}
            continue
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            batch = engine(config, shared, models=count)
            rate = per_second(steps_of(batch), steps * count, window)
        except torch.OutOfMemoryError as error:
            found[str(count)] = {"skipped": str(error).splitlines()[0]}
            continue
        gib = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        found[str(count)] = {"steps_per_second": rate, "against_plain": rate / alone, "peak_gib": gib}
        del batch
    return found


def per_second(epoch: Callable[[], object], steps: int, window: float) -> float:
    """Return the steps a second of whole epochs in a window; one before is not counted, and each reads its loss."""
    epoch()
    started, epochs = time.perf_counter(), 0
    while epochs == 0 or time.perf_counter() - started < window:
        epoch()
        epochs += 1
    return epochs * steps / (time.perf_counter() - started)


# All of it


def measure(out: Path, about: dict[str, Any], parts: dict[str, Callable[[], dict[str, Any]]], deadline: float) -> bool:
    """Run the parts in turn, and write what is known after each; return whether all went well."""
    report: dict[str, Any] = {**about, "ok": False, "seconds": 0.0, "parts": {}}
    started = time.monotonic()
    for name, part in parts.items():
        if time.monotonic() > deadline:
            report["parts"][name] = {"skipped": "no time left", "ok": False}
        else:
            report["parts"][name] = attempt(part)
        report["seconds"] = time.monotonic() - started
        report["ok"] = len(report["parts"]) == len(parts) and all(each["ok"] for each in report["parts"].values())
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {json.dumps(report['parts'][name])}", flush=True)
    return bool(report["ok"])


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a part; an error is its result."""
    started = time.monotonic()
    try:
        found = part()
    except Exception as error:  # the others are worth their time
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}", "ok": False}
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def about(device: torch.device, quick: bool) -> dict[str, Any]:
    """Say where and with what this was measured."""
    gpu = {}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = {"capability": f"{properties.major}.{properties.minor}", "gib": properties.total_memory / 2**30}
        gpu["cuda"] = torch.version.cuda
    return {
        **{"program": "benchmarks.gpu", "face3d_tune": face3d_tune.__version__, "machine": machine()},
        **{"device": device_name(device), "quick": quick, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        **gpu,
    }


def main() -> None:
    """Measure everything, and write the JSON."""
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), metavar="FILE")
    parser.add_argument("--device", default="cuda", metavar="cuda|cuda:N|cpu")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing is measured; --device cpu --quick tries the program")
    device, sizes = choose_device(given.device), TINY if given.quick else Sizes()
    deadline = time.monotonic() + LIMIT - 60  # no part begins later
    watchdog = threading.Timer(LIMIT, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    sample = synthetic(sizes.steps, 32) if given.quick else data_of("sample")
    base = config_of(sample, use_spatial_attention=True, use_pose_attention=True)
    wide = sample if given.quick else data_of("d512", sizes.steps)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "equality": lambda: equality(sample, device, base, sizes.epochs, deadline),
        "memory": lambda: memory(wide, device, config_of(wide), sizes.short_of_memory, sizes.epochs),
        "run": lambda: whole_run(given.device, sizes),
        "steps_d128": lambda: speeds(sample, device, sizes.models, sizes.window, deadline),
        "steps_d512": lambda: speeds(wide, device, sizes.models, sizes.window, deadline),
    }
    sys.exit(0 if measure(given.out, about(device, given.quick), parts, deadline) else 1)


if __name__ == "__main__":
    main()
