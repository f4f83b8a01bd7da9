"""Slots in other processes: this one asks and tells, they train; one that dies takes nothing with it but its trials.

A child never waits for a verdict: it sends an epoch and begins the next, and gives that up when it is told to.
"""

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from face3d_tune.data.face_data import FaceData
from face3d_tune.device import set_threads
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.slots import BatchedSlots
from face3d_tune.executor.tasks import Event, Failure, Task
from face3d_tune.system import signals

_PATIENCE = 5.0  # seconds for a child to end by itself
_KERNEL = Path("/proc/vmstat")


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what asks to end: a child inherits that, and hears of none before it knows what to do with it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
    try:
        resource_tracker.ensure_running()  # a closing terminal would kill it too; the call lets some signals through
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def killed_for_memory() -> int:
    """How many processes Linux has killed for want of memory since it started; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in _KERNEL.read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _context() -> ForkServerContext | SpawnContext:
    """Choose how children start: forked from a server process that has only loaded torch; on Windows, from nothing.

    A fork of this process itself would inherit half of torch's threads, and CUDA.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # torch loads the latter at its first optimiser
    return context


class _Child:
    """One process with its pipe and the tasks it holds."""

    def __init__(self, arguments: Sequence[Any]) -> None:
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.tasks: dict[int, Task] = {}
        self.dropping: list[int] = []  # what it still sends of these is of no more interest
        self._killed_before = killed_for_memory()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True)
        with _signals_held():
            self.process.start()
        theirs.close()
        self._arguments: Sequence[Any] | None = arguments

    def send(self, *message: object) -> None:
        """Say something; before the first word it gets the data, when others have been started as well."""
        with contextlib.suppress(OSError):  # it is dead, which `wait` will notice
            if self._arguments is not None:
                self.pipe.send(self._arguments)
                self._arguments = None
            self.pipe.send(message)

    def start(self, task: Task) -> None:
        """Give it a task."""
        self.tasks[task.number], self._killed_before = task, killed_for_memory()
        self.send("start", task)

    def how_it_ended(self) -> Failure:
        """SIGKILL is want of memory if the kernel has killed for that meanwhile; else it may have been a person."""
        self.process.join(_PATIENCE)
        code = self.process.exitcode
        if code is None or code >= 0:
            return Failure(f"its process ended with exit code {code}", died=True)
        name = signal.Signals(-code).name
        if name != "SIGKILL":
            return Failure(f"its process was killed ({name})", died=True)
        starved = killed_for_memory() > self._killed_before
        why = "for lack of memory" if starved else "probably for lack of memory"
        return Failure(f"its process was killed ({name}), {why}", out_of_memory=starved, died=True)

    def end(self, patience: float = _PATIENCE) -> None:
        """Let the process end, and kill it after so many seconds."""
        self.pipe.close()
        self.process.join(max(0.0, patience))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class ProcessSlots:
    """`processes` children with `each` slots; a child of a CPU trains with one thread.

    A child that died is replaced when there is a task for another, so that children which cannot live cost trials and
    are noticed.
    """

    engine = "batched"

    def __init__(
        self,
        data: FaceData,
        device: torch.device,
        *,
        processes: int,
        each: int = 1,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.count = processes * each
        self._processes, self._arguments = processes, (data, device, each, checkpoints)
        self._children = [_Child(self._arguments) for _ in range(processes)]

    def start(self, task: Task) -> None:
        """Give a task to the child with the fewest, or to a new one in the place of one that died."""
        child = min(self._children, key=lambda child: len(child.tasks), default=None)
        if child is None or (child.tasks and len(self._children) < self._processes):
            child = _Child(self._arguments)
            self._children.append(child)
        child.start(task)

    def drop(self, number: int) -> None:
        """Tell the child, unless it knows."""
        for child in self._children:
            if child.tasks.pop(number, None):
                child.dropping.append(number)
                child.send("drop", number)

    def wait(self) -> list[Event]:
        """What the children have sent; the tasks of a child that died have failed."""
        events: list[Event] = []
        while not events and self._children:
            ready = wait([child.pipe for child in self._children])
            for child in [child for child in self._children if child.pipe in ready]:
                try:
                    match child.pipe.recv():
                        case int() as number:
                            child.dropping.remove(number)
                        case Event() as event if event.number not in child.dropping:
                            events.append(event)
                except (EOFError, OSError):
                    failure = child.how_it_ended()
                    events += [Event(number, failure) for number in child.tasks]
                    child.end()
                    self._children.remove(child)
        return events

    def save_next(self) -> None:
        """Tell the children that train now."""
        for child in self._children:
            child.send("save_next")

    def close(self) -> None:
        """Let every child end."""
        for child in self._children:
            child.pipe.close()
        deadline = time.monotonic() + _PATIENCE
        for child in self._children:
            child.end(deadline - time.monotonic())
        self._children = []


def serve(pipe: "Connection[Any, Any]") -> None:
    """What a child does until its parent closes the pipe or dies; first it hears of data, device and slots."""
    signals.ignore()  # the parent decides when to stop
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        data, device, count, checkpoints = pipe.recv()
        if device.type == "cpu":
            set_threads(1)
        slots = BatchedSlots(data, device, count, checkpoints)
        heard: deque[tuple[Any, ...]] = deque()

        def listen() -> None:
            match message := pipe.recv():
                case ("save_next",):  # no reason to give an epoch up
                    slots.save_next()
                case _:
                    heard.append(message)

        def interrupted() -> bool:
            """Whether there is news for which a training is given up in the middle of an epoch."""
            while pipe.poll():
                listen()
            return bool(heard)

        while True:
            while not (interrupted() or slots.busy):
                listen()
            while heard:
                match heard.popleft():
                    case "start", Task() as task:
                        slots.start(task)
                    case "drop", int() as number:
                        slots.drop(number)
                        pipe.send(number)  # every later event of this number is of another training
            # A single training is given up in the middle of an epoch; several go on to its end.
            for event in slots.wait(interrupted if count == 1 else lambda: False):
                pipe.send(event)
