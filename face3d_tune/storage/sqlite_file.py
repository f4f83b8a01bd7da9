"""A SQLite file that several programs open: messages while it is locked."""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from face3d_tune.system.notices import notice

T = TypeVar("T")

_WAIT = 60.0  # seconds to wait for a database viewer or a backup that has locked the file
_LOOK_EVERY = 1.0  # seconds of silent waiting before a line is printed
_SAY_EVERY = 10.0  # seconds between two lines about the wait

_last_line = -_SAY_EVERY  # time of the last line, of time.monotonic


def patience(name: str, wait: float | None = None) -> dict[str, Any]:
    """Return arguments of sqlite3.connect for a connection that waits while the file `name` is locked, and reports it.

    It waits for `wait` seconds; by default long enough for a backup.
    """
    return {"timeout": _LOOK_EVERY, "factory": partial(_Connection, name=name, wait=wait)}


class _Connection(sqlite3.Connection):
    def __init__(self, *args: Any, name: str, wait: float | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._name, self._wait = name, wait

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def commit(self) -> None:
        self.patiently(super().commit)

    def patiently(self, action: Callable[[], T]) -> T:
        """Retry an action that found the file locked, unless it has changed something already."""
        began, changes = time.monotonic(), self.total_changes
        wait = _WAIT if self._wait is None else self._wait
        while True:
            start = time.monotonic()
            try:
                return action()
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                # Where two connections would wait for each other, SQLite answers before its own wait is over.
                deadlock = now - start < 0.5 * _LOOK_EVERY
                if not locked or deadlock or now - began >= wait or self.total_changes != changes:
                    raise
                _say(f"storage {self._name} is locked by another program; waiting, {wait - now + began:.0f} s at most")


class _Cursor(sqlite3.Cursor):
    def execute(self, *args: Any) -> Any:
        assert isinstance(self.connection, _Connection)
        return self.connection.patiently(lambda: super(_Cursor, self).execute(*args))

    def executemany(self, *args: Any) -> Any:
        assert isinstance(self.connection, _Connection)
        return self.connection.patiently(lambda: super(_Cursor, self).executemany(*args))


def _say(line: str) -> None:
    """Print a line for the waiting user, at most one in `_SAY_EVERY` seconds for all connections."""
    global _last_line
    if time.monotonic() - _last_line >= _SAY_EVERY:
        _last_line = time.monotonic()
        notice(line)
