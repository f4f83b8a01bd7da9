"""The inputs of a search with the built-in trainer, checked before a storage is created or changed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from optuna.storages import RDBStorage

from face3d_tune.data.face_data import FaceData, load
from face3d_tune.device import choose_devices, choose_precision, set_threads
from face3d_tune.executor.plan import Plan, choose
from face3d_tune.executor.slots import Slots
from face3d_tune.search import target
from face3d_tune.search.open_study import check
from face3d_tune.search.search import Search
from face3d_tune.search.search_options import SearchOptions, WorkerOptions
from face3d_tune.search.trainer_search import TrainerSearch, open_search
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.storage.retry import DEFAULT_TIMEOUT
from face3d_tune.storage.study_names import name_to_search
from face3d_tune.storage.workers import DEFAULT_SILENCE
from face3d_tune.study import study_file
from face3d_tune.study.growth import require_begun
from face3d_tune.study.objective import Objective
from face3d_tune.study.settings import Settings
from face3d_tune.study.space import Space
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.study_file import BoundStudyFile
from face3d_tune.study.warm_start import take_up
from face3d_tune.study.winners import Winners, winners_of


@dataclass(frozen=True, slots=True)
class PreparedTrainer:
    """The inputs of such a search (`run_search.Prepared`)."""

    storage: Storage
    name: str
    file: BoundStudyFile
    stage: WarmStart | None
    settings: Settings
    setup: Setup
    plan: Plan
    budget: int
    trial_timeout: float | None
    wider: Space | None = None
    winners: Winners | None = None

    @property
    def opening(self) -> str:
        """Return what takes time when the study is created: half a minute for wide embeddings."""
        return "measuring ridge and kernel ridge, the lines to pass"

    def open(self, storage: RDBStorage, workers: WorkerOptions) -> TrainerSearch:
        """Open or create the study. Raises StudyError."""
        return open_search(
            storage,
            self.name,
            self.file,
            self.settings,
            self.setup,
            silence=workers.worker_timeout or DEFAULT_SILENCE,
            storage_timeout=workers.storage_timeout or DEFAULT_TIMEOUT,
            artifacts=None if workers.artifacts is None else Artifacts.parse(workers.artifacts),
            checkpoint_every=workers.checkpoint_every,
            keep_checkpoints=workers.keep_checkpoints,
            stage=self.stage,
            wider=self.wider,
        )

    def slots(self, search: Search) -> Slots:
        """Open the slots of the plan."""
        assert isinstance(search, TrainerSearch)
        return self.plan.open(self.setup.data, search.retention.checkpoints, timeout=self.trial_timeout)


def prepare(
    options: SearchOptions,
    warn: Callable[[str], None],
    connecting: Callable[[Storage], object] = lambda storage: None,
) -> PreparedTrainer:
    """Read and check the inputs. Raises StudyFileError, DataError, ConfigError, StorageError and StudyError."""
    study, budget = options.search, options.budget
    file = study_file.read(study.study_name_or_file)
    storage = Storage.parse(study.storage)
    devices = choose_devices(options.device.device)
    precision, notice = choose_precision(options.device.amp, *devices)
    data = _load(options)
    for line in (*data.warnings, *([notice] if notice else [])):
        warn(line)
    objective = Objective(study.objective or file.objective)
    target.check(budget.target, objective)
    settings = Settings(study.layout, budget.epochs or file.epochs, study.seed, study.folds, objective)
    setup = Setup(data, devices[0], precision, budget.target, budget.target_epochs or 1, devices[1:])
    connecting(storage)
    name = name_to_search(storage, study.study_name or file.name)
    use_amp = options.device.amp != "off"
    bound = file.bind(study.layout, data.feature_size, settings.epochs, use_amp=use_amp)
    wanted = bound.space
    bound, stage = take_up(storage, name, study.before, data, bound, settings)
    if lacking := ", ".join(parameter for parameter in wanted if parameter not in bound.space):
        warn(f"study {name!r} was made before {file.path.name} searched {lacking}, and goes on without")
    check(bound, settings, data)
    wider, largest = None, bound.extreme_configs()
    if study.space is not None:
        wider = study_file.read_space(study.space)
        require_begun(storage, name, study.space)
        largest += replace(bound, space={**bound.space, **wider}, presets={}).extreme_configs()
    space = {**bound.space, **(wider or {})}
    winners = winners_of(study.like, storage, name, bound, space=space) if study.like else None
    plan = choose(options.device.engine, options.device.slots, devices, data, largest, study.folds)
    set_threads(1 if plan.engine == "batched" else None)  # others train
    total, timeout = budget.trials or file.trials, options.workers.trial_timeout
    return PreparedTrainer(storage, name, bound, stage, settings, setup, plan, total, timeout, wider, winners)


def _load(options: SearchOptions) -> FaceData:
    data = options.data
    return load(data.data_dir, split=data.split, min_yaw=data.min_yaw, max_yaw=data.max_yaw, turn_angle=data.turn_angle)
