"""Slots for trials of a user's script: each is a process, its epochs come back as events."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from face3d_tune.executor.slots import WAIT
from face3d_tune.executor.tasks import Event
from face3d_tune.script.running import device_environment
from face3d_tune.script.running.attempt import Attempt
from face3d_tune.script.running.process import sweep_orphans
from face3d_tune.script.running.tasks import Running, ScriptTask
from face3d_tune.script.surroundings import environment

_LOOK = 0.2  # seconds between two looks at files and processes
_CHATTY = 0.02  # seconds between two looks at a script that prints all the time


class ScriptSlots:
    """Slots for `count` scripts at once, on the devices in turn.

    Args:
        how: How every trial runs.
        folder: Holds a folder and a log of each trial, by its key.
        count: Trials at once.
        devices: As torch names them; a script on `cuda:1` sees that GPU alone.
        threads: For each script on a CPU.
        silence: Seconds without a heartbeat of this process after which its scripts are ended.
        grace: Seconds from TERM to KILL.
        timeout: Seconds without an epoch after which a script is ended; None: no limit.
    """

    engine = "script"

    def __init__(
        self,
        how: Running,
        folder: Path,
        count: int,
        devices: Sequence[str],
        threads: int,
        *,
        silence: float = 60.0,
        grace: float = 5.0,
        timeout: float | None = None,
    ) -> None:
        self.count = count
        self._how, self._folder, self._limits = how, folder.absolute(), (silence, grace, timeout)
        self._places = [device_environment.of(devices[place % len(devices)], threads) for place in range(count)]
        self._attempts: dict[int, Attempt] = {}
        self._ending: list[tuple[Attempt, threading.Thread]] = []
        self._heard = threading.Event()
        sweep_orphans()

    def start(self, task: ScriptTask) -> None:
        """Begin a training, once the one before it in its place and another copy of its trial have ended."""
        self._ending = [(attempt, thread) for attempt, thread in self._ending if thread.is_alive()]
        taken = {attempt.place for attempt in self._attempts.values()}
        busy = {attempt.place for attempt, _ in self._ending}
        place = min(set(range(self.count)) - taken, key=lambda place: (place in busy, place))
        first = [thread for old, thread in self._ending if old.place == place or old.task.key == task.key]
        variables = {**environment(()), **self._places[place], **self._how.environment}
        self._attempts[task.number] = Attempt(
            task, self._how, self._folder, place, variables, first, self._heard.set, *self._limits
        )

    def drop(self, number: int) -> None:
        """End the process of a training, in another thread."""
        attempt = self._attempts.pop(number, None)
        if attempt is not None and (thread := attempt.end()):
            self._ending.append((attempt, thread))

    def wait(self) -> list[Event]:
        """Return the events since the last call; wait up to `WAIT` seconds for one."""
        until = time.monotonic() + WAIT
        while self._attempts:
            self._heard.clear()
            events = []
            for number, attempt in list(self._attempts.items()):
                events += [Event(number, content) for content in attempt.look()]
                if attempt.over:
                    self.drop(number)
            if events or time.monotonic() >= until:
                return events
            if self._heard.wait(_LOOK):
                time.sleep(_CHATTY)
        return []

    def save_next(self) -> bool:
        """Return False: a script saves when it wants to."""
        return False

    def close(self) -> None:
        """End all trainings; return when nothing of them runs."""
        for number in list(self._attempts):
            self.drop(number)
        for _, thread in self._ending:
            thread.join()
        self._ending = []
