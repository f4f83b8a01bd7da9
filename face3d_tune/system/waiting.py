"""Waits for a place that answers slowly: said once when they get long, and once when they end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from face3d_tune.system.notices import notice

LONG = 10.0  # seconds
_PAUSE = 1.0  # seconds at most between two waits that are one for a person; and no longer than the first lasted


@dataclass(frozen=True, slots=True)
class Line:
    """A line about a wait. A child process sends it to its parent, which says it."""

    place: str
    kind: Literal["waits", "answered", "failed", "again"]
    text: str


@dataclass(slots=True)
class _Place:
    """The waits of this process for one place."""

    patience: float = field(default_factory=lambda: LONG)  # twice the longest wait: what is usual is said once
    failed: bool = False  # after a long wait; nothing more is said until it answers
    last_kind: str = ""  # of the lines said: of several children that wait at once, one is enough


_places: dict[str, _Place] = {}
_lock = threading.Lock()
_this_thread = (
    threading.local()
)  # `before`: of its last wait the place, the begin, the end and how long its last part lasted


def say(line: Line) -> None:
    """Say a line, unless the last one about this place said the same."""
    with _lock:
        place = _places.setdefault(line.place, _Place())
        new, place.last_kind = place.last_kind != line.kind, line.kind
    if new:
        notice(line.text)


_tell: Callable[[Line], object] = say


@contextmanager
def told_with(tell: Callable[[Line], object]) -> Iterator[None]:
    """Give the lines of this process to this function until the block ends."""
    global _tell
    before, _tell = _tell, tell
    try:
        yield
    finally:
        _tell = before


@contextmanager
def waited_for(name: str) -> Iterator[None]:
    """Say when the block waits long for the place of this name, and when that wait ends.

    A thread's waits that follow each other at once are one wait; a short one after each epoch is none.
    """
    with _lock:
        place = _places.setdefault(name, _Place())
    entered, since, patience, said = time.monotonic(), _began(name), place.patience, threading.Event()

    def say_so() -> None:
        said.set()
        _tell(Line(name, "waits", f"waiting for {name}: {patience:.0f} s so far"))

    timer = threading.Timer(max(0.0, since + patience - time.monotonic()), say_so)
    timer.daemon = True
    if not place.failed:
        timer.start()

    def seconds() -> float:
        """End the wait; return how long it was."""
        timer.cancel()
        if timer.ident is not None:
            timer.join()  # a line that it is saying comes before those of the end
        now = time.monotonic()
        _this_thread.before = None if said.is_set() or place.failed else (name, since, now, now - entered)
        return now - since

    try:
        yield
    except Exception:
        waited = seconds()
        if said.is_set():
            place.failed = True
            _tell(Line(name, "failed", f"{name} gave no answer: waited {waited:.0f} s"))
        raise
    except BaseException:
        seconds()
        raise
    waited = seconds()
    if said.is_set():
        place.patience = max(place.patience, 2 * waited)
        _tell(Line(name, "answered", f"{name} answered: waited {waited:.0f} s"))
    elif place.failed:
        place.failed = False
        _tell(Line(name, "again", f"{name} answers again"))


def _began(name: str) -> float:
    """Return when the wait began that now goes on, by time.monotonic."""
    now = time.monotonic()
    before: tuple[str, float, float, float] | None = getattr(_this_thread, "before", None)
    if before is None or before[0] != name:
        return now
    _, since, ended, lasted = before
    return since if now - ended < min(_PAUSE, lasted) else now
