"""What goes into a slot and what comes out of it, also from and to another process."""

from dataclasses import dataclass

from face3d_tune.config import TrialConfig
from face3d_tune.device import Precision
from face3d_tune.training.base import EpochResult

RETRIES = 3  # of a training whose process died, whichever process that was


@dataclass(frozen=True, slots=True)
class Task:
    """One training: `number` is the trial's."""

    number: int
    config: TrialConfig
    seed: int
    precision: Precision
    key: str | None = None  # under which its checkpoints are kept, and were by whoever trained it before; None: nowhere
    retry: bool = False  # whether somebody has begun it before
    fold: int = 1  # of the data's `folds`, on which it trains
    folds: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a training gives no more epochs."""

    message: str
    non_finite: bool = False
    out_of_memory: bool = False
    died: bool = False  # its process, which says nothing about the training yet


@dataclass(frozen=True, slots=True)
class Resumed:
    """A training goes on after these epochs, or begins again if there are none; `note` says what went wrong."""

    results: tuple[EpochResult, ...]
    precision: Precision  # in which it goes on
    note: str | None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should know and that no training ends by."""

    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """What a training gave: an epoch, the epochs before it, a word, or the end of all hope."""

    number: int
    given: EpochResult | Resumed | Note | Failure
