"""One search from its options to its end. A view receives what happens, and prints it."""

import math
import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Protocol

from face3d_tune.data.face_data import FaceData, load
from face3d_tune.device import choose_device, choose_precision, set_threads
from face3d_tune.executor.plan import Plan, choose
from face3d_tune.search import target
from face3d_tune.search.open_study import check
from face3d_tune.search.search import Search, open_search
from face3d_tune.search.search_options import SearchOptions
from face3d_tune.search.trial_loop import Watcher
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.storage.retry import DEFAULT_TIMEOUT
from face3d_tune.storage.study_names import name_to_search
from face3d_tune.storage.workers import DEFAULT_SILENCE
from face3d_tune.study import study_file
from face3d_tune.study.objective import Objective
from face3d_tune.study.settings import Settings
from face3d_tune.study.study_file import BoundStudyFile
from face3d_tune.study.warm_start import WarmStart, take_up


class ShownWatcher(Watcher, Protocol):
    """A watcher that is shown while trials train."""

    def shown(self) -> AbstractContextManager[object]:
        """Show what happens, and catch interrupts, until the block ends."""


@dataclass(frozen=True, slots=True)
class OpenSearch:
    """A search whose study is open, before its first trial."""

    search: Search
    storage: Storage
    plan: Plan
    stage: WarmStart | None
    requeued: int  # trials of dead workers
    nothing_to_do: bool  # the budget is spent, or the target reached


class View(Protocol):
    """The display of a search: on a terminal, or as JSON for a program."""

    def warning(self, line: str) -> None:
        """Show something odd about the data or the device."""

    def opening(self) -> AbstractContextManager[object]:
        """Show, until the block ends, that the study is being opened."""

    def opened(self, opened: OpenSearch) -> ShownWatcher:
        """Introduce the search, and return the watcher of its trials."""

    def interrupted(self, opened: OpenSearch) -> None:
        """Say where an interrupted search stands."""

    def ended(self, opened: OpenSearch) -> None:
        """Show the result."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The inputs of a search, checked before a storage is created or changed."""

    storage: Storage
    name: str
    file: BoundStudyFile
    stage: WarmStart | None
    settings: Settings
    setup: Setup
    plan: Plan
    budget: int


def run_search(options: SearchOptions, view: View) -> None:
    """Search for better hyperparameters, or continue a search. Raises the errors of `open_search` and `Search.run`."""
    timeout = options.budget.timeout
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    prepared = _prepare(options, view)
    with prepared.storage.searching(), prepared.storage.opened(create=True) as storage:
        workers = options.workers
        with view.opening():
            search = open_search(
                storage,
                prepared.name,
                prepared.file,
                prepared.settings,
                prepared.setup,
                silence=workers.worker_timeout or DEFAULT_SILENCE,
                storage_timeout=workers.storage_timeout or DEFAULT_TIMEOUT,
                artifacts=None if workers.artifacts is None else Artifacts.parse(workers.artifacts),
                checkpoint_every=workers.checkpoint_every,
                keep_checkpoints=workers.keep_checkpoints,
                stage=prepared.stage,
            )
        _run(search, prepared, view, deadline)


def _prepare(options: SearchOptions, view: View) -> _Prepared:
    study, budget = options.search, options.budget
    file = study_file.read(study.study_name_or_file)
    storage = Storage.parse(study.storage)
    device = choose_device(options.device.device)
    precision, notice = choose_precision(options.device.amp, device)
    data = _load(options)
    for line in (*data.warnings, *([notice] if notice else [])):
        view.warning(line)
    objective = Objective(study.objective or file.objective)
    target.check(budget.target, objective)
    settings = Settings(study.layout, budget.epochs or file.epochs, study.seed, study.folds, objective)
    setup = Setup(data, device, precision, budget.target, budget.target_epochs or 1)
    name = name_to_search(storage, study.study_name or file.name)
    use_amp = options.device.amp != "off"
    bound = file.bind(study.layout, data.feature_size, settings.epochs, use_amp=use_amp)
    wanted = bound.space
    bound, stage = take_up(storage, name, study.before, data, bound, settings)
    if lacking := ", ".join(parameter for parameter in wanted if parameter not in bound.space):
        view.warning(f"study {name!r} was made before {file.path.name} searched {lacking}, and goes on without")
    check(bound, settings, data)
    plan = choose(options.device.engine, options.device.slots, device, data, bound.extreme_configs(), study.folds)
    set_threads(1 if plan.engine == "batched" else None)  # others train
    return _Prepared(storage, name, bound, stage, settings, setup, plan, budget.trials or file.trials)


def _load(options: SearchOptions) -> FaceData:
    data = options.data
    return load(data.data_dir, split=data.split, min_yaw=data.min_yaw, max_yaw=data.max_yaw, turn_angle=data.turn_angle)


def _run(search: Search, prepared: _Prepared, view: View, deadline: float) -> None:
    """Search in an open study, until the budget is spent."""
    requeued = search.requeue_abandoned()
    search.queue.budget = prepared.budget
    nothing_to_do = search.queue.budget_spent() or search.target_reached()
    if not nothing_to_do:
        search.enqueue_presets()
    plan = prepared.plan
    opened = OpenSearch(search, prepared.storage, plan, prepared.stage, requeued, nothing_to_do)
    watcher = view.opened(opened)
    if not nothing_to_do:
        try:
            with closing(plan.open(prepared.setup.data, search.retention.checkpoints)) as slots, watcher.shown():
                search.run(prepared.budget, watcher, slots=slots, deadline=deadline)
        except KeyboardInterrupt:
            view.interrupted(opened)
            raise
    search.retention.note = watcher.note
    search.retention.tidy()  # now that nothing trains
    view.ended(opened)
