"""One epoch of a user's script beside one of the built-in trainer, if the script is the documented trainer."""

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from face3d_tune.config import Layout, TrialConfig
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.data.provenance import DataUse
from face3d_tune.device import choose_precision
from face3d_tune.errors import ConfigError, ScriptError, TrainingError, TuneError
from face3d_tune.executor.plan import Engine, Plan, choose
from face3d_tune.executor.tasks import Failure, Task
from face3d_tune.script import flags
from face3d_tune.script.check import ScriptCheck, wrong_model
from face3d_tune.script.documented import DocumentedValues, is_documented
from face3d_tune.script.engine_comparison import Comparison, NotCompared
from face3d_tune.script.first_epoch import FirstEpoch, checkpoints_in, first_epoch
from face3d_tune.script.running import device_environment, failure
from face3d_tune.script.running.run_once import OneRun, run_once
from face3d_tune.script.study_file import ScriptStudyFile
from face3d_tune.script.surroundings import absolute, environment
from face3d_tune.system.signals import endings_interrupt
from face3d_tune.training import weights
from face3d_tune.training.base import EpochResult

TIMEOUT = 300.0  # seconds for the script's epoch
_EPOCHS = 2  # of the built-in trainer: the first one also starts its processes
_SEED = 0
_LEAST = 0.2  # of the script's start: an epoch that takes less cannot be timed beside it


def compare(
    file: ScriptStudyFile, *, engine: Engine, slots: int, devices: Sequence[str], threads: int
) -> Comparison | NotCompared | None:
    """Train one epoch of the script and of the built-in trainer, with the config that the study begins with.

    It takes the script's epoch and its start, each `TIMEOUT` at most, and two epochs of the built-in trainer. Nothing
    is written but a temporary folder. None: the script is not the documented trainer.

    Args:
        file: The study file.
        engine: Of the built-in trainer, which chooses its own slots.
        slots: Scripts at once.
        devices: Where trials train, as torch names them.
        threads: Of each script on a CPU.
    """
    if not is_documented(file.flags):
        return None
    try:
        with (
            endings_interrupt(),
            tempfile.TemporaryDirectory(prefix="face3d-tune-", ignore_cleanup_errors=True) as name,
        ):
            return _compare(file, Path(name), engine, slots, devices, threads)
    except TuneError as error:
        return NotCompared(reason=error.message)
    except Exception as error:  # whatever the script leaves: a remark ends no search
        return NotCompared(reason=f"{type(error).__name__}: {error}")


def _compare(
    file: ScriptStudyFile, folder: Path, engine: Engine, slots: int, devices: Sequence[str], threads: int
) -> Comparison:
    """Compare, with an empty folder to try the script in. Raises TuneError."""
    values, table = _first_values(file), file.script
    given = flags.values(file.flags, table.arguments)[0] | values
    documented = DocumentedValues(file.flags, given, tuple(table.own_flags()))
    data = _load(documented, table.start_in or folder)
    documented.config(
        layout="keypoint", pose_unit=data.file_pose_unit, epochs=1
    )  # before the script trains for nothing
    variables = {**environment(()), **device_environment.of(devices[0], threads), **table.environment}
    tried = _try(file, values, folder, variables)
    layout: Layout = weights.structure(tried.weights).get("layout", "keypoint")
    config = documented.config(layout=layout, pose_unit=data.file_pose_unit, epochs=_EPOCHS)
    check = ScriptCheck(tried.first, tried.weights, tried.seconds, ())
    if error := wrong_model(check, config, DataUse.of(data), file.flags):
        raise error
    plan = choose(engine, None, [torch.device(device) for device in devices], data, [config])
    cosine, seconds = _train(plan, data, config)
    times = None if tried.epoch is None else (plan.slots / seconds) / (slots / tried.epoch)
    return Comparison(
        times=times,
        start_counted=tried.start is None,
        script_cosine=tried.cosine,
        built_in_cosine=cosine,
        apart=abs(tried.cosine - cosine),
        options=_options(data, layout),
        lacking=documented.others,
    )


def _first_values(file: ScriptStudyFile) -> dict[str, Any]:
    """Return the flags that the study's first trial sets; a copy's own warm-up is off."""
    presets, _ = file.distinct_presets()
    values = file.config(presets[0].params, presets[0].overrides) if presets else dict(file.fixed)
    return values | ({"warmup_epochs": 0} if "warmup_epochs" in file.flags.flags else {})


def _load(documented: DocumentedValues, start_in: Path) -> FaceData:
    """Load the data that the script trains on. Raises DataError and ConfigError."""
    folder, (low, high) = start_in / documented.data_dir, documented.limits
    data = load(folder, min_yaw=low, max_yaw=high)
    if data.file_pose_unit == "radians" and (low or high is not None):
        raise ConfigError("the script limits |yaw| in radians here, the built-in trainer in degrees")
    return data


@dataclass(frozen=True, slots=True)
class _Tried:
    """One epoch of the script."""

    first: FirstEpoch
    cosine: float
    weights: Mapping[str, Tensor]
    seconds: float  # from start to end
    start: float | None  # seconds of the same command with no epoch; None: it failed, as not every copy survives that

    @property
    def epoch(self) -> float | None:
        """Return the seconds of the epoch, with the start if that is not known; None if it is too short to time."""
        if self.start is None:
            return self.seconds
        epoch = self.seconds - self.start
        return epoch if epoch > _LEAST * self.start else None


def _try(file: ScriptStudyFile, values: Mapping[str, Any], folder: Path, variables: Mapping[str, str]) -> _Tried:
    """Train one epoch of the script. Raises ScriptError if it fails, or does not show its model and its cosine."""
    run = _run(file, values, 1, folder / "epoch", variables)
    if run.code is None:
        raise ScriptError(f"the script did not end its first epoch within {TIMEOUT:g} s")
    if run.code:
        words = file.command(values, epochs=1)[2:]
        raise ScriptError(f"the script failed: {failure.explain(run.code, run.printed, words, starved=False).message}")
    found, unreadable = checkpoints_in(folder / "epoch")
    model = next(filter(None, map(weights.find, found.values())), None)
    if model is None:
        why = f" ({'; '.join(unreadable)})" if unreadable else ""
        raise ScriptError(f"the script wrote no checkpoint that can be read here{why}, so its model is not known")
    first = first_epoch(found.values(), run.printed)
    if first.cosine is None or not math.isfinite(first.cosine):
        raise ScriptError("the script's validation cosine is not known")
    start = _run(file, values, 0, folder / "start", variables)
    return _Tried(first, first.cosine, model, run.seconds, start.seconds if start.code == 0 else None)


def _run(
    file: ScriptStudyFile, values: Mapping[str, Any], epochs: int, folder: Path, variables: Mapping[str, str]
) -> OneRun:
    """Run the script in a new folder."""
    table = file.script
    if table.epochs_flag is None:
        raise ConfigError("the study file names no epochs_flag, so the script cannot be limited to one epoch")
    folder.mkdir()
    program, script, *words = file.command(values, epochs=epochs)
    for name in table.folder_flags:
        words += [file.flags.flags[name].typed, str(folder / name)]
    command = [absolute(program), script, *words]
    cwd, log = table.start_in or folder, folder.with_suffix(".log")
    return run_once(command, cwd=cwd, environment=variables, log=log, timeout=TIMEOUT)


def _train(plan: Plan, data: FaceData, config: TrialConfig) -> tuple[float, float]:
    """Train this config in every slot; return the cosine after one epoch, and the seconds of the last epoch of a slot.

    Raises TrainingError.
    """
    precision = choose_precision("auto", *plan.devices)[0]
    ends: dict[int, list[float]] = {number: [] for number in range(plan.slots)}
    cosines = []
    with closing(plan.open(data)) as slots:
        for number in ends:
            slots.start(Task(number, config, _SEED, precision))
        while min(map(len, ends.values())) < _EPOCHS:
            for event in slots.wait():
                if isinstance(event.content, Failure):
                    raise TrainingError(f"the built-in trainer failed: {event.content.message}")
                if isinstance(event.content, EpochResult):
                    ends[event.number].append(time.monotonic())
                    cosines += [event.content.val_cosine] if event.content.epoch == 1 else []
    return cosines[0], fmean(last - before for *_, before, last in ends.values())


def _options(data: FaceData, layout: Layout) -> list[str]:
    """Return the options of `run` that search with the built-in trainer on the same data."""
    options = ["--data-dir", os.path.abspath(data.source)]
    options += ["--min-yaw", f"{data.min_yaw:.15g}"] if data.min_yaw else []
    options += [] if data.max_yaw is None else ["--max-yaw", f"{data.max_yaw:.15g}"]
    return options + ([] if layout == "keypoint" else ["--layout", layout])
