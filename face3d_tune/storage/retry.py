"""Retries while the database is away: note it once, try again later, and give up after a timeout."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Engine

from face3d_tune.errors import StorageAwayError
from face3d_tune.storage.failures import is_away, reason_of

DEFAULT_TIMEOUT = 600.0  # seconds
WAITS_HERE = "training continues, and its results wait here"
ASKED_AGAIN = "it is asked again"
_PAUSES = 0.5, 5.0  # seconds between two attempts: the first, doubled up to the last

T = TypeVar("T")


class DatabaseRetry:
    """Retries of actions on the database. The caller keeps what it could not store, so nothing is lost.

    Args:
        timeout: Seconds until it gives up, counted from the first failed attempt.
        note: Receives one line when the database is back.
        warn: Receives one line when it goes away; by default `note` does.
        meanwhile: What that line says about the time until it is back.
    """

    def __init__(
        self,
        timeout: float,
        note: Callable[[str], object],
        warn: Callable[[str], object] | None = None,
        meanwhile: str = WAITS_HERE,
    ) -> None:
        self._timeout, self._note, self._warn, self._meanwhile = timeout, note, warn or note, meanwhile
        self._since: float | None = None
        self._answered = -math.inf  # when a write was last answered, by time.monotonic
        self._pause, self._next = _PAUSES[0], 0.0

    def watch(self, engine: Engine) -> "DatabaseRetry":
        """Count an absence anew when the server answers a write in between, also of another thread; return this.

        With lost answers to every seventh COMMIT a long action may fail for minutes, though the server is there. On a
        full disk SQLite fails at the COMMIT alone, so its writes prove nothing.
        """
        if engine.dialect.name == "postgresql":
            event.listen(engine, "after_cursor_execute", self._note_answer)
        return self

    def _note_answer(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip()[:6].lower() in ("insert", "update", "delete"):
            self._answered = time.monotonic()

    @property
    def pause(self) -> float:
        """Return the seconds until the next attempt."""
        return max(0.0, self._next - time.monotonic())

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Return the result of `action`; None if the database is away, or the pause after a failure is not over.

        A failed action is called again later: it must continue where it stopped. Raises StorageAwayError after the
        timeout, and any other error of `action`.
        """
        if self.pause > 0:
            return None
        try:
            result = action()
        except Exception as error:
            if not is_away(error):
                raise
            self._gone(reason_of(error), error)
            return None
        if self._since is not None:
            self._note(f"the storage answers again after {time.monotonic() - self._since:.0f} s")
        self._since, self._pause, self._next = None, _PAUSES[0], 0.0
        return result

    def insist(self, action: Callable[[], T]) -> T:
        """Return the result of `action`, called until the database answers. Raises as `attempt` does."""
        while not (done := self.attempt(lambda: (action(),))):
            time.sleep(self.pause)
        return done[0]

    def _gone(self, reason: str, error: Exception) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._warn(f"the storage does not answer ({reason}); {self._meanwhile}")
        elif (silent := now - max(self._since, self._answered)) > self._timeout:
            raise StorageAwayError(
                f"the storage did not answer for {silent:.0f} s: {reason}",
                "when it is back, run the same command again: it resumes from the last checkpoints",
            ) from error
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _PAUSES[1])
