"""A child: a process that trains what its parent asks for, and sends the events.

It never waits for the pruner: it sends an epoch and begins the next, and stops that epoch when told to.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch

from face3d_tune.data.face_data import FaceData
from face3d_tune.device import set_threads
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.slots import BatchedSlots, PlainSlot
from face3d_tune.executor.tasks import Task
from face3d_tune.system import signals, waiting


@dataclass(frozen=True, slots=True)
class Share:
    """The share of the slots that one process has: how many, on which device, and what trains."""

    device: torch.device
    slots: int
    engine: Literal["plain", "batched"] = "batched"  # plain has one slot

    def halves(self) -> tuple["Share", ...]:
        """Return two shares that together have these slots; one slot cannot be divided."""
        few = self.slots // 2
        return (replace(self, slots=self.slots - few), replace(self, slots=few)) if few else (self,)


def serve(pipe: "Connection[Any, Any]") -> None:
    """Serve as a child until the parent closes the pipe or dies.

    It says None when it is ready; the first message is data, share and checkpoints.
    """
    signals.ignore()  # the parent decides when to stop
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        data, share, checkpoints = pipe.recv()
        sending = threading.Lock()

        def send(message: object) -> None:
            """Send from the thread that trains, or from one that says for how long it waits."""
            with sending:
                pipe.send(message)

        def send_line(line: waiting.Line) -> None:
            with contextlib.suppress(OSError):  # the parent has gone
                send(line)

        with waiting.told_with(send_line):
            _train(pipe, send, _slots(data, share, checkpoints), alone=share.slots == 1)


def _train(
    pipe: "Connection[Any, Any]", send: Callable[[object], None], slots: PlainSlot | BatchedSlots, *, alone: bool
) -> None:
    """Train what the parent asks for, until it closes the pipe. A training that is `alone` stops in mid-epoch."""
    heard: deque[tuple[Any, ...]] = deque()

    def listen() -> None:
        match message := pipe.recv():
            case ("save_next",):  # no reason to stop an epoch
                slots.save_next()
            case _:
                heard.append(message)

    def interrupted() -> bool:
        """Tell whether a message has come for which a training stops in the middle of an epoch."""
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
                case "give", Task() as task, FaceData() as given if isinstance(slots, BatchedSlots):
                    slots.give(task, given)
                case "drop", int() as number:
                    slots.drop(number)
                    send(number)  # every later event with this number belongs to another training
        for event in slots.wait(interrupted if alone else lambda: False):
            send(event)


def _slots(data: FaceData, share: Share, checkpoints: Checkpoints | None) -> PlainSlot | BatchedSlots:
    """Open a child's slots on its device."""
    device = share.device
    if share.engine == "plain":
        set_threads(None)  # as the plain trainer has them outside of a child
        return PlainSlot(data, device, checkpoints)
    if device.type == "cpu":
        set_threads(1)
    elif device.index is not None:  # else torch keeps memory of the first GPU as well
        torch.cuda.set_device(device)
    return BatchedSlots(data, device, share.slots, checkpoints)
