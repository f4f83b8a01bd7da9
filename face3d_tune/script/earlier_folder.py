"""Earlier runs of a user's script, as their folders tell them: checkpoints with `args`, and the numbers beside them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from face3d_tune.errors import EarlierRunError, TrainingError
from face3d_tune.script.running import result_files
from face3d_tune.script.running.numbers import Numbers, Source
from face3d_tune.training import checkpoint_file

_CHECKPOINTS = ("*.pth", "*.pt", "*.ckpt", "*.tar")
_LOGS = ("*.log", "*.txt", "*.out")
_ABOVE = 4  # folders above a checkpoint in which the script may have been started
_MOST_LOG = 64 * 2**20  # bytes of a log that are read
_HINT = "give a checkpoint with the script's `args`, or a folder of such runs: 'args': vars(args) stores them"

Curves = Mapping[str, tuple[float, ...]]  # a number's values by its name, from epoch 1


@dataclass(frozen=True, slots=True)
class FolderRun:
    """One run: its checkpoints in one folder with equal `args`. The first names it."""

    checkpoints: tuple[Path, ...]
    root: Path  # the folder that a person named, or the one of the checkpoint
    args: Mapping[str, Any]  # the script's flags by destination

    @property
    def path(self) -> Path:
        """Return the path that names the run: its best checkpoint, as far as names tell."""
        return next((path for path in self.checkpoints if "best" in path.name), self.checkpoints[0])

    def sha256(self) -> str:
        """Return the SHA-256 of that checkpoint."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of a run, and the folder that has them; None: its checkpoints themselves."""

    curves: Curves
    folder: Path | None


def find(paths: Sequence[Path]) -> list[FolderRun]:
    """Find the runs among checkpoints and folders, without running any code in them.

    A checkpoint without `args` in a folder is ignored. Raises EarlierRunError for one that was named, for a file that
    is no checkpoint, and for a folder without any run.
    """
    found: dict[tuple[Path, str], FolderRun] = {}
    for path in paths:
        runs = [*_in_folder(path)] if path.is_dir() else [(path, _args(path))]
        if not runs:
            raise EarlierRunError(f"{path} holds no checkpoint with the args of a script", _HINT)
        for checkpoint, args in runs:
            root = path if path.is_dir() else checkpoint.parent
            key = checkpoint.resolve().parent, json.dumps(args, sort_keys=True, default=str)
            known = found.get(key, FolderRun((), root, args)).checkpoints
            if checkpoint not in known:
                found[key] = FolderRun((*known, checkpoint), root, args)
    return list(found.values())


def read_numbers(run: FolderRun, source: Source, name: str, folder_flags: Sequence[str]) -> Found | None:
    """Read the curves of one source, among which is the number `name`; None if no place has it.

    The places are the checkpoints themselves for the source `checkpoint`. For the others they are the folders that the
    run's own folder flags name, then the folder of its checkpoints, then the one that a person named.
    """
    if source == "checkpoint":
        curves = _histories(run.checkpoints)
        return Found(curves, None) if name in curves else None
    for folder in _folders(run, folder_flags):
        numbers = Numbers(folder, {source})
        if source == "printed":
            for text in _logs(folder):
                numbers.hear(text)
        numbers.look(ended=True)
        curves = {key: tuple(curve.values()) for (_, key), curve in numbers.curves().items()}
        if name in curves:
            return Found(curves, folder)
    return None


def _in_folder(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the checkpoints with `args` in a folder and below, oldest first."""
    files = {path for pattern in _CHECKPOINTS for path in folder.rglob(pattern) if path.is_file()}
    for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path)):
        try:
            yield path, _args(path)
        except EarlierRunError:  # weights alone, or another program's file
            continue


def _args(path: Path) -> Mapping[str, Any]:
    """Read the flags of a run from its checkpoint. Raises EarlierRunError."""
    try:
        checkpoint = checkpoint_file.load(path)
    except TrainingError as error:
        raise EarlierRunError(error.message, _HINT) from error
    if "args" not in checkpoint:
        held = ", ".join(map(str, list(checkpoint)[:6]))
        raise EarlierRunError(f"{path} does not say with which flags it was trained: it holds {held}, no args", _HINT)
    args = checkpoint_file.mapping(checkpoint["args"])
    if args is None:
        kind = checkpoint_file.describe(checkpoint["args"])
        raise EarlierRunError(f"{path}: args is {kind}; expected the script's flags, a dict or a namespace", _HINT)
    return {str(name): _plain(value) for name, value in args.items()}


def _plain(value: Any) -> Any:
    """Turn a stored value into Python's own; a path becomes its text."""
    if isinstance(value, checkpoint_file.Foreign) and value.kind.endswith("Path"):
        pure = PureWindowsPath if "Windows" in value.kind else PurePosixPath
        return str(pure(*map(str, value.parts)))
    return checkpoint_file.plain(value)


def _histories(checkpoints: Sequence[Path]) -> dict[str, tuple[float, ...]]:
    """Read the histories in checkpoints of one run; where two files have an epoch, the later file counts."""
    curves: dict[str, dict[int, float]] = {}
    for path in checkpoints:
        counted: dict[str, int] = {}
        for name, epoch, value in result_files.checkpoint(path):
            counted[name] = counted.get(name, 0) + 1
            curves.setdefault(name, {})[counted[name] if epoch is None else epoch] = value
    return {name: tuple(curve[epoch] for epoch in sorted(curve)) for name, curve in curves.items()}


def _folders(run: FolderRun, folder_flags: Sequence[str]) -> list[Path]:
    """Return where a run's numbers may lie: each folder once, the most likely first."""
    named = [str(run.args[flag]) for flag in folder_flags if run.args.get(flag)]
    # The script was started in a folder that its checkpoint does not tell: most often one above the checkpoint.
    starts = [Path.cwd(), *run.path.absolute().parents[:_ABOVE]]
    places = [start / name for name in named for start in starts]
    places += [run.path.parent, run.root]
    existing = [place.resolve() for place in places if place.is_dir()]
    return list(dict.fromkeys(existing))


def _logs(folder: Path) -> Iterator[str]:
    for path in sorted({path for pattern in _LOGS for path in folder.rglob(pattern) if path.is_file()}):
        with path.open(encoding="utf-8", errors="replace") as file:
            yield file.read(_MOST_LOG) + "\n"
