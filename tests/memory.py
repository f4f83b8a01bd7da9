"""Where tests keep what nobody needs after them: in memory, where there is enough of it.

A search commits after every epoch. On a disk those commits are most of the time that a test of a search takes.
"""

import os
import shutil
import tempfile
from pathlib import Path

_SHARED = Path("/dev/shm")  # Linux's file system in memory
_NEEDED = 4 * 2**30  # bytes; two workers with PostgreSQL and the sample's data use about half


def folder() -> Path | None:
    """Return a folder in memory, or None where there is none or not enough."""
    if _SHARED.is_dir() and os.access(_SHARED, os.W_OK) and shutil.disk_usage(_SHARED).free >= _NEEDED:
        return _SHARED
    return None


def use() -> None:
    """Let `tmp_path`, temporary files and started processes use memory, unless TMPDIR names another place."""
    if "TMPDIR" not in os.environ and (place := folder()):
        os.environ["TMPDIR"] = str(place)
        tempfile.tempdir = None  # ask again
