"""The folder of a trial of a script: its checkpoint, its log, and a new beginning."""

import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

_CHECKPOINTS = ("*.pth", "*.pt", "*.ckpt")


def of(folder: Path, key: str) -> Path:
    """Return the trial's folder, below that of the search."""
    return folder / key


def log_of(folder: Path, key: str) -> Path:
    """Return the trial's log, beside its folder, where the script does not write."""
    return folder / f"{key}.log"


def begin_again(folder: Path, key: str) -> None:
    """Empty the folder, and forget the log."""
    shutil.rmtree(of(folder, key), ignore_errors=True)
    of(folder, key).mkdir(parents=True, exist_ok=True)
    log_of(folder, key).unlink(missing_ok=True)


def checkpoint(folder: Path, pattern: str | None) -> Path | None:
    """Find the newest whole checkpoint in a trial's folder and below; None if there is none.

    `pattern` is a glob of file names; None: every usual name. A script killed while it saved leaves half a file.
    """
    found: dict[Path, int] = {}
    for each in _CHECKPOINTS if pattern is None else (pattern,):
        for path in folder.rglob(each):
            with suppress(OSError):
                if path.is_file() and path.stat().st_size:
                    found[path] = path.stat().st_mtime_ns
    newest_first = sorted(found, key=lambda path: (found[path], str(path)), reverse=True)
    return next((path for path in newest_first if _is_whole(path)), None)


def _is_whole(path: Path) -> bool:
    """Tell whether the end of the file is there; only archives, as torch.save writes them, show it."""
    try:
        with path.open("rb") as file:
            return file.read(2) != b"PK" or zipfile.is_zipfile(file)
    except OSError:
        return False
