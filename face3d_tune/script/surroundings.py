"""Where a script runs: the interpreter, the environment, the folders that it imports from, and the files beside it."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from face3d_tune.errors import ScriptError

Files = Mapping[str, tuple[int, int]]  # size in bytes and time of change in ns, by path

_NOT_WRITTEN = ("__pycache__", ".git")  # by the script itself
_MOST_FILES = 20_000  # in the script's folder, to check whether it changed
_MOST_NAMES = 6  # of changed files


def program(python: str) -> str:
    """Return the interpreter's path, valid in any folder. Raises ScriptError."""
    program = shutil.which(python)
    if program is None:
        raise ScriptError(f"--python {python}: no such program", "name the Python that trains, e.g. .venv/bin/python")
    return os.path.abspath(program)


def absolute(program: str) -> str:
    """Return a program's path, valid in any folder; of one that is not found, where it would be."""
    return os.path.abspath(shutil.which(program) or program)


def environment(import_from: Sequence[str]) -> dict[str, str]:
    """Return the environment of a script that is tried; it also imports from the folders `import_from`.

    Relative folders in PYTHONPATH refer to the folder where this program was started.
    """
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, *import_from]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "MPLBACKEND": "Agg",
    }


def roots_of(path: str) -> tuple[str, ...]:
    """Return the folders from which a script may find its own modules, besides its own."""
    return tuple(dict.fromkeys((os.getcwd(), str(Path(path).parent.parent))))


def files_in(folder: Path, but: Sequence[Path] = ()) -> Files:
    """Return size and time of every file in a folder and below, as far as they can be counted.

    What Python and git keep is left out, and so are the folders and files of `but`, with what lies beside a file under
    a longer name, as the journal of a database.
    """
    files: dict[str, tuple[int, int]] = {}
    left_out = tuple(str(each) for each in but)
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _NOT_WRITTEN and Path(place, each) not in but]
        for name in names:
            if left_out and os.path.join(place, name).startswith(left_out):
                continue
            with suppress(OSError):
                status = os.stat(os.path.join(place, name), follow_symlinks=False)
                files[os.path.relpath(os.path.join(place, name), folder)] = status.st_size, status.st_mtime_ns
        if len(files) > _MOST_FILES:
            break
    return files


def changed(before: Files, after: Files) -> tuple[str, ...]:
    """Name files that were written, created or deleted meanwhile; the first six of many."""
    return tuple(sorted({file for file, _ in before.items() ^ after.items()})[:_MOST_NAMES])
