"""The inputs of a search of a script, checked before a storage is created or changed."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from optuna.storages import RDBStorage

from face3d_tune.device import choose_devices
from face3d_tune.errors import ConfigError, StudyFileError
from face3d_tune.executor.plan import Engine
from face3d_tune.executor.slots import Slots
from face3d_tune.script import study_file
from face3d_tune.script.engine_comparison import Comparison, NotCompared
from face3d_tune.script.running.slots import ScriptSlots
from face3d_tune.script.study_file import ScriptStudyFile
from face3d_tune.script.study_running import running
from face3d_tune.search.compare_engine import compare
from face3d_tune.search.script_search import ScriptSearch, open_script_search
from face3d_tune.search.search import Search
from face3d_tune.search.search_options import SearchOptions, WorkerOptions
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.storage.retry import DEFAULT_TIMEOUT
from face3d_tune.storage.study_names import name_to_search
from face3d_tune.storage.workers import DEFAULT_SILENCE
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.growth import require_begun
from face3d_tune.study.space import Space
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.winners import Winners, winners_of
from face3d_tune.system.limits import cores
from face3d_tune.system.paths import expanded


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """The plan of how a script trains: trials at once, and where."""

    slots: int
    devices: tuple[str, ...]  # as torch names them
    threads: int  # of each script on a CPU
    engine: Literal["script"] = "script"

    @property
    def where(self) -> str:
        """Return the devices in words, as trials store them."""
        return ", ".join(self.devices)

    def __str__(self) -> str:
        threads = "" if self.devices[0].startswith("cuda") else f"; threads of each: {self.threads}"
        return f"{self.where}; scripts at once: {self.slots}{threads}"


@dataclass(frozen=True, slots=True)
class PreparedScript:
    """The inputs of such a search (`run_search.Prepared`)."""

    storage: Storage
    name: str
    file: ScriptStudyFile
    seed: int | None
    plan: ScriptPlan
    budget: int
    target: float | None
    target_epochs: int
    accept_changed: bool
    warn: Callable[[str], None]
    silence: float
    trial_timeout: float | None
    engine: Engine  # of the built-in trainer, with which the script is compared
    stage: WarmStart | None = None
    wider: Space | None = None
    winners: Winners | None = None

    @property
    def opening(self) -> str:
        """Return what takes time when the study is created."""
        return "training an epoch of the script, to compare it with the built-in trainer"

    def open(self, storage: RDBStorage, workers: WorkerOptions) -> ScriptSearch:
        """Open or create the study. Raises StudyError."""
        return open_script_search(
            storage,
            self.name,
            self.file,
            self.seed,
            device=self.plan.where,
            accept_changed=self.accept_changed,
            target=self.target,
            target_epochs=self.target_epochs,
            silence=self.silence,
            storage_timeout=workers.storage_timeout or DEFAULT_TIMEOUT,
            artifacts=None if workers.artifacts is None else Artifacts.parse(workers.artifacts),
            keep_checkpoints=workers.keep_checkpoints,
            note=self.warn,
            compare=self._compare,
            wider=self.wider,
        )

    def _compare(self) -> Comparison | NotCompared | None:
        plan = self.plan
        return compare(self.file, engine=self.engine, slots=plan.slots, devices=plan.devices, threads=plan.threads)

    def slots(self, search: Search) -> Slots:
        """Open the slots of the plan."""
        assert isinstance(search, ScriptSearch)
        ours = [search.folders.root.parent, *([self.storage.sqlite_file] if self.storage.sqlite_file else [])]
        study = StudyAttr.id.of(search.study.user_attrs)
        how = running(search.stored, self.file.flags, study=study, ours=[path.absolute() for path in ours])
        plan = self.plan
        return ScriptSlots(
            how,
            search.folders.root,
            plan.slots,
            plan.devices,
            plan.threads,
            silence=self.silence,
            timeout=self.trial_timeout,
        )


def prepare(
    options: SearchOptions,
    warn: Callable[[str], None],
    connecting: Callable[[Storage], object] = lambda storage: None,
) -> PreparedScript:
    """Read and check the inputs. Raises StudyFileError, ExportError, ConfigError and StorageError."""
    study, budget = options.search, options.budget
    typed = study.study_name_or_file
    if not study_file.has_script(typed):
        raise StudyFileError(
            f"study {typed!r} has no table [script], which says what to measure",
            f"write a study file for the script: face3d-tune script {study.script}, then --study FILE.toml",
        )
    file = study_file.read(expanded(typed), study.script)
    storage = Storage.parse(study.storage)
    if budget.epochs is not None:
        if file.script.epochs_flag is None:
            raise ConfigError(
                f"--epochs {budget.epochs} cannot be passed to the script: {file.path} names no epochs_flag",
                "set script.epochs_flag, or omit --epochs",
            )
        file = replace(file, epochs=budget.epochs)
    connecting(storage)
    name = name_to_search(storage, study.study_name or file.name)
    wider = None if study.space is None else study_file.read_space(study.space, file)
    if study.space is not None:
        require_begun(storage, name, study.space)
    winners = None
    if study.like:
        space = {**file.space, **(wider or {})}
        winners = winners_of(study.like, storage, name, file, space=space, script=file.script.path.name)
    return PreparedScript(
        storage,
        name,
        file,
        study.seed,
        script_plan(options.device.device, options.device.slots),
        budget.trials or file.trials,
        budget.target,
        budget.target_epochs or 1,
        study.accept_changed_script,
        warn,
        options.workers.worker_timeout or DEFAULT_SILENCE,
        options.workers.trial_timeout,
        options.device.engine,
        wider=wider,
        winners=winners,
    )


def script_plan(device: str, slots: int | None) -> ScriptPlan:
    """Choose the trials at once: one a GPU, or one a core; the cores are divided among the scripts.

    A script alone leaves a core to others, as `device.set_threads` does: threads that wait for each other spin.
    """
    devices = _devices(device)
    gpu = devices[0].startswith("cuda")
    count = slots or (cores().amount if devices == ("cpu",) else len(devices))
    if gpu and count < len(devices):
        devices = devices[:count]
    threads = cores().amount // count if count > 1 else cores().amount - 1
    return ScriptPlan(count, devices, max(1, threads))


def _devices(names: str) -> tuple[str, ...]:
    """Return the devices called `names`. Raises ConfigError.

    Unlike `choose_devices` it asks no GPU: this process would take memory there that the scripts need.
    """
    words = [name.strip() for name in names.split(",")]
    gpus = [re.fullmatch(r"cuda(?::(\d+))?", word) for word in words]
    if len(set(words)) < len(words) or not all(gpus):
        return tuple(map(str, choose_devices(names)))
    there = torch.cuda.device_count()
    for word, gpu in zip(words, gpus, strict=True):
        if gpu and int(gpu[1] or 0) >= there:
            raise ConfigError(f"--device {word} cannot be used: torch sees {there} GPUs", "try --device auto")
    return tuple(words)
