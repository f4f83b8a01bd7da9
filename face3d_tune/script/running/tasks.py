"""What goes into a slot for scripts: one training, and how all trials of a study run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from face3d_tune.script.running.numbers import Source


@dataclass(frozen=True, slots=True)
class ScriptTask:
    """One training of a script; `number` is the trial's."""

    number: int
    command: tuple[str, ...]  # Python, the script, its flags without those of folders and of resuming
    key: str  # of its folder and its mark, whichever worker trains it
    retry: bool = False  # whether a worker has begun it before
    fold: int = 1
    folds: int = 1
    epochs: int | None = None  # that it is asked for; None: as many as the script trains


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How all trials of a study run the script; flags are as typed, `--save_dir`."""

    script: Path
    study: str  # tells the study from every other on this machine: part of the mark of each process
    metric: str
    source: Source
    direction: Literal["maximize", "minimize"] = "maximize"
    keep: str | None = None  # the number by whose best value the script keeps its checkpoint; None: the metric
    resume_flag: str | None = None
    checkpoint: str | None = None  # glob in the trial's folder; None: the newest of the usual names
    folder_flags: tuple[str, ...] = ()  # each gets a folder of the trial's own
    start_in: Path | None = None  # None: the trial's folder
    environment: Mapping[str, str] = field(default_factory=dict)
    time_limit: float | None = None  # seconds of an attempt
    ours: tuple[Path, ...] = ()  # folders and files that this program writes, perhaps beside the script
