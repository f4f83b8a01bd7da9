"""A smoke test of an exported command: the users' own script trains one epoch, and writes to none of their files.

The script starts in a temporary folder and reads and writes only there: a copy of the six data files, its checkpoints,
its logs. It gets the exported flags unchanged, except those folders and `epochs`.
"""

import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any, Literal

import psutil
from torch import Tensor

from face3d_tune.config import TrialConfig
from face3d_tune.data.convert import copy, write_sample
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ScriptError, TrainingError
from face3d_tune.script import diagnosis
from face3d_tune.script.export import commands, conversion
from face3d_tune.script.flags import Script
from face3d_tune.study.history import History
from face3d_tune.study.trials import StoredTrial, folds_of
from face3d_tune.system import signals
from face3d_tune.training import checkpoint_file, weights
from face3d_tune.training.inputs import write_copy

_ENOUGH_TRIALS = 5
USUAL = 0.05  # another seed changes the cosine of a first epoch by less
_LOOK = 0.05  # seconds between two checks on the script
_NOT_WRITTEN = ("__pycache__", ".git")  # by the script itself
_MOST_FILES = 20_000  # in the script's folder, to check whether it changed
_NUMBER = r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|nan|inf)\b"
_BEST = "best_model.pth"
_RENAMED = {"num_layers": "num_decoder_layers"}  # in later copies of the script
_BEGINNINGS = (b"PK", b"\x80")  # first bytes of files that torch.save writes, now and before version 1.6
_VALIDATION = r"(?:\bval\w*|验证)[^\n\d]*?"


@dataclass(frozen=True, slots=True)
class FirstEpoch:
    """The result of the script's validation after one epoch; None where it cannot be read."""

    cosine: float | None
    val_loss: float | None
    source: Literal["checkpoint", "output", "nothing"]


@dataclass(frozen=True, slots=True)
class ScriptCheck:
    """The outcome of a script that trained one epoch; `warnings` are for the person who will train with it."""

    first: FirstEpoch
    weights: Mapping[str, Tensor] | None  # of the model that it built; None if no checkpoint shows them
    seconds: float
    warnings: tuple[str, ...]


def try_script(
    config: TrialConfig, use: DataUse, source: Path | None, script: Script, *, python: str, timeout: float
) -> ScriptCheck:
    """Train one epoch with the commands of `commands`, on a copy of the folder `source` (None: the bundled sample).

    At `timeout` (seconds), or on an interrupt, the script is killed with every process that it started. Raises
    ScriptError, with what the script printed, if it does not train; DataError if `source` cannot be copied.
    """
    if "epochs" not in script.flags:
        raise ScriptError(f"{script.path} has no --epochs, so it cannot be limited to one epoch")
    path = os.path.abspath(script.path)
    before = files_in(Path(path).parent)
    with tempfile.TemporaryDirectory(prefix="face3d-tune-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _copy_data(source, folder / "data", config, use)
        here = replace(use, data_dir=str(folder / "data"), file_pose_unit=config.pose_unit)
        flags = commands(replace(config, epochs=1, inputs="view"), here, script).commands[-1][2:]
        for each in ("save_dir", "log_dir"):
            if each in script.flags:
                flags += [script.flags[each].typed, str(folder / each)]
        started = time.monotonic()
        warnings = _train([program(python), path, *flags], folder, timeout)
        seconds = time.monotonic() - started
        printed, (checkpoints, unreadable) = _printed(folder), checkpoints_in(folder)
        first = first_epoch(checkpoints.values(), printed)
        if not all(math.isfinite(value) for value in (first.cosine, first.val_loss) if value is not None):
            unstable = [flag for flag in ("--lr", "--use_mixed_precision") if flag in flags]
            raise ScriptError(
                f"{script.path} trains, but its validation gives cosine {first.cosine}, loss {first.val_loss}",
                f"blame {' or '.join(unstable)}: it decides how stable training is" if unstable else None,
                printed,
            )
    models = {path: model for path, content in checkpoints.items() if (model := weights.find(content))}
    if not models:
        why = f" ({'; '.join(unreadable)})" if unreadable else ""
        warnings.append(
            f"it trains, but wrote no checkpoint that can be read here{why}, so which model it builds is not checked"
        )
    elif _BEST not in (path.name for path in models):
        name = next(iter(models)).name
        warnings.append(f"its checkpoint is {name}, not {_BEST}: give `face3d-tune import` the file by its name")
    if changed := sorted(files_in(Path(path).parent).items() ^ before.items()):
        listed = ", ".join(dict.fromkeys(file for file, _ in changed[:6]))
        warnings.append(f"it wrote into its own folder, whatever --save_dir and --log_dir say: {listed}")
    return ScriptCheck(first, next(iter(models.values()), None), seconds, tuple(warnings))


def wrong_model(tested: ScriptCheck, config: TrialConfig, use: DataUse, script: Script) -> ScriptError | None:
    """Compare the model that the script built with a config's: how they differ and what to do, None if they do not.

    None also if no checkpoint shows which model it built.
    """
    if tested.weights is None or not (differences := weights.differences(tested.weights, config, use.feature_size)):
        return None
    built = weights.structure(tested.weights)
    layout = built.get("layout", config.layout)
    if layout != config.layout:
        hint = f"your copy builds the {layout} layout: `face3d-tune run --layout {layout} --study-name NEW` searches it"
    else:
        name = differences[0].partition(" = ")[0]
        named = [script.flags[each].typed for each in (_RENAMED.get(name, name), name) if each in script.flags]
        flag = named[0] if named else "these flags"
        hint = f"see what {script.path} does with {flag} where it builds its model"
    return ScriptError(f"{script.path} builds another model than is trained here: {'; '.join(differences)}", hint)


def difference(tested: ScriptCheck, stored: StoredTrial) -> list[str]:
    """Compare the script's first epoch with the trial's, as lines for a person.

    The script has its own seed and split, so some difference is no error. A first epoch is "far" from the trial's if
    the distance exceeds the spread of the study's trials there. The spread is their standard deviation, or 0.05 for
    fewer than five trials. (On the sample another seed changes it by 0.005 to 0.013.)
    """
    first, history = tested.first, History.of(stored.trial)
    firsts = [History.of(trial).cosine[:1] for trial in stored.trials]
    cosines = [cosine for (cosine,) in filter(None, firsts)]
    if first.cosine is None or not history.cosine:
        missing = (
            "the trial stored no first epoch" if first.cosine is not None else "its validation cosine is not known"
        )
        return [f"check: nothing to compare: {missing}"]
    read = " (as it printed them)" if first.source == "output" else ""
    ours = f"cosine {history.cosine[0]:.4f}" + (f", loss {history.val_loss[0]:.4f}" if history.val_loss else "")
    theirs = f"cosine {first.cosine:.4f}" + (f", loss {first.val_loss:.4f}" if first.val_loss is not None else "")
    enough = len(cosines) >= _ENOUGH_TRIALS
    limit = stdev(cosines) if enough else USUAL
    off = first.cosine - history.cosine[0]
    rule = "the trials of this study differ from each other by" if enough else "another seed changes it by less than"
    lines = [
        f"check: validation after epoch 1{read}: {theirs}; trial {stored.trial.number} had {ours}",
        f"check: {abs(off):.4f} {'above' if off > 0 else 'below'} the trial; {rule} {limit:.4f} there",
    ]
    if (folds := folds_of(stored.study_attrs)) not in (1, 3):  # the first of three folds is the script's split
        lines.append(f"note: the trial's is of fold 1 of {folds}, which validates on other people than the script")
    if abs(off) > limit:
        layout = "build another layout, " if tested.weights is None else ""
        lines.append(
            f"warning: that is far: the script may split or read the data in another way, {layout}or have a default "
            "that no flag sets"
        )
    return lines


def endings_interrupt() -> AbstractContextManager[None]:
    """Raise KeyboardInterrupt at any ending signal until the block ends, so that cleanup runs."""
    return signals.handled(signal.default_int_handler)


def program(python: str) -> str:
    """Return the interpreter's path, valid in any folder. Raises ScriptError."""
    program = shutil.which(python)
    if program is None:
        raise ScriptError(f"--python {python}: no such program", "name the Python that trains, e.g. .venv/bin/python")
    return os.path.abspath(program)


def _copy_data(source: Path | None, target: Path, config: TrialConfig, use: DataUse) -> None:
    """Copy the six files, with poses and embeddings as the trial used them."""
    original, converted = source, bool(conversion(config, use))
    if source is None:
        original = target.with_name("sample") if converted else target
        write_sample(original)
    if original is not None and converted:
        selection: dict[str, Any] = {
            "split": use.split,
            "min_yaw": use.min_yaw,
            "max_yaw": use.max_yaw,
            "turn_angle": use.turn_angle,
        }
        write_copy(original, target, config.inputs, unit=config.pose_unit, **selection)
    elif source is not None:
        copy(source, target)


def _train(command: Sequence[str], folder: Path, timeout: float) -> list[str]:
    """Run the script to its end; return notes on how it was run. Raises ScriptError."""
    path = command[1]
    code = _run(command, folder, timeout, import_from=())
    printed = _printed(folder)
    if code and re.search(r"^ModuleNotFoundError", printed, re.MULTILINE):
        # Try whether the script depends on the folder that it was started in.
        roots = roots_of(path)
        if _run(command, folder, timeout, import_from=roots) == 0:
            where = " or ".join(roots)
            return [f"it finds its own modules only from {where}: start it there, or set PYTHONPATH to it"]
    if code == 0:
        return []
    if code is None:
        last = printed.strip().rpartition("\n")[2] or "nothing"
        raise ScriptError(
            f"{path} did not end its first epoch within {timeout:g} s; the last it printed: {last}",
            "it may only be slow: --timeout 1h waits for an hour",
            printed,
        )
    cause = diagnosis.find(code, printed, values_by_flag(command[2:]))
    raise ScriptError(f"{path} does not train with these flags: {cause.reason}", str(cause), printed)


def _run(command: Sequence[str], folder: Path, timeout: float, import_from: Sequence[str]) -> int | None:
    """Start the command in an empty folder, wait for its end, and return its exit code; None after the timeout."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    (folder / "work").mkdir()
    with (folder / "printed.txt").open("wb") as printed:
        process = psutil.Popen(
            list(command),
            cwd=folder / "work",
            env=environment(import_from),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        try:
            end = time.monotonic() + timeout
            while process.poll() is None and time.monotonic() < end:
                time.sleep(_LOOK)  # Windows would delay Ctrl-C until a wait ends
            code: int | None = process.poll()
            return code
        finally:
            _kill(process)


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


def _kill(process: psutil.Popen) -> None:
    """Kill the process and every process that it started."""
    with suppress(psutil.NoSuchProcess):
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


def values_by_flag(flags: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the arguments of each flag, by the flag."""
    values: dict[str, list[str]] = {}
    for word in flags:
        if word.startswith("--"):
            values[word] = []
        elif values:  # else it is positional
            values[list(values)[-1]].append(word)
    return values


def _printed(folder: Path) -> str:
    return (folder / "printed.txt").read_text(encoding="utf-8", errors="replace")


def checkpoints_in(folder: Path) -> tuple[dict[Path, Mapping[str, Any]], list[str]]:
    """Read the checkpoints that the script wrote anywhere, by any name, `best_model.pth` first.

    Returns the checkpoints, and for each unreadable one a line that says why.
    """
    checkpoints: dict[Path, Mapping[str, Any]] = {}
    unreadable = []
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name != _BEST, path)):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if not file.read(2).startswith(_BEGINNINGS):
                continue
        try:
            checkpoints[path] = checkpoint_file.load(path)
        except TrainingError as error:
            unreadable.append(error.message.replace(str(path), path.name))
    return checkpoints, unreadable


def first_epoch(checkpoints: Iterable[Mapping[str, Any]], printed: str) -> FirstEpoch:
    """Read the result of validation from a checkpoint, or else from the output."""
    for checkpoint in checkpoints:
        loss, cosine = (_first(checkpoint.get(name)) for name in ("val_loss_history", "val_cosine_sim_history"))
        if loss is not None:
            return FirstEpoch(cosine, loss, "checkpoint")
    losses = re.findall(rf"{_VALIDATION}(?:loss|损失)[^\n\d-]*?{_NUMBER}", printed, re.IGNORECASE)
    cosines = re.findall(rf"(?:\bcos\w*|余弦|相似度)[^\n\d-]*?{_NUMBER}", printed, re.IGNORECASE)
    if not losses and not cosines:
        return FirstEpoch(None, None, "nothing")
    return FirstEpoch(float(cosines[-1]) if cosines else None, float(losses[-1]) if losses else None, "output")


def _first(history: Any) -> float | None:
    """Read the first number of a history; None if there is none."""
    return checkpoint_file.number(history[0]) if isinstance(history, (list, tuple)) and history else None


def files_in(folder: Path, but: Sequence[Path] = ()) -> dict[str, tuple[int, int]]:
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
