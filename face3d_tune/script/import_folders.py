"""Earlier runs of a user's script as trials of a study that searches it, if they were trained under its conditions.

Nothing here can repeat what a run claims: its numbers are taken at their word.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from face3d_tune.errors import ConfigError
from face3d_tune.script.command import EPOCHS, seed_for
from face3d_tune.script.earlier_folder import Curves, FolderRun, Found, read_numbers
from face3d_tune.script.flags import UNKNOWN, Script, values
from face3d_tune.script.study_file import ScriptStudyFile
from face3d_tune.study import history, space
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import IMPORTED

# Flags that change where or how fast a script trains, not what.
_INDIFFERENT = re.compile(
    r"device|gpus?|gpu_ids?|(num_|n_)?workers?|(num_|n_)?threads|resume|verbose|quiet|debug|.*_(freq|interval|every)"
)


class _Refused(Exception):
    """Why no trial can be made of a run."""


@dataclass(frozen=True, slots=True)
class ExaminedFolder:
    """One run beside a study; `best_epoch` and `value` are None if its numbers are not known."""

    run: FolderRun
    best_epoch: int | None
    value: float | None  # of the study's metric at that epoch, as the run tells it
    trial: FrozenTrial | None  # ready to be stored; None: refused
    reason: str = ""  # why it is refused
    note: str = ""  # what else to know before comparing it


def examine(runs: Sequence[FolderRun], file: ScriptStudyFile) -> list[ExaminedFolder]:
    """Examine runs in order: make a trial of each that the study could have trained."""
    table = file.script
    found = [read_numbers(run, table.source, table.metric, table.folder_flags) for run in runs]
    shared = Counter(each.folder for each in found if each is not None)
    examined: list[ExaminedFolder] = []
    first_with: dict[str, Path] = {}
    for run, numbers in zip(runs, found, strict=True):
        each = _examine(run, numbers, file, shared)
        if each.trial is not None:
            run_id = TrialAttr.run_id.of(each.trial.user_attrs)
            if run_id in first_with:
                reason = f"it is the same run as {first_with[run_id]}"
                each = ExaminedFolder(run, each.best_epoch, each.value, None, reason)
            first_with.setdefault(run_id, run.path)
        examined.append(each)
    return examined


def _examine(
    run: FolderRun, found: Found | None, file: ScriptStudyFile, shared: Mapping[Path | None, int]
) -> ExaminedFolder:
    best, value = None, None
    try:
        if found is None:
            raise _Refused(_no_number(run, file))
        if found.folder is not None and shared[found.folder] > 1:
            raise _Refused(f"its numbers are in {found.folder}, beside those of another run, and cannot be told apart")
        best = _kept_epoch(found.curves, file)
        value = found.curves[file.objective.name][best - 1]
        if not math.isfinite(value):
            raise _Refused(f"its {file.objective.name} is {value} at epoch {best}")
        config, params, overrides = _config(run, file)
        if file.epochs is not None and best > file.epochs:
            raise _Refused(f"its best epoch is {best}; this study trains {file.epochs} at most (--epochs)")
    except _Refused as refusal:
        return ExaminedFolder(run, best, value, None, str(refusal))
    trial = _trial(run, found.curves, best, config, params, overrides, file)
    return ExaminedFolder(run, best, value, trial, note=_note(run, found.curves, file))


def _no_number(run: FolderRun, file: ScriptStudyFile) -> str:
    name, source = file.objective.name, file.script.source
    places = {
        "checkpoint": "no history in its checkpoint has one",
        "tensorboard": "no event file of it has one",
        "printed": "no log of it (*.log, *.txt) has one",
        "json": "no JSON file of it has one",
        "csv": "no CSV file of it has one",
    }
    return f"it has no number {name}: {places[source]}, in {run.path.parent} or where its flags say"


def _kept_epoch(curves: Curves, file: ScriptStudyFile) -> int:
    """Return the epoch, from 1, whose checkpoint the script keeps."""
    table = file.script
    name, direction = (table.keep, table.keep_direction) if table.keep else (table.metric, table.direction)
    if name not in curves:
        raise _Refused(f"it has no number {name}, which decides the epoch that the script keeps")
    length = len(curves[table.metric])
    curve = [value for value in curves[name][:length] if math.isfinite(value)]
    if not curve:
        raise _Refused(f"its {name} is not finite in any epoch")
    key = Objective(name, direction, script=True).key
    return curves[name].index(max(curve, key=key)) + 1


def _config(run: FolderRun, file: ScriptStudyFile) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the config of a run, its searched parameters and its other settings. Raises _Refused."""
    script, reasons = file.flags, []
    for name, wanted in _conditions(file).items():
        known, value = _value(run.args, name, script)
        if known and not _same(value, wanted):
            reasons.append(f"{name} = {_shown(value)}, the study's is {_shown(wanted)}")
    if reasons:
        raise _Refused("; ".join(reasons))
    searched = {}
    for name, row in file.space.items():
        known, value = _value(run.args, name, script)
        if not known:
            raise _Refused(f"its args do not say {name}, which the study searches")
        searched[name] = _as_searched(row, value)
    try:
        params, overrides = space.cut(file.space, searched)
    except ConfigError as error:
        raise _Refused(error.message) from error
    return dict(file.config(params, overrides)), params, overrides


def _conditions(file: ScriptStudyFile) -> dict[str, Any]:
    """Return what all trials of the study share, by flag: set in the file, or the script's own default.

    Folders, seed, epochs and what only changes the speed are not among them.
    """
    table, script = file.script, file.flags
    own = {script.flags[name].typed for name in (*table.own_flags(), *file.space)}
    said, _ = values(script, table.arguments)
    conditions = {**file.fixed, **said}
    known = own | {script.flags[name].typed for name in conditions}
    for name, flag in script.flags.items():  # its destination is the first of its names
        if flag.typed not in known and flag.default is not UNKNOWN:
            conditions[name] = flag.default
        known.add(flag.typed)
    return {name: value for name, value in conditions.items() if not _INDIFFERENT.fullmatch(name)}


def _value(args: Mapping[str, Any], name: str, script: Script) -> tuple[bool, Any]:
    """Return whether a run's args say a flag, and its value there: args are by destination, the study's by any name."""
    flag = script.flags[name]
    for key in (name, *(key for key, other in script.flags.items() if other == flag)):
        if key in args:
            return True, args[key]
    return False, None


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values of a flag are the same, of which one may be as typed."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if one == other:
        return True
    if isinstance(one, str) and isinstance(other, str):
        return os.path.normpath(one) == os.path.normpath(other)
    return one is not None and other is not None and str(one) == str(other)


def _as_searched(row: BaseDistribution, value: Any) -> Any:
    """Return a value in the type of its distribution; as it is if it has none there."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match row:
        case FloatDistribution() if number:
            return float(value)
        case IntDistribution() if number and float(value).is_integer():
            return int(value)
        case CategoricalDistribution(choices=choices):
            alike = (each for each in choices if each == value and isinstance(each, bool) == isinstance(value, bool))
            return next(alike, value)
    return value


def _note(run: FolderRun, curves: Curves, file: ScriptStudyFile) -> str:
    if file.script.epochs_flag is None or file.epochs is None:
        return ""
    known, epochs = _value(run.args, file.script.epochs_flag, file.flags)
    if not known or epochs == file.epochs:
        return ""
    return f"it was told to train {epochs} epochs, trials here {file.epochs}: a schedule over all epochs differs"


def _trial(
    run: FolderRun,
    curves: Curves,
    best: int,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    overrides: Mapping[str, Any],
    file: ScriptStudyFile,
) -> FrozenTrial:
    """Make a completed trial, without what the folder does not tell: times and machine."""
    length = min(len(curves[file.objective.name]), file.epochs or len(curves[file.objective.name]))
    cut = {name: curve[:length] for name, curve in curves.items()}
    numbers = {name: curve[best - 1] for name, curve in cut.items() if len(curve) >= best}
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    attrs = {
        TrialAttr.origin.key: IMPORTED,
        TrialAttr.imported_from.key: str(run.path),
        TrialAttr.sha256.key: run.sha256(),
        TrialAttr.run_id.key: _run_id(run, config, curves, file),
        TrialAttr.config.key: {**config, EPOCHS: file.epochs} if file.epochs else dict(config),
        TrialAttr.overrides.key: dict(overrides),
        TrialAttr.stop_reason.key: IMPORTED,
        TrialAttr.epochs_run.key: length,
        TrialAttr.best_epoch.key: best,
        TrialAttr.numbers.key: finite,
    }
    if seed_flag := file.script.seed_flag:
        known, seed = _value(run.args, seed_flag, file.flags)
        if known and isinstance(seed, int) and seed_for(seed) == seed:
            attrs[TrialAttr.seed.key] = seed
    return create_trial(
        state=TrialState.COMPLETE,
        value=numbers[file.objective.name],
        params=dict(params),
        distributions={name: file.space[name] for name in params},
        user_attrs=attrs,
        system_attrs={history.ATTR: {"numbers": {name: list(curve) for name, curve in cut.items()}}},
        intermediate_values={
            epoch: value for epoch, value in enumerate(cut[file.objective.name], 1) if math.isfinite(value)
        },
    )


def _run_id(run: FolderRun, config: Mapping[str, Any], curves: Curves, file: ScriptStudyFile) -> str:
    """Identify the run: equal for its files of any epoch, from its config, its seed and its first epoch."""
    _, seed = _value(run.args, file.script.seed_flag, file.flags) if file.script.seed_flag else (False, None)
    length = len(curves[file.objective.name])  # a number given once, at the end, is not of the first epoch
    first = {name: curve[0] for name, curve in curves.items() if len(curve) == length}
    content = json.dumps([dict(config), seed, first], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else repr(value)
