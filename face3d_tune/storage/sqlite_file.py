"""A SQLite file that several programs open: messages while it is locked, and the right of one process to search."""

import errno
import os
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from face3d_tune.system.notices import notice

T = TypeVar("T")

_WAIT = 60.0  # seconds to wait for a database viewer or a backup that has locked the file
_LOOK_EVERY = 1.0  # seconds of silent waiting before a line is printed
_SAY_EVERY = 10.0  # seconds between two lines about the wait
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # answers of a file system without locks
_SOFT_WAIT = 1.0  # seconds to remove the lock file of a dead process and to take over

_last_line = -_SAY_EVERY  # time of the last line, of time.monotonic


def patience(name: str) -> dict[str, Any]:
    """Return arguments of sqlite3.connect for a connection that reports a lock on the file `name`."""
    return {"timeout": _LOOK_EVERY, "factory": partial(_Connection, name=name)}


class _Connection(sqlite3.Connection):
    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._name = name

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def commit(self) -> None:
        self.patiently(super().commit)

    def patiently(self, action: Callable[[], T]) -> T:
        """Retry an action that found the file locked, unless it has changed something already."""
        began, changes = time.monotonic(), self.total_changes
        while True:
            start = time.monotonic()
            try:
                return action()
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                # Where two connections would wait for each other, SQLite answers before its own wait is over.
                deadlock = now - start < 0.5 * _LOOK_EVERY
                if not locked or deadlock or now - began >= _WAIT or self.total_changes != changes:
                    raise
                _say(f"storage {self._name} is locked by another program; waiting, {_WAIT - now + began:.0f} s at most")


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


class Held(TimeoutError):
    """Another process has the lock file: its id and host, and the remedy if it has died."""

    def __init__(self, path: Path, *, left_behind: bool) -> None:
        super().__init__(f"{path} is held")
        self.holder = "which process is not recorded"
        with suppress(
            OSError, ValueError
        ):  # an older version wrote nothing, and on Windows a locked file is unreadable
            number, host = path.read_text(encoding="utf-8").split()[:2]
            self.holder = f"process {int(number)} on {host}"
        self.mend = f"if it no longer runs, remove {path}" if left_behind else None


def take(path: Path) -> BaseFileLock:
    """Lock a file and write this process into it. Raises Held, and OSError if it cannot be written.

    The operating system releases the lock when the process dies, for any reason. Where the file system has no locks,
    the file itself is the lock. filelock removes it if it names a dead process of this machine.
    """
    existed = path.exists()
    lock: BaseFileLock = FileLock(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filelock's own warning about such a file system
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if not isinstance(lock, SoftFileLock):  # filelock's class on such a file system
                raise Held(path, left_behind=False) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            if not existed:
                path.unlink(missing_ok=True)  # left over from the attempt at a real lock
    if not lock.is_locked:
        lock = SoftFileLock(path)
        try:
            lock.acquire(timeout=_SOFT_WAIT)
        except Timeout as error:
            raise Held(path, left_behind=True) from error
    elif not isinstance(lock, SoftFileLock):  # SoftFileLock has done so
        with suppress(OSError):
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    return lock


def whose(path: Path) -> str:
    """Return `, which belongs to NAME` for a file; nothing if it is missing or the system does not say."""
    try:
        return f", which belongs to {path.owner()}"
    except KeyError:  # a user without a name, as in a container
        return f", which belongs to user {path.stat().st_uid}"
    except (OSError, NotImplementedError):
        return ""
