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


def ignore() -> None:
    """Ignore all of them, as in a process whose parent decides when to stop."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
