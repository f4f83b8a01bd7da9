"""Checks of files that a person names: refuse at once what would hang a program or fill its memory."""

import errno
import os
import stat
from pathlib import Path

from face3d_tune.system import limits

MOST_TEXT = 16 * 2**20  # bytes of a study file or script, each of which has some kilobytes

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def require(path: Path, *, most: int | None = None) -> None:
    """Raise OSError, with the reason as its `strerror`, unless `path` is a regular file of at most `most` bytes.

    Without `most`, the free memory is the limit. Opening a pipe waits for its writer; a device may never end.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
    limit, whose = (limits.memory().amount, "free memory") if most is None else (most, "a file of its kind")
    if status.st_size > limit:
        sizes = f"{status.st_size / 2**20:,.0f} MiB, more than the {limit / 2**20:,.0f} MiB of {whose}"
        raise OSError(errno.EFBIG, sizes, str(path))


def read_bytes(path: Path, *, most: int | None = None) -> bytes:
    """Return the content of a regular file. Raises OSError as `require` does."""
    require(path, most=most)
    return path.read_bytes()
