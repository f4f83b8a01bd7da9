"""What a person can choose about a search, as `face3d-tune run` groups it. Loads nothing that only work needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face3d_tune.config import Layout
    from face3d_tune.data.pairs import Split, TurnAngle
    from face3d_tune.device import Amp
    from face3d_tune.executor.plan import Engine


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """Which study is searched, and under which conditions."""

    study_name_or_file: str  # of the study file
    study_name: str | None  # None: the study file's name
    before: str | None  # the study that this one continues from
    storage: str  # its URL
    layout: "Layout"
    folds: int
    seed: int | None  # None: the study's own, or the default for a new one


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """When the search ends; None leaves it to the study file, or sets no limit."""

    trials: int | None
    epochs: int | None
    timeout: float | None  # seconds
    target: float | None
    target_epochs: int | None


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Which data, which pairs of them, and which people validate."""

    data_dir: Path | None  # None: the bundled sample
    split: "Split"
    min_yaw: float  # degrees
    max_yaw: float | None  # degrees
    turn_angle: "TurnAngle"


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """Where trials train, in which precision, and how many at once."""

    device: str
    amp: "Amp"
    engine: "Engine"
    slots: int | None  # None: chosen for the device


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What this worker keeps, and how long it and the database may be away."""

    artifacts: str | None  # None keeps no checkpoints
    checkpoint_every: float  # seconds
    keep_checkpoints: int  # finished trials
    worker_timeout: float | None  # seconds
    storage_timeout: float | None  # seconds


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Everything that one search needs to know."""

    search: StudyOptions
    budget: BudgetOptions
    data: DataOptions
    device: DeviceOptions
    workers: WorkerOptions
