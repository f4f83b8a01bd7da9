"""The options of a search, in the groups of `face3d-tune run`. Imports nothing heavy: every `--help` loads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face3d_tune.config import Layout
    from face3d_tune.data.pairs import Split, TurnAngle
    from face3d_tune.device import Amp
    from face3d_tune.executor.plan import Engine
    from face3d_tune.study.objective import ObjectiveName


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """The study to search, and the settings that all its trials share."""

    study_name_or_file: str  # of the study file
    study_name: str | None  # None: the study file's name
    before: str | None  # the study that this one continues from
    storage: str  # its URL
    layout: "Layout"
    folds: int
    seed: int | None  # None: the study's own, or the default for a new one
    objective: "ObjectiveName | None"  # None: the study file's
    script: Path | None  # the user's own script; None: the one of the study file, or the built-in trainer
    accept_changed_script: bool  # whether a study goes on although its script changed
    like: str | None = None  # the study on other data whose winners are first trials
    space: Path | None = None  # the file whose [space] the study grows to


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """The end of the search; None: as in the study file, or no limit."""

    trials: int | None
    epochs: int | None
    timeout: float | None  # seconds
    target: float | None
    target_epochs: int | None


@dataclass(frozen=True, slots=True)
class DataOptions:
    """The data, the pairs that are used, and the split of people."""

    data_dir: Path | None  # None: the bundled sample
    split: "Split"
    min_yaw: float  # degrees
    max_yaw: float | None  # degrees
    turn_angle: "TurnAngle"


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """The device, the precision, and the number of trials at once."""

    device: str
    amp: "Amp"
    engine: "Engine"
    slots: int | None  # None: chosen for the device


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The checkpoints of this worker, and the timeouts of trials, worker and database."""

    artifacts: str | None  # None: no checkpoints
    checkpoint_every: float  # seconds
    keep_checkpoints: int  # finished trials
    worker_timeout: float | None  # seconds
    storage_timeout: float | None  # seconds
    trial_timeout: float | None = None  # seconds without an epoch; None: no limit


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """What is told of the search, and what follows it."""

    notify: tuple[str, ...] = ()  # URLs of services
    on_end: str | None = None  # a command


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """All options of one search."""

    search: StudyOptions
    budget: BudgetOptions
    data: DataOptions
    device: DeviceOptions
    workers: WorkerOptions
    messages: MessageOptions = MessageOptions()
