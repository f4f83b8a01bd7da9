"""A window of time in which epochs are counted, and slots that know how long they were waited for."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import Event, Task
from face3d_tune.training.base import EpochResult


class WindowClosedError(Exception):
    """Every epoch that began inside the window has ended."""


@dataclass
class Window:
    """Epochs that ended while it was open or soon after; also a watcher of a search."""

    seconds: float
    at_once: bool  # whether several trainings run
    opened: float = field(default_factory=time.monotonic)
    epochs: list[tuple[float, float]] = field(default_factory=list)  # when each ended, how long it took

    def add(self, seconds: float) -> bool:
        """Take an epoch that ends now; whether no later one can reach into the window."""
        now = time.monotonic()
        self.epochs.append((now, seconds))
        late = 1.5 * max(seconds for _, seconds in self.epochs) if self.at_once else 0.0
        return now > self.opened + self.seconds + late

    def inside(self) -> list[tuple[float, float]]:
        """Of each epoch: its seconds inside the window, and all its seconds."""
        closed = self.opened + self.seconds
        return [(max(0.0, min(end, closed) - max(end - took, self.opened)), took) for end, took in self.epochs]

    def rate(self) -> float:
        """Epochs per minute."""
        return sum(share / took for share, took in self.inside()) / self.seconds * 60

    def trial_started(self, number: int, preset: str | None, config: Mapping[str, Any]) -> None:
        """Nothing to note."""

    def epoch_ended(self, number: int, result: EpochResult) -> None:
        """Take it, and end the search when the window is closed."""
        if self.add(result.seconds):
            raise WindowClosedError

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Nothing to note."""

    def trial_lost(self, number: int, reason: str) -> None:
        """Nothing to note."""

    def note(self, line: str) -> None:
        """Nothing to note."""

    def warning(self, line: str) -> None:
        """Nothing to note."""

    def stopping(self) -> bool:
        """Refuse: it is never asked for."""
        return False


class Waited:
    """Slots that know how long they were waited for: the rest of the time the parent samples, stores and prunes."""

    def __init__(self, slots: Slots) -> None:
        self.engine, self.count, self.seconds = slots.engine, slots.count, 0.0
        self._slots = slots

    def start(self, task: Task) -> None:
        """As the slots do."""
        self._slots.start(task)

    def drop(self, number: int) -> None:
        """As the slots do."""
        self._slots.drop(number)

    def save_next(self) -> None:
        """As the slots do."""
        self._slots.save_next()

    def wait(self) -> list[Event]:
        """As the slots do, on the clock."""
        started = time.monotonic()
        try:
            return self._slots.wait()
        finally:
            self.seconds += time.monotonic() - started

    def close(self) -> None:
        """As the slots do."""
        self._slots.close()
