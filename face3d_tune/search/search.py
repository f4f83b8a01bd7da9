"""A search: try the presets of a study, then ask Optuna and tell it, until the budget is spent.

`trial_queue` changes its trials, `trial_loop` runs them; this module decides what is tried.
"""

import math

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from face3d_tune import seeds
from face3d_tune.data.provenance import DataUse
from face3d_tune.device import device_name
from face3d_tune.errors import ConfigError
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.slots import PlainSlot, Slots
from face3d_tune.search import queued_params
from face3d_tune.search.algorithms import make_sampler
from face3d_tune.search.failed_trials import FailuresAsWorst
from face3d_tune.search.open_study import open_study, store_baselines
from face3d_tune.search.pruning import TrialReporter
from face3d_tune.search.retention import DEFAULT_KEEP, Retention
from face3d_tune.search.target import reached
from face3d_tune.search.trial_loop import Loop, Watcher
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.trial_run import Outcome, Setup, TrialRun
from face3d_tune.storage.artifacts import Artifacts, unique_name
from face3d_tune.storage.optuna_internals import record_of
from face3d_tune.storage.retry import DEFAULT_TIMEOUT, DatabaseRetry
from face3d_tune.storage.workers import DEFAULT_SILENCE, Heartbeat
from face3d_tune.study.attrs import Effort, StudyAttr, TrialAttr
from face3d_tune.study.settings import Settings
from face3d_tune.study.space import suggest
from face3d_tune.study.study_file import BoundStudyFile
from face3d_tune.study.trials import OUTSIDE
from face3d_tune.study.warm_start import WarmStart


class Search:
    """One study, its study file and data, and this process as one of its workers. `open_search` makes one.

    `stage` is the warm start that `file` contains, if any.
    """

    def __init__(
        self,
        queue: TrialQueue,
        file: BoundStudyFile,
        settings: Settings,
        setup: Setup,
        retention: Retention,
        *,
        storage_timeout: float = DEFAULT_TIMEOUT,
        stage: WarmStart | None = None,
    ) -> None:
        self.queue, self.study, self.worker = queue, queue.study, queue.worker
        self.file, self.settings, self.setup, self.retention = file, settings, setup, retention
        self._storage_timeout = storage_timeout
        self.seed: int = StudyAttr.settings.of(self.study.user_attrs)["seed"]
        # The best config of the study before gets a new seed: with the old one its value would only repeat.
        self._before = (stage.study,) if stage else ()

    def finished(self) -> int:
        """Count the trials within the budget: completed or pruned."""
        return self.queue.finished()

    def target_reached(self) -> bool:
        """Tell whether a completed trial has reached the target."""
        if self.setup.target is None:
            return False  # saves reading the study
        completed = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return any(
            reached(trial, self.setup.target, self.setup.target_epochs, self.settings.objective) for trial in completed
        )

    def requeue_abandoned(self) -> int:
        """Requeue the trials of dead workers; return how many there were."""
        return len(self.queue.requeue_orphans())

    def enqueue_presets(self) -> None:
        """Enqueue every preset that the study does not hold yet, in the order of the study file."""
        presets, _ = self.file.distinct_presets()
        self.queue.enqueue(presets)

    def run(self, budget: int, watcher: Watcher, *, slots: Slots | None = None, deadline: float = math.inf) -> None:
        """Search until the budget is spent, the target is reached, or no time is left.

        Every free slot gets the next trial, until the trials in training, here and at other workers, could fill the
        budget. This worker then waits, in case another one dies. Trials that run at the deadline are still finished.

        A stop requested by the watcher lets the running epochs end, and raises KeyboardInterrupt. The target and any
        exception end the search at once. Running trials are requeued; if the database is away, by the next worker.

        Args:
            budget: Total number of finished trials, earlier runs included.
            watcher: Receives events and notes, and may request a stop.
            slots: Where trials train; by default one after another with the plain trainer.
            deadline: Of time.monotonic; no trial starts after it.

        Raises:
            TrainingError: Several trials in a row failed.
            StorageAwayError: The database did not answer for too long.
            StudyGoneError: The study was deleted.
        """
        slots = slots or PlainSlot(self.setup.data, self.setup.device)
        self.queue.budget = budget
        self.queue.note = self.retention.note = watcher.note
        with self.queue.on_study():
            self._store_effort()
            self.retention.tidy()
        loop = Loop(
            self.queue,
            lambda trial, reporter: self._begin(trial, reporter, slots.engine, watcher),
            slots,
            watcher,
            DatabaseRetry(self._storage_timeout, watcher.note),
            deadline=deadline,
            target_reached=self.target_reached,
            retain=self.retention.take,
        )
        with Heartbeat(self.worker, self.queue.requeue_orphans, watcher.note):
            loop.run()

    def _store_effort(self) -> None:
        """Store budget, target, sampler and pruner of this run; those of the next run may differ."""
        effort: Effort = {"trials": self.queue.budget, "target": self.setup.target}
        if self.setup.target_epochs > 1:
            effort["target_epochs"] = self.setup.target_epochs
        effort |= {"sampler": self.file.sampler.name, "pruner": self.file.pruner.name}
        if StudyAttr.effort.get(self.study.user_attrs) != effort:
            self.study.set_user_attr(StudyAttr.effort.key, effort)

    def _begin(self, trial: optuna.Trial, reporter: TrialReporter, engine: str, watcher: Watcher) -> TrialRun | Outcome:
        """Sample the parameters that no preset sets, and return the run; an invalid config fails the trial."""
        frozen = record_of(trial)
        ordinal = TrialAttr.ordinal.of(frozen.user_attrs)
        # Every trial samples with a seed of its own, on every worker. Optuna calls the sampler only below.
        sampler_seed = seeds.derive(self.seed, "sampler", ordinal)
        self.study.sampler = FailuresAsWorst(make_sampler(self.file, sampler_seed))
        try:
            request = queued_params.read(frozen, self.file)
            searched = {name: row for name, row in self.file.space.items() if name not in request.overrides}
            config = self.file.config(
                {name: suggest(trial, name, row) for name, row in searched.items()}, request.overrides
            )
        except ConfigError as error:  # it would fail again, so it is not requeued
            cause = OUTSIDE if queued_params.from_outside(frozen) else "error"
            failed = {TrialAttr.stop_reason.key: "error", TrialAttr.cause.key: cause}
            return Outcome("error", None, failed | {TrialAttr.error.key: error.message})
        seed = seeds.derive(self.seed, "trial", *self._before, ordinal) if request.seed is None else request.seed
        attrs = {  # stored together with the config
            TrialAttr.seed.key: seed,
            TrialAttr.sampler_seed.key: sampler_seed,
            TrialAttr.worker.key: self.worker.label,
            TrialAttr.device.key: device_name(self.setup.device),
            TrialAttr.engine.key: engine,
            TrialAttr.preset.key: request.preset,
            TrialAttr.config.key: config.to_dict(),
        }
        self.queue.store(trial, attrs)

        def note(line: str) -> None:
            watcher.note(f"trial {trial.number}: {line}")

        if request.ignored:
            note(queued_params.say_ignored(request.ignored, self.file))
        return TrialRun(
            trial.number,
            config,
            self.setup,
            seed=seed,
            reporter=reporter,
            key=self.retention.key(trial),
            retry=TrialAttr.retry_of.held_by(frozen.user_attrs),
            folds=self.settings.folds,
            objective=self.settings.objective,
            note=note,
        )


def open_search(
    storage: RDBStorage,
    name: str,
    file: BoundStudyFile,
    settings: Settings,
    setup: Setup,
    *,
    silence: float = DEFAULT_SILENCE,
    storage_timeout: float = DEFAULT_TIMEOUT,
    artifacts: Artifacts | None = None,
    checkpoint_every: float = 0.0,
    keep_checkpoints: int = DEFAULT_KEEP,
    stage: WarmStart | None = None,
) -> Search:
    """Open or create a study, join its workers, and return the search.

    Raises the errors of `open_study` and `Worker`.
    """
    study = open_study(storage, name, file, settings, setup.data, stage)
    store_baselines(study, setup.data, settings.folds)
    queue = TrialQueue(study, storage, silence=silence)
    checkpoints = None
    if artifacts is not None:
        unique = unique_name(name, StudyAttr.id.of(study.user_attrs))
        checkpoints = Checkpoints(artifacts, unique, checkpoint_every, DataUse.of(setup.data))
    retention = Retention(study, checkpoints, keep_checkpoints, settings.folds)
    return Search(queue, file, settings, setup, retention, storage_timeout=storage_timeout, stage=stage)
