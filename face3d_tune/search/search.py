"""A search: try the presets of a study, then ask Optuna and tell it, until the budget is spent.

`trial_queue` changes its trials, `trial_loop` runs them; this module decides what is tried.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune import seeds
from face3d_tune.errors import ConfigError
from face3d_tune.executor.slots import Slots
from face3d_tune.search import queued_params
from face3d_tune.search.added_trials import enqueue_presets
from face3d_tune.search.algorithms import make_sampler
from face3d_tune.search.exclude import ExclusionWatch
from face3d_tune.search.failed_trials import FailuresAsWorst
from face3d_tune.search.pruning import TrialReporter
from face3d_tune.search.stop import StopWatch
from face3d_tune.search.target import reached
from face3d_tune.search.trial_loop import Loop, Run
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.trial_run import Outcome
from face3d_tune.search.watcher import Watcher
from face3d_tune.storage.optuna_internals import fixed_params, params_in_memory, record_of, stored_attr
from face3d_tune.storage.retry import ASKED_AGAIN, DEFAULT_TIMEOUT, WAITS_HERE, DatabaseRetry
from face3d_tune.storage.workers import Heartbeat
from face3d_tune.study.attrs import Effort, StudyAttr, TrialAttr
from face3d_tune.study.causes import OUTSIDE
from face3d_tune.study.exclusions import exclusions_of, read_trials
from face3d_tune.study.growth import GrownSpace, as_grown
from face3d_tune.study.objective import Objective
from face3d_tune.study.searched_file import SearchedFile
from face3d_tune.study.space import describe, suggest
from face3d_tune.study.study_file import InitialTrial


@dataclass(frozen=True, slots=True)
class Begun:
    """A trial that has got its config, before it trains."""

    number: int
    config: Any  # as the study file makes it
    seed: int
    reporter: TrialReporter
    key: str | None  # under which checkpoints are saved; None: no checkpoints
    retry: bool  # whether a worker has begun it before
    note: Callable[[str], None]


class KeptFiles(Protocol):
    """What is kept of the trainings of a study: `retention.Retention`, or `script_folders.ScriptFolders`."""

    note: Callable[[str], object]

    def key(self, trial: FrozenTrial | optuna.Trial) -> str | None:
        """Return the key of a trial's files, whichever worker trains it."""

    def take(self, trial: FrozenTrial) -> None:
        """Keep or remove the files of an ended trial."""

    def tidy(self) -> None:
        """Remove what dead workers have left."""


class Search(ABC):
    """One study, its study file, and this process as one of its workers.

    A subclass knows what trains: `TrainerSearch` the built-in trainer, `script_search.ScriptSearch` a script.

    Attributes:
        queue: The trials, as this worker may change them.
        file: The study file.
        objective: What a trial's value is.
        retention: What is kept of the trainings.
        stop: Requests to stop the search.
        exclusions: Trials that people exclude.
        told: Called with every trial of this worker that has ended.
        target: Value that ends the search.
        target_epochs: Epochs in a row that must reach it.
        seed: Of the study; the seeds of its trials follow from it.
    """

    def __init__(
        self,
        queue: TrialQueue,
        file: SearchedFile,
        objective: Objective,
        retention: KeptFiles,
        *,
        target: float | None = None,
        target_epochs: int = 1,
        storage_timeout: float = DEFAULT_TIMEOUT,
        before: Sequence[str] = (),
    ) -> None:
        self.queue, self.study, self.worker = queue, queue.study, queue.worker
        self.file, self.objective = file, objective
        self.target, self.target_epochs = target, target_epochs
        self._files, self._storage_timeout = retention, storage_timeout
        self._grown = GrownSpace.of(StudyAttr.settings.of(queue.study.user_attrs))
        self.stop = StopWatch(queue.study, queue.engine)
        self.exclusions = ExclusionWatch(queue.study)
        self.told: Callable[[FrozenTrial], object] = lambda trial: None
        self.seed: int = StudyAttr.settings.of(self.study.user_attrs)["seed"]
        # The best config of the study before gets a new seed: with the old one its value would only repeat.
        self._before = tuple(before)

    @abstractmethod
    def _run_of(self, begun: Begun) -> Run:
        """Return the run of a trial. Raises ConfigError if it cannot be trained."""

    @abstractmethod
    def _attrs_of(self, begun: Begun) -> dict[str, Any]:
        """Return user attributes that are stored together with the trial's config."""

    def finished(self) -> int:
        """Count the trials within the budget: completed or pruned."""
        return self.queue.finished()

    def target_reached(self) -> bool:
        """Tell whether a completed trial has reached the target."""
        if self.target is None:
            return False  # saves reading the study
        completed = read_trials(self.study, states=(TrialState.COMPLETE,))
        return any(reached(trial, self.target, self.target_epochs, self.objective) for trial in completed)

    def requeue_abandoned(self) -> int:
        """Requeue the trials of dead workers; return how many there were."""
        return len(self.queue.requeue_orphans(*self.queue.state()))  # which the start of a search reads next

    def enqueue_presets(self, winners: Sequence[InitialTrial] = ()) -> None:
        """Enqueue what the study does not hold yet: presets in the order of the study file, then winners of another."""
        presets, _ = self.file.distinct_presets()
        enqueue_presets(self.study, self.queue.engine, [*presets, *winners])

    def search(self, budget: int, watcher: Watcher, slots: Slots, *, deadline: float = math.inf) -> None:
        """Search until the budget is spent, the target is reached, or no time is left.

        Every free slot gets the next trial, until the trials in training, here and at other workers, could fill the
        budget. This worker then waits, in case another one dies. Trials that run at the deadline are still finished.

        A stop requested by the watcher lets the running epochs end, and raises KeyboardInterrupt; one that was stored
        with the study does the same, and returns. The target and any exception end the search at once. Running trials
        are requeued; if the database is away, by the next worker.

        Args:
            budget: Total number of finished trials, earlier runs included.
            watcher: Receives events and notes, and may request a stop.
            slots: Where trials train.
            deadline: Of time.monotonic; no trial starts after it.

        Raises:
            TrainingError: Several trials in a row failed.
            StorageAwayError: The database did not answer for too long.
            StudyGoneError: The study was deleted.
        """
        self.queue.budget = budget
        self.queue.note = self._files.note = self.exclusions.note = watcher.note
        self.patience(watcher.note, watcher.warning).insist(lambda: self._begin_search(watcher.note))
        loop = Loop(
            self.queue,
            lambda trial, reporter: self._begin(trial, reporter, slots.engine, watcher),
            slots,
            watcher,
            self.patience(watcher.note, watcher.warning, meanwhile=WAITS_HERE),
            deadline=deadline,
            target_reached=self.target_reached,
            retain=self._retain,
            stop=self.stop,
            exclusions=self.exclusions,
        )
        main = threading.current_thread() is threading.main_thread()
        with Heartbeat(self.worker, lambda: self._look_around(in_main_thread=main), watcher.note):
            loop.run()

    def patience(
        self,
        note: Callable[[str], object],
        warn: Callable[[str], object] | None = None,
        *,
        meanwhile: str = ASKED_AGAIN,
    ) -> DatabaseRetry:
        """Return what retries while the database is away, as long as this search may wait for it."""
        return DatabaseRetry(self._storage_timeout, note, warn, meanwhile).watch(self.queue.engine)

    def _begin_search(self, note: Callable[[str], object]) -> None:
        """Store what this run is to do, and join the workers. It may be called again if the database goes away."""
        with self.queue.on_study():
            self._store_effort()
            self.stop.begin(note)
            self._files.tidy()
            if not self.worker.joined:
                self.worker.beat()

    def _look_around(self, *, in_main_thread: bool) -> None:
        """Look for the trials of dead workers, and for a request to stop, which may cut off the main thread alone."""
        if in_main_thread:
            self.stop.look_from_heartbeat()
        self.queue.requeue_orphans()

    def _retain(self, trial: FrozenTrial) -> None:
        self._files.take(trial)
        self.told(trial)

    def _take_up_growth(self, note: Callable[[str], object]) -> None:
        """Search the ranges to which another worker let the study grow, from this trial on."""
        settings = stored_attr(self.queue.engine, self.study, StudyAttr.settings.key)
        grown = GrownSpace.of(settings) if settings else None
        if settings and grown != self._grown:
            known = self.file.space
            self.file, self._grown = as_grown(self.file, settings), grown
            for name in (name for name, row in self.file.space.items() if known.get(name) != row):
                note(f"the range of {name} has grown: {describe(self.file.space[name])}")

    def _values_before(self, trial: FrozenTrial, request: queued_params.Queued) -> dict[str, Any]:
        """Return values of parameters that were not searched when a preset was queued, or a retried trial began."""
        kinds = (TrialAttr.preset, TrialAttr.near, TrialAttr.like)
        begun = request.seed is not None or any(kind.get(trial.user_attrs) for kind in kinds)
        known = {*(fixed_params(trial) or {}), *request.overrides}
        values = self._grown.values if self._grown and begun else {}
        return {name: value for name, value in values.items() if name in self.file.space and name not in known}

    def tidy(self, note: Callable[[str], object]) -> None:
        """Tidy the files of ended trials, now that nothing trains."""
        self._files.note = note
        self._files.tidy()

    def _store_effort(self) -> None:
        """Store budget, target, sampler and pruner of this run; those of the next run may differ."""
        effort: Effort = {"trials": self.queue.budget, "target": self.target}
        if self.target_epochs > 1:
            effort["target_epochs"] = self.target_epochs
        effort |= {"sampler": self.file.sampler.name, "pruner": self.file.pruner.name}
        if StudyAttr.effort.get(self.study.user_attrs) != effort:
            self.study.set_user_attr(StudyAttr.effort.key, effort)

    def _begin(self, trial: optuna.Trial, reporter: TrialReporter, engine: str, watcher: Watcher) -> Run | Outcome:
        """Sample the parameters that no preset sets, and return the run; an invalid config fails the trial."""
        self._take_up_growth(watcher.note)
        frozen = record_of(trial)
        ordinal = TrialAttr.ordinal.of(frozen.user_attrs)
        # Every trial samples with a seed of its own, on every worker. Optuna calls the sampler only below.
        sampler_seed = seeds.derive(self.seed, "sampler", ordinal)
        sampler = make_sampler(self.file, sampler_seed)
        self.study.sampler = FailuresAsWorst(sampler, exclusions_of(self.study), self._grown)

        def note(line: str) -> None:
            watcher.note(f"trial {trial.number}: {line}")

        try:
            request = queued_params.read(frozen, self.file)
            overrides = {**self._values_before(frozen, request), **request.overrides}
            searched = {name: row for name, row in self.file.space.items() if name not in overrides}
            with params_in_memory(trial):
                params = {name: suggest(trial, name, row) for name, row in searched.items()}
            config = self.file.config(params, overrides)
            seed = seeds.derive(self.seed, "trial", *self._before, ordinal) if request.seed is None else request.seed
            retry = TrialAttr.retry_of.held_by(frozen.user_attrs)
            begun = Begun(trial.number, config, seed, reporter, self._files.key(trial), retry, note)
            run = self._run_of(begun)
        except ConfigError as error:  # it would fail again, so it is not requeued
            cause = OUTSIDE if queued_params.from_outside(frozen) else "error"
            failed = {TrialAttr.stop_reason.key: "error", TrialAttr.cause.key: cause}
            return Outcome("error", None, failed | {TrialAttr.error.key: error.message})
        attrs = {  # stored together with the config
            TrialAttr.seed.key: seed,
            TrialAttr.sampler_seed.key: sampler_seed,
            TrialAttr.worker.key: self.worker.label,
            TrialAttr.engine.key: engine,
            TrialAttr.preset.key: request.preset,
            TrialAttr.config.key: dict(run.config),
            **self._attrs_of(begun),
        }
        self.queue.store(trial, attrs)
        if request.ignored:
            note(queued_params.say_ignored(request.ignored, self.file))
        return run
