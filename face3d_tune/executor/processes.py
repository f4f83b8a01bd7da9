"""Slots in other processes: the parent asks and tells, children train; a dead child costs only its own trials.

A child that gives no epoch for too long is killed.
"""

import contextlib
import time
from collections.abc import Hashable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from face3d_tune.data.face_data import FaceData
from face3d_tune.executor import child_start
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.child import Share, serve
from face3d_tune.executor.silence import Silence
from face3d_tune.executor.slots import WAIT
from face3d_tune.executor.tasks import Event, Failure, Task
from face3d_tune.system import signals, waiting
from face3d_tune.system.memory_kills import killed_for_memory
from face3d_tune.training.inputs import seen

_PATIENCE = 5.0  # seconds for a child to end by itself


class _Child:
    """One process with its pipe and its tasks."""

    def __init__(
        self, share: Share, data: FaceData, checkpoints: Checkpoints | None, timeout: float | None = None
    ) -> None:
        context = child_start.context()
        self.share, self.silence = share, Silence(timeout)
        self.pipe, theirs = context.Pipe()
        self.tasks: dict[int, Task] = {}
        self.dropping: list[int] = []  # tasks whose remaining events are ignored
        self.given: set[Hashable] = set()  # the data with fitted inputs that it has
        self._killed_before = killed_for_memory()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True)
        child_start.start(self.process)
        theirs.close()
        self._ready, self._unsent = False, list[Any]([(data, share, checkpoints)])

    @property
    def fullness(self) -> float:
        """Return how much of its share is in use, from 0 to 1."""
        return len(self.tasks) / self.share.slots

    def send(self, *message: object) -> None:
        """Send a message, the data before the first, once the child is ready.

        Of a child that hangs as it starts, a full pipe would stop this process as well.
        """
        self._unsent.append(message)
        if self._ready:
            self._send_all()

    def ready(self) -> None:
        """Send what has waited for the child; it gets the data when it has something to train."""
        self._ready = True
        if len(self._unsent) > 1:
            self._send_all()

    def _send_all(self) -> None:
        messages, self._unsent = self._unsent, []
        with contextlib.suppress(OSError):  # a dead child; `wait` will notice
            for message in messages:
                self.pipe.send(message)

    def start(self, task: Task) -> None:
        """Give the child a task."""
        if not self.tasks:
            self.silence.heard()
        self.tasks[task.number], self._killed_before = task, killed_for_memory()
        self.send("start", task)

    def how_it_ended(self) -> Failure:
        """Explain the child's end.

        SIGKILL counts as lack of memory if the kernel has killed for that meanwhile; otherwise a person may have sent
        it.
        """
        self.process.join(_PATIENCE)
        code = self.process.exitcode
        if code is None or code >= 0:
            return Failure(f"its process ended with exit code {code}", died=True)
        name = signals.name_of(-code)
        if name != "SIGKILL":
            return Failure(f"its process was killed ({name})", died=True)
        starved = killed_for_memory() > self._killed_before
        why = "for lack of memory" if starved else "probably for lack of memory"
        return Failure(f"its process was killed ({name}), {why}", out_of_memory=starved, died=True)

    def hung(self) -> list[Event]:
        """Explain that the child hangs: one training is to blame; of several it is not known which."""
        said, alone = self.silence.said, len(self.tasks) == 1
        beside = f"{said}; a training beside this one may be the cause"
        failure = Failure(said, timed_out=True) if alone else Failure(beside, beside=True)
        return [Event(number, failure) for number in self.tasks]

    def end(self, patience: float = _PATIENCE) -> None:
        """Ask the process to end, and kill it after `patience` seconds."""
        self.pipe.close()
        self.process.join(max(0.0, patience))
        if self.process.is_alive():
            self.process.kill()
            self.process.join(_PATIENCE)
        if not self.process.is_alive():  # else the system itself waits for its device
            self.process.close()


class ProcessSlots:
    """The slots of several children, one for each share; a CPU's child trains with one thread.

    A dead child is replaced only when a task needs another child. So children that cannot live cost trials, and are
    noticed.

    A child that gives no epoch for `timeout` seconds is killed. If it had several trainings, any may be the cause: none
    is to blame, and two children with half its slots replace it. So a training that hangs is alone in the end.
    """

    def __init__(
        self,
        data: FaceData,
        shares: Sequence[Share],
        checkpoints: Checkpoints | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        self.engine: str = shares[0].engine
        self.count = sum(share.slots for share in shares)
        self._data, self._checkpoints, self._timeout = data, checkpoints, timeout
        self._children = [_Child(share, data, checkpoints, timeout) for share in shares]
        self._vacant: list[Share] = []  # of dead children
        self._folds: dict[tuple[int, int], FaceData] = {}  # each keeps the baselines that are fitted to it

    def start(self, task: Task) -> None:
        """Give a task to the child with the most room in its share, or to a new one in the place of a dead one."""
        child = min(self._children, key=lambda child: child.fullness, default=None)
        if child is None or (child.tasks and self._vacant):
            child = _Child(self._vacant.pop(0), self._data, self._checkpoints, self._timeout)
            self._children.append(child)
        self._give_inputs(child, task)
        child.start(task)

    def _give_inputs(self, child: _Child, task: Task) -> None:
        """Send the data with the baseline's outputs before the first task that needs them: fitted once, here."""
        fold, inputs = (task.fold, task.folds), task.config.inputs
        if inputs == "view" or self.engine == "plain" or (fold, inputs) in child.given:
            return
        if fold not in self._folds:
            self._folds[fold] = self._data.fold(task.fold, of=task.folds)
        child.given.add((fold, inputs))
        child.send("give", task, seen(self._folds[fold], inputs))

    def drop(self, number: int) -> None:
        """Drop the task in its child, unless the child knows."""
        for child in self._children:
            if child.tasks.pop(number, None):
                child.dropping.append(number)
                child.send("drop", number)

    def wait(self) -> list[Event]:
        """Return what the children have sent within `WAIT` seconds; the tasks of a dead child have failed."""
        events: list[Event] = []
        while not events and self._children:
            ready = wait([child.pipe for child in self._children], timeout=WAIT)
            for child in [child for child in self._children if child.pipe in ready]:
                try:
                    match child.pipe.recv():
                        case None:
                            child.ready()
                        case int() as number:
                            child.dropping.remove(number)
                        case Event() as event if event.number not in child.dropping:
                            events.append(event)
                        case waiting.Line() as line:
                            waiting.say(line)
                            continue  # a long wait is no sign of an epoch
                    child.silence.heard()
                except (EOFError, OSError):
                    failure = child.how_it_ended()
                    events += [Event(number, failure) for number in child.tasks]
                    self._end(child, child.share)
            for child in [child for child in self._children if child.tasks and child.silence.is_too_long()]:
                events += child.hung()
                self._end(child, *(child.share.halves() if len(child.tasks) > 1 else [child.share]), patience=0)
            if not ready:
                break
        return events

    def _end(self, child: _Child, *vacant: Share, patience: float = _PATIENCE) -> None:
        """End a child; others get its slots."""
        child.end(patience)
        self._children.remove(child)
        self._vacant += vacant

    def save_next(self) -> bool:
        """Tell the training children to save at the end of every epoch."""
        for child in self._children:
            child.send("save_next")
        return True

    def close(self) -> None:
        """End every child."""
        for child in self._children:
            child.pipe.close()
        deadline = time.monotonic() + _PATIENCE
        for child in self._children:
            child.end(deadline - time.monotonic())
        self._children = []
