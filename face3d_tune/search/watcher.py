"""Who observes a search: a terminal, a caller in Python, a test."""

from collections.abc import Mapping
from typing import Any, Protocol

from optuna.trial import FrozenTrial

from face3d_tune.study.objective import Epoch


class ShownEpoch(Epoch, Protocol):
    """An epoch, as a watcher sees it."""

    @property
    def lr(self) -> float | None:
        """Return its learning rate; None if it is not known."""

    @property
    def next_lr(self) -> float | None:
        """Return the learning rate of the next epoch; None if it is not known."""

    @property
    def rank1(self) -> float | None:
        """Return rank-1 among all enrolled, if it was measured."""


class Watcher(Protocol):
    """The observer of a search: a terminal, or a test."""

    def trial_started(self, number: int, preset: str | None, config: Mapping[str, Any]) -> None:
        """Take note that a trial begins to train, with these values."""

    def fold_started(self, number: int, fold: int, folds: int) -> None:
        """Take note that a trial of several folds begins this one (1-based), or restarts it."""

    def epoch_ended(self, number: int, result: ShownEpoch) -> None:
        """Take note of an epoch, trained and validated. An exception from here stops the search at once."""

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Take note that Optuna has been told of a trial's end."""

    def trial_lost(self, number: int, reason: str) -> None:
        """Take note that a trial was reassigned to another worker, or ended by another program."""

    def note(self, line: str) -> None:
        """Take a message for the user; it may come from another thread."""

    def warning(self, line: str) -> None:
        """Take a message that the user needs, with `--quiet` too."""

    def stopping(self) -> bool:
        """Tell whether the search should stop when the running epochs have ended."""
