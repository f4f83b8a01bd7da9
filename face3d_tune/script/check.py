"""A smoke test of an exported command: the users' own script trains one epoch, and writes to none of their files.

The script starts in a temporary folder and reads and writes only there: a copy of the six data files, its checkpoints,
its logs. It gets the exported flags unchanged, except those folders and `epochs`.
"""

import math
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any

from torch import Tensor

from face3d_tune.config import TrialConfig
from face3d_tune.data.convert import copy, write_sample
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ScriptError
from face3d_tune.script import diagnosis
from face3d_tune.script.engine_comparison import USUAL
from face3d_tune.script.export import commands, conversion
from face3d_tune.script.first_epoch import BEST, FirstEpoch, checkpoints_in, first_epoch
from face3d_tune.script.flags import Script
from face3d_tune.script.running.run_once import OneRun, run_once
from face3d_tune.script.surroundings import changed, environment, files_in, program, roots_of
from face3d_tune.study.history import History
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.study.trials import folds_of
from face3d_tune.training import weights
from face3d_tune.training.inputs import write_copy

_ENOUGH_TRIALS = 5
_RENAMED = {"num_layers": "num_decoder_layers"}  # in later copies of the script


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
        printed, warnings = _train([program(python), path, *flags], folder, timeout)
        seconds = time.monotonic() - started
        checkpoints, unreadable = checkpoints_in(folder)
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
    elif BEST not in (path.name for path in models):
        name = next(iter(models)).name
        warnings.append(f"its checkpoint is {name}, not {BEST}: give `face3d-tune import` the file by its name")
    if written := changed(before, files_in(Path(path).parent)):
        listed = ", ".join(written)
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


def _train(command: Sequence[str], folder: Path, timeout: float) -> tuple[str, list[str]]:
    """Run the script to its end; return what it printed, and notes on how it was run. Raises ScriptError."""
    path = command[1]
    run = _run(command, folder / "work", timeout)
    if run.code and re.search(r"^ModuleNotFoundError", run.printed, re.MULTILINE):
        # Try whether the script depends on the folder that it was started in.
        roots = roots_of(path)
        again = _run(command, folder / "again", timeout, import_from=roots)
        if again.code == 0:
            where = " or ".join(roots)
            return again.printed, [
                f"it finds its own modules only from {where}: start it there, or set PYTHONPATH to it"
            ]
    if run.code == 0:
        return run.printed, []
    if run.code is None:
        last = run.printed.strip().rpartition("\n")[2] or "nothing"
        raise ScriptError(
            f"{path} did not end its first epoch within {timeout:g} s; the last it printed: {last}",
            "it may only be slow: --timeout 1h waits for an hour",
            run.printed,
        )
    cause = diagnosis.find(run.code, run.printed, command[2:])
    raise ScriptError(f"{path} does not train with these flags: {cause.reason}", str(cause), run.printed)


def _run(command: Sequence[str], folder: Path, timeout: float, import_from: Sequence[str] = ()) -> OneRun:
    """Run the command in a new folder."""
    folder.mkdir()
    log = folder.with_suffix(".log")
    return run_once(command, cwd=folder, environment=environment(import_from), log=log, timeout=timeout)
