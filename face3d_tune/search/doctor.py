"""A check of everything that a search needs, before it starts. Nothing is created or changed.

The users' script, if given, trains a small epoch in a temporary folder. No flag shows which layout it builds, and
its source would only allow a guess.
"""

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from face3d_tune import __version__
from face3d_tune.config import Layout, TrialConfig, resolve
from face3d_tune.data.convert import excerpt
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.data.pairs import PARTS, TurnAngle
from face3d_tune.data.provenance import DataUse
from face3d_tune.device import choose_device, choose_precision, device_name
from face3d_tune.errors import NoStudiesError, TuneError
from face3d_tune.script.check import try_script, wrong_model
from face3d_tune.script.export import commands
from face3d_tune.script.flags import Script, read_script
from face3d_tune.search.notifier import Message, Notifier
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import study_names
from face3d_tune.storage.workers import clock, read_workers
from face3d_tune.system import limits
from face3d_tune.system.paths import expanded
from face3d_tune.system.safe_text import service
from face3d_tune.system.signals import endings_interrupt

Level = Literal["ok", "warning", "problem"]

_PYTHONS = ((3, 11), (3, 13))  # the first and last that the tests ran with
_LEAST = {"torch": (2, 6), "optuna": (5, 0), "optuna-dashboard": (0, 21), "sqlalchemy": (2, 1), "numpy": (1, 26)}
_LITTLE_DISK, _NO_DISK = 5 * 2**30, 2**28  # bytes
_LITTLE_MEMORY = 2**30  # bytes
_CLOCKS_APART = 10.0  # seconds
_NAMED = 3  # things that a script lacks; the others are counted
_SAMPLE = 0.3  # seconds for which the busy cores are measured
_BATCH, _BATCHES = 8, 8  # of the epoch that the users' script trains
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do about it (nothing, if it is ok)."""

    name: str
    level: Level
    said: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptToTry:
    """The users' script, how to run it, and the layout that the search will have."""

    path: Path
    python: str
    timeout: float  # seconds
    layout: Layout


def examine(
    storage: str,
    artifacts: str | None,
    data_dir: Path | None,
    turn_angle: TurnAngle = "first",
    script: ScriptToTry | None = None,
    notify: Sequence[str] = (),
) -> Iterator[Finding]:
    """Yield one finding after another, as soon as it is known."""
    looks: dict[str, Callable[[], Finding]] = {
        "versions": _versions,
        "device": _device,
        "precision": _precision,
        "cores": _cores,
        "memory": _memory,
        "data": lambda: _data(data_dir, turn_angle),
        "storage": lambda: _storage(storage),
        "clock": lambda: _clocks(storage),
        "artifacts": lambda: _artifacts(artifacts),
        "disk": lambda: _disk(storage, artifacts),
    }
    if script is not None:
        looks["script"] = lambda: _script(script, data_dir)
    if notify:
        looks["notify"] = lambda: _notify(notify)
    for name, look in looks.items():
        try:
            yield look()
        except TuneError as error:
            yield Finding(name, "problem", error.message, error.hint)
        except OSError as error:  # a name too long, a folder not permitted
            yield Finding(name, "problem", f"{error.filename}: {error.strerror}", "choose another place")


def _versions() -> Finding:
    versions = {"face3d-tune": __version__, "python": platform.python_version()}
    try:
        versions |= {name: version(name) for name in _LEAST}
    except PackageNotFoundError as error:
        return Finding("versions", "problem", f"{error.name} is not installed", "pip install -c constraints.txt -e .")
    text = ", ".join(f"{name} {number}" for name, number in versions.items())
    mine = tuple(map(int, platform.python_version_tuple()[:2]))
    numbers = {name: tuple(map(int, re.findall(r"\d+", versions[name])[:2])) for name in _LEAST}
    old = [f"{name} {'.'.join(map(str, least))}" for name, least in _LEAST.items() if numbers[name] < least]
    if old or numbers["optuna"] >= (6, 0):
        needed = f"needed at least: {', '.join(old)}" if old else "this needs Optuna 5"
        return Finding("versions", "problem", text, f"pip install -c constraints.txt -e . ({needed})")
    if not _PYTHONS[0] <= mine <= _PYTHONS[1]:
        return Finding("versions", "warning", text, "use Python 3.11 to 3.13: other versions were never tried")
    return Finding("versions", "ok", text)


def _device() -> Finding:
    device = choose_device("auto")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        advice = "install torch for CUDA (pytorch.org says how), or run on the CPU knowingly with --device cpu"
        return Finding("device", "warning", "there is an NVIDIA GPU, but this torch cannot use it", advice)
    if device.type == "cuda" and (count := torch.cuda.device_count()) > 1:
        every = ",".join(f"cuda:{number}" for number in range(count))
        return Finding("device", "ok", f"{device_name(device)}; {count} GPUs, all of them with --device {every}")
    return Finding("device", "ok", device_name(device) if device.type == "cuda" else device.type)


def _precision() -> Finding:
    device = choose_device("auto")
    precision, _ = choose_precision("auto", device)
    why = "" if precision != "off" else f": fp16 needs CUDA, and here is {device.type} (--amp bf16 works on a CPU)"
    return Finding("precision", "ok", f"mixed precision of --amp auto is {precision}{why}")


def _cores() -> Finding:
    cores, total = limits.cores(), os.cpu_count() or 1
    count, busy = cores.amount, psutil.cpu_percent(interval=_SAMPLE) / 100 * total
    threads = ", ".join(f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ)
    text = f"{count} cores, {busy:.1f} of them busy"
    if cores.of_cgroup:  # others use the machine as well, each within a quota
        text = f"{count} cores by CPU quota, {busy:.1f} of the machine's {total} busy"
    text += f"; {threads}" if threads else ""
    if busy > 0.5 * (total if cores.of_cgroup else count):
        return Finding(
            "cores", "warning", text, f"end other programs, or leave them room: --slots {max(1, count // 2)}"
        )
    return Finding("cores", "ok", text)


def _memory() -> Finding:
    memory = limits.memory()
    gib = f"{memory.amount / 2**30:.1f}"
    text = f"{gib} GiB free by memory limit" if memory.of_cgroup else f"{gib} GiB free"
    if memory.amount < _LITTLE_MEMORY:
        return Finding("memory", "warning", text, "end other programs, or train one trial at a time: --slots 1")
    return Finding("memory", "ok", text)


def _data(folder: Path | None, turn_angle: TurnAngle) -> Finding:
    data = load(folder, turn_angle=turn_angle)
    people = sum(map(len, data.people.values()))
    train, validation, test = (len(data.parts[part]) for part in PARTS)
    text = f"{data.source}: {people} people; pairs: {train} train, {validation} validation, {test} test"
    if data.warnings:
        return Finding("data", "warning", f"{text}; {data.warnings[0]}", "face3d-tune data check lists everything")
    return Finding("data", "ok", text)


def _storage(typed: str) -> Finding:
    place = Storage.parse(typed)
    if not place.writable():
        advice = "choose another --storage, or get write permission there"
        return Finding("storage", "problem", f"{place}: cannot be written", advice)
    if place.sqlite_file and not place.sqlite_file.exists():
        return Finding("storage", "ok", f"{place}: not there yet; `face3d-tune run` makes it")
    try:
        with place.opened() as storage:
            studies = [storage.get_study_id_from_name(name) for name in study_names(storage)]
            at_work = sum(row.alive for study in studies for row in read_workers(storage.engine, study))
            content = f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}"
            return Finding("storage", "ok", f"{place}: {content}; workers searching now: {at_work}")
    except NoStudiesError:
        return Finding("storage", "ok", f"{place}: reached; no studies yet")


def _clocks(typed: str) -> Finding:
    place = Storage.parse(typed)
    if place.sqlite_file:
        return Finding("clock", "ok", "the storage is a file: its clock is this machine's")
    with place.connected() as engine, engine.connect() as database:
        apart = clock(database) - time.time()
    text = f"the database's clock is {apart:+.1f} s from this machine's"
    if abs(apart) > _CLOCKS_APART:
        return Finding("clock", "warning", text, "set this machine's clock (NTP); trials would show odd times")
    return Finding("clock", "ok", text)


def _artifacts(typed: str | None) -> Finding:
    if typed is None:
        advice = "give --artifacts, or an interrupted trial restarts at epoch 1"
        return Finding("artifacts", "warning", "no checkpoints are kept", advice)
    store = Artifacts.parse(typed, to_write=False)
    if typed.startswith("s3://"):
        store.names("")
        return Finding("artifacts", "ok", f"{store}: reached")
    existing = _existing(expanded(typed))
    if not os.access(existing, os.W_OK):
        return Finding("artifacts", "problem", f"cannot write into {existing}", "choose another --artifacts")
    return Finding("artifacts", "ok", f"{store}: {'can be written' if expanded(typed).exists() else 'not there yet'}")


def _disk(storage: str, artifacts: str | None) -> Finding:
    file = Storage.parse(storage).sqlite_file
    folders = [file.parent] if file else []
    if artifacts is not None and not artifacts.startswith("s3://"):
        folders.append(expanded(artifacts))
    free = {str(folder): shutil.disk_usage(_existing(folder)).free for folder in folders}
    if not free:
        return Finding("disk", "ok", "nothing is stored on this machine")
    folder, least = min(free.items(), key=lambda item: item[1])
    text = f"{least / 2**30:.1f} GiB free for {folder}"
    advice = "make room, or use another disk for --storage and --artifacts"
    return Finding("disk", "problem" if least < _NO_DISK else "warning" if least < _LITTLE_DISK else "ok", text, advice)


def _script(script: ScriptToTry, folder: Path | None) -> Finding:
    """Run the script for one small epoch with a config unlike its defaults, and check the model that it built."""
    accepted, data = read_script(script.path), load(folder)
    config, use = _unusual(data, script.layout, accepted), DataUse.of(data)
    with tempfile.TemporaryDirectory(prefix="face3d-tune-") as name, endings_interrupt():
        few = Path(name) / "data"
        excerpt(folder, few, views=-(-_BATCH * _BATCHES // max(1, len(data.people["train"]))))
        tested = try_script(config, use, few, accepted, python=script.python, timeout=script.timeout)
    if error := wrong_model(tested, config, use, accepted):
        return Finding("script", "problem", error.message, error.hint)
    text = f"{script.path} trains here"
    if tested.weights is not None:
        text += f", and builds the {script.layout} layout as the flags say"
    missing = commands(config, use, accepted).missing
    warnings = [*tested.warnings, *(f"it cannot express {line}" for line in missing[:_NAMED])]
    if len(missing) > _NAMED:  # another trainer: no flag of the guide's script says anything about it
        warnings.append(f"and {len(missing) - _NAMED} more")
    if warnings:
        advice = "see docs/your-script.md for what a search needs of a script"
        return Finding("script", "warning", f"{text}; {'; '.join(warnings)}", advice)
    return Finding("script", "ok", text)


def _unusual(data: FaceData, layout: Layout, script: Script) -> TrialConfig:
    """Return a small config that differs from the defaults for every flag of the script."""
    size = data.feature_size
    unusual: dict[str, Any] = {
        "num_layers": 2,
        "dim_feedforward": 3 * size,
        "use_pose_attention": True,
        "use_spatial_attention": layout == "keypoint",
    }
    names = {*script.flags, *(["num_layers"] if "num_decoder_layers" in script.flags else [])}
    values = {
        **{name: value for name, value in unusual.items() if name in names},
        "nhead": next(heads for heads in (8, 4, 2, 1) if size % heads == 0),
        "batch_size": max(2, min(_BATCH, len(data.parts["train"]))),
        "pose_unit": data.file_pose_unit,
    }
    return resolve(values, feature_size=size, epochs=1, layout=layout)


def _notify(urls: Sequence[str]) -> Finding:
    """Send a test message to each service, and wait for it as long as a search does at its end."""
    failed: list[str] = []
    notifier = Notifier(urls, failed.append)
    notifier.tell(Message("face3d-tune: test message", ("sent by `face3d-tune doctor --notify`",)))
    notifier.close()
    if failed:
        return Finding("notify", "problem", "; ".join(failed), "see docs/operating.md for the URL of each service")
    return Finding("notify", "ok", f"taken by {', '.join(map(service, urls))}")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest existing one above it."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
