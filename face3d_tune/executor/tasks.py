"""Tasks for a slot and the events that come back, also across processes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from face3d_tune.config import TrialConfig

if TYPE_CHECKING:
    from face3d_tune.device import Precision
    from face3d_tune.training.base import EpochResult

RETRIES = 3  # of a training whose process died, in whichever process


@dataclass(frozen=True, slots=True)
class Task:
    """One training; `number` is the trial's."""

    number: int
    config: TrialConfig
    seed: int
    precision: "Precision"
    key: str | None = None  # under which its checkpoints are saved, whichever worker trains it; None: no checkpoints
    retry: bool = False  # whether a worker has begun it before
    fold: int = 1  # the fold of `folds` that it trains on
    folds: int = 1

    def without_mixed_precision(self) -> "Task | None":
        """Return the task that begins again after mixed precision led to NaN; None if this one had none."""
        if self.precision == "off":
            return None
        return replace(self, precision="off", retry=False)  # of that there is no checkpoint yet


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a training gives no more epochs."""

    message: str
    non_finite: bool = False
    out_of_memory: bool = False
    died: bool = False  # its process died, which says nothing about the training
    timed_out: bool = False  # it gave no epoch for too long, so its process was ended
    beside: bool = False  # its process was ended because of a training beside it, perhaps


@dataclass(frozen=True, slots=True)
class Resumed:
    """A training resumed after these epochs, or begun again if there are none; `note` says what went wrong."""

    results: "tuple[EpochResult, ...]"
    precision: "Precision"  # of the resumed training
    note: str | None


@dataclass(frozen=True, slots=True)
class Note:
    """A message for a person that ends no training."""

    text: str


@dataclass(frozen=True, slots=True)
class ScriptEpoch:
    """An epoch of a user's script, from 1, and the numbers that it gave in this epoch, by name.

    Epoch 1 after a later one: the script begins again, as it could not resume.
    """

    epoch: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ScriptEnded:
    """A user's script that ended by itself, with exit code 0, or at its time limit; all its epochs came before."""

    strays: tuple[str, ...] = ()  # command lines of processes that it left behind, which were ended
    changed: tuple[str, ...] = ()  # files that changed in its own folder meanwhile
    over_time: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a training: an epoch, the resumed epochs, a note, a failure, or the end of a script."""

    number: int
    content: "EpochResult | Resumed | Note | Failure | ScriptEpoch | ScriptEnded"
