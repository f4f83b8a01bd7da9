"""A search with the built-in trainer: its study with data and baselines, and a run of each trial."""

import math
from typing import Any

from optuna.storages import RDBStorage

from face3d_tune.data.provenance import DataUse
from face3d_tune.device import device_names
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.slots import PlainSlot, Slots
from face3d_tune.search.open_study import open_study, store_baselines
from face3d_tune.search.retention import DEFAULT_KEEP, Retention
from face3d_tune.search.search import Begun, Search
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.trial_run import Setup, TrialRun
from face3d_tune.search.watcher import Watcher
from face3d_tune.storage.artifacts import Artifacts, unique_name
from face3d_tune.storage.retry import DEFAULT_TIMEOUT
from face3d_tune.storage.workers import DEFAULT_SILENCE
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.growth import as_grown
from face3d_tune.study.settings import Settings
from face3d_tune.study.space import Space
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.study_file import BoundStudyFile


class TrainerSearch(Search):
    """A search with the built-in trainer. `open_search` makes one; `stage` is the warm start that `file` contains."""

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
        super().__init__(
            queue,
            file,
            settings.objective,
            retention,
            target=setup.target,
            target_epochs=setup.target_epochs,
            storage_timeout=storage_timeout,
            before=(stage.study,) if stage else (),
        )
        self.trained_file, self.settings, self.setup, self.retention = file, settings, setup, retention

    def run(self, budget: int, watcher: Watcher, *, slots: Slots | None = None, deadline: float = math.inf) -> None:
        """Search as `search`; by default one trial after another with the plain trainer."""
        self.search(budget, watcher, slots or PlainSlot(self.setup.data, self.setup.device), deadline=deadline)

    def _run_of(self, begun: Begun) -> TrialRun:
        return TrialRun(
            begun.number,
            begun.config,
            self.setup,
            seed=begun.seed,
            reporter=begun.reporter,
            key=begun.key,
            retry=begun.retry,
            folds=self.settings.folds,
            objective=self.objective,
            note=begun.note,
        )

    def _attrs_of(self, begun: Begun) -> dict[str, Any]:
        return {TrialAttr.device.key: device_names(self.setup.devices)}


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
    wider: Space | None = None,
) -> TrainerSearch:
    """Open or create a study, join its workers, and return the search; its space grows by the rows of `wider`.

    Raises the errors of `open_study` and `Worker`.
    """
    study = open_study(storage, name, file, settings, setup.data, stage, wider)
    file = as_grown(file, StudyAttr.settings.of(study.user_attrs))
    store_baselines(study, setup.data, settings.folds)
    queue = TrialQueue(study, storage, silence=silence)
    checkpoints = None
    if artifacts is not None:
        unique = unique_name(name, StudyAttr.id.of(study.user_attrs))
        checkpoints = Checkpoints(artifacts, unique, checkpoint_every, DataUse.of(setup.data))
    retention = Retention(study, checkpoints, keep_checkpoints, settings.folds)
    return TrainerSearch(queue, file, settings, setup, retention, storage_timeout=storage_timeout, stage=stage)
