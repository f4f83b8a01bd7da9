"""The right to search in a SQLite file: a lock file beside it, which one process has."""

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from face3d_tune.errors import StorageError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # answers of a file system without locks
_SOFT_WAIT = 1.0  # seconds to remove the lock file of a dead process and to take over


@contextmanager
def right_to_search(file: Path, storage: str, hint: str) -> Iterator[None]:
    """Take the right to search in a file, which `storage` names. `hint` is shown while another process has it.

    Raises StorageError.
    """
    path = file.with_name(file.name + ".lock")
    try:
        lock = take(path)
    except Held as error:
        details = filter(None, (error.holder, error.mend))
        raise StorageError(
            f"storage {storage}: another `face3d-tune run` is searching in this file ({'; '.join(details)})",
            hint,
        ) from error
    except OSError as error:
        raise StorageError(
            f"storage {storage}: cannot write {path}{whose(path)}: {os.strerror(error.errno or 0)}"
        ) from error
    try:
        yield
    finally:
        lock.release()


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
