"""Signals that ask this program to end: Ctrl-C, `kill`, a terminal that closes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has no SIGHUP, and nothing else has SIGBREAK
ENDING = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)


@contextmanager
def handled(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handle` at every such signal until the block ends; not outside the main thread, which alone may do that.

    SIGHUP stays ignored where it is, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = [number for number in ENDING if number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in ENDING if number not in kept}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Raising(threading.local):  # only the main thread hears of signals
    """Raises KeyboardInterrupt, but not in the middle of what must not be left in halves."""

    def __init__(self) -> None:
        self._depth, self._waiting = 0, False

    def now(self) -> None:
        """Raise it, or let it wait for the end of `held`."""
        if self._depth:
            self._waiting = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it wait until the block ends: a transaction left open would lock everybody out, this process included."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            due = self._waiting and not self._depth
            self._waiting = self._waiting and not due
        if due:
            raise KeyboardInterrupt


interrupt = _Raising()


def ignore() -> None:
    """Ignore all of them, as in a process whose parent decides when to stop."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
