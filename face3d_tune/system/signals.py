"""Signals that ask this program to end: Ctrl-C, `kill`, a terminal that closes; and the name of any signal."""

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has no SIGHUP, and nothing else has SIGBREAK
ENDING = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)


def name_of(number: int) -> str:
    """Return the name of a signal, e.g. `SIGKILL`; its number if it has none, as a real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


@contextmanager
def handled(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handle` at every ending signal until the block ends. Only the main thread may do so; elsewhere it does
    nothing.

    SIGHUP stays ignored where it is already, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _hurried.clear()
    ignored = [number for number in ENDING if number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN]
    _cutting_off.clear()
    before = {number: signal.signal(number, handle) for number in ENDING if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Raising(threading.local):  # only the main thread receives signals
    """KeyboardInterrupt that can wait for the end of a critical section."""

    def __init__(self) -> None:
        self._depth, self._waiting = 0, False

    @property
    def cutting_off(self) -> bool:
        """Tell whether `cut_off` sent the signal that is being handled."""
        return _cutting_off.is_set()

    def now(self) -> None:
        """Raise KeyboardInterrupt, or postpone it to the end of `held`; from then on `hurried` is true."""
        _hurried.set()
        if self._depth:
            self._waiting = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Postpone KeyboardInterrupt until the block ends: an open transaction would lock out every process, this one
        included.
        """
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
_cutting_off = threading.Event()
_hurried = threading.Event()


def hurried() -> bool:
    """Tell whether this program was asked to end at once, so that nothing is worth a long wait."""
    return _hurried.is_set()


def cut_off() -> None:
    """Raise KeyboardInterrupt in the main thread as a second Ctrl-C does, also while it waits; called in another."""
    _cutting_off.set()
    main, kill = threading.main_thread().ident, getattr(signal, "pthread_kill", None)
    if kill is None or main is None:
        _thread.interrupt_main()
    else:  # a signal that the main thread itself gets ends what it waits for
        kill(main, signal.SIGINT)


class InterruptRequest:
    """A handler of signals: the first lets the epoch end, the second raises KeyboardInterrupt at once.

    It raises only once, so that the cleanup is not interrupted. `announce` is told of the first.
    """

    def __init__(self, announce: Callable[[str], object]) -> None:
        self._announce = announce
        self._requested = self._raised = False

    def caught(self) -> AbstractContextManager[None]:
        """Handle signals until the block ends."""
        return handled(self._handle)

    @property
    def requested(self) -> bool:
        """Tell whether an interrupt was requested."""
        return self._requested

    def check(self) -> None:
        """Raise KeyboardInterrupt if an interrupt was requested."""
        if self._requested:
            self._raised = True
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._raised:
            return
        if self._requested or interrupt.cutting_off:
            self._requested = self._raised = True
            interrupt.now()
            return
        self._requested = True
        self._announce("stopping after this epoch; once more to stop at once")


def ignore() -> None:
    """Ignore all ending signals, as in a child whose parent decides when to stop."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def endings_interrupt() -> AbstractContextManager[None]:
    """Raise KeyboardInterrupt at any ending signal until the block ends, so that cleanup runs."""
    return handled(signal.default_int_handler)
