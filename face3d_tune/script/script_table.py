"""The table [script] of a study file: which script trains, and how a trial runs it."""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from face3d_tune.errors import ExportError, StudyFileError, did_you_mean
from face3d_tune.script.flags import Script, read_script
from face3d_tune.script.running.numbers import SOURCES, Source
from face3d_tune.study import tables
from face3d_tune.study.objective import Direction
from face3d_tune.system import durations

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

KEYS = (
    *("path", "metric", "source", "direction", "keep_lowest", "keep_highest", "epochs_flag", "seed_flag"),
    *("folder_flags", "resume_flag", "checkpoint", "python", "start_in", "arguments", "environment", "time_limit"),
)
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
_NAMED = ("epochs_flag", "seed_flag", "resume_flag")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptTable:
    """One [script] table, read and checked; flags are named as in `Script.flags`."""

    path: Path  # absolute
    metric: str
    source: Source
    direction: Direction
    keep_lowest: str | None = None  # the number whose lowest epoch has the checkpoint that the script keeps
    keep_highest: str | None = None
    epochs_flag: str | None = None
    seed_flag: str | None = None
    folder_flags: tuple[str, ...] = ()
    resume_flag: str | None = None
    checkpoint: str | None = None  # a glob in the trial's folder
    python: str = sys.executable
    start_in: Path | None = None  # None: the trial's own folder
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str]
    time_limit: float | None = None  # seconds

    @property
    def keep(self) -> str | None:
        """Return the number that decides which epoch the script keeps; None: its metric."""
        return self.keep_lowest or self.keep_highest

    @property
    def keep_direction(self) -> Direction:
        """Return what is better of that number."""
        if self.keep_lowest:
            return "minimize"
        return "maximize" if self.keep_highest else self.direction

    def own_flags(self) -> dict[str, str]:
        """Return the flags that a trial sets by itself, each with its key in the table."""
        named = {getattr(self, key): key for key in _NAMED}
        return {flag: key for flag, key in (named | dict.fromkeys(self.folder_flags, "folder_flags")).items() if flag}


def read(path: Path, table: Mapping[str, Any], replacement: Path | None) -> tuple[ScriptTable, Script]:
    """Read the table of the study file `path`, and the flags of its script, or of the one in its place.

    Raises StudyFileError; ExportError if the script in its place cannot be read.
    """
    script = _script(path, table, replacement)
    for key in ("metric", "source", "direction"):
        if key not in table:
            raise StudyFileError(
                f"{path}: script.{key} is missing", "`face3d-tune script PATH` shows the numbers of a script"
            )
    if "keep_lowest" in table and "keep_highest" in table:
        raise StudyFileError(f"{path}: script.keep_lowest and script.keep_highest are both set; keep one")
    texts = {key: _text(path, key, table[key]) for key in ("metric", "keep_lowest", "keep_highest") if key in table}
    named = {key: _flag(path, key, table[key], script) for key in _NAMED if key in table}
    if (seed := named.get("seed_flag")) and script.flags[seed].kind == "float":
        raise StudyFileError(f"{path}: script.seed_flag = {seed!r} does not take whole numbers")
    folders = tuple(_flag(path, "folder_flags", name, script) for name in _texts(path, "folder_flags", table))
    source, direction = table["source"], table["direction"]
    tables.choice(path, "script.source", source, SOURCES)
    tables.choice(path, "script.direction", direction, DIRECTIONS)
    all_named = [*named.values(), *folders]
    for name in all_named:
        if all_named.count(name) > 1:
            raise StudyFileError(f"{path}: script: two of its keys name the flag {name}; keep one")
    found = ScriptTable(
        path=Path(os.path.abspath(script.path)),
        source=source,
        direction=direction,
        folder_flags=folders,
        checkpoint=_glob(path, table),
        python=_python(path, table.get("python")),
        start_in=_start_in(path, table),
        arguments=_texts(path, "arguments", table),
        environment=_environment(path, table.get("environment", {})),
        time_limit=_time_limit(path, table.get("time_limit")),
        **texts,
        **named,
    )
    return found, script


def _script(path: Path, table: Mapping[str, Any], replacement: Path | None) -> Script:
    if replacement is not None:
        return read_script(replacement)
    if "path" not in table:
        raise StudyFileError(f"{path}: script.path is missing", "name the script, relative to this file, or --script")
    script = _beside(path, _text(path, "path", table["path"]))
    try:
        return read_script(script)
    except ExportError as error:
        raise StudyFileError(f"{path}: script.path: {error.message}", error.hint) from error


def _beside(path: Path, typed: str) -> Path:
    """Return a path that a study file names, relative to the file."""
    return path.absolute().parent / os.path.expanduser(typed)


def _flag(path: Path, key: str, name: Any, script: Script) -> str:
    """Return the name of a flag with a value that a key names."""
    place = f"script.{key} = {name!r}"
    flag = script.flags.get(name) if isinstance(name, str) else None
    if flag is None:
        question = did_you_mean(str(name), script.flags)
        raise StudyFileError(f"{path}: {place} is no flag of {script.path}{question}", _flags_of(script))
    if flag.kind in ("switch", "other"):
        raise StudyFileError(f"{path}: {place} takes no value, so it cannot get one")
    return str(name)


def _flags_of(script: Script) -> str:
    return f"its flags are {', '.join(script.flags)}"


def _text(path: Path, key: str, value: Any) -> str:
    text = tables.text(path, f"script.{key}", value)
    if not text:
        raise StudyFileError(f"{path}: script.{key} is empty")
    return text


def _texts(path: Path, key: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise StudyFileError(f"{path}: script.{key} = {values!r} is not a list of texts")
    return tuple(values)


def _glob(path: Path, table: Mapping[str, Any]) -> str | None:
    if "checkpoint" not in table:
        return None
    pattern = _text(path, "checkpoint", table["checkpoint"])
    if "resume_flag" not in table:
        raise StudyFileError(f"{path}: script.checkpoint needs script.resume_flag, which takes the checkpoint")
    if os.path.isabs(pattern) or ".." in Path(pattern).parts:
        raise StudyFileError(
            f"{path}: script.checkpoint = {pattern!r} leads out of the trial's folder", "name a file in it: *last*.pth"
        )
    return pattern


def _python(path: Path, typed: Any) -> str:
    if typed is None:
        return sys.executable
    name = os.path.expanduser(_text(path, "python", typed))
    program = str(_beside(path, name)) if os.path.dirname(name) else name
    if shutil.which(program) is None:
        raise StudyFileError(
            f"{path}: script.python = {typed!r}: no such program", "name the Python that trains, e.g. .venv/bin/python"
        )
    return program


def _start_in(path: Path, table: Mapping[str, Any]) -> Path | None:
    if "start_in" not in table:
        return None
    folder = _beside(path, _text(path, "start_in", table["start_in"]))
    if not folder.is_dir():
        raise StudyFileError(f"{path}: script.start_in: {folder} is no folder")
    return folder


def _environment(path: Path, values: Any) -> Mapping[str, str]:
    if not isinstance(values, dict):
        raise StudyFileError(f"{path}: script.environment = {values!r} is not a table")
    for name, value in values.items():
        tables.text(path, f"script.environment.{name}", value)
        if not name or "=" in name or "\0" in name + value:
            raise StudyFileError(f"{path}: script.environment: no variable can be {name!r} = {value!r}")
        if _SECRET.search(name):
            raise StudyFileError(
                f"{path}: script.environment.{name} would be stored with the study, for all who can read it",
                f"set {name} in your shell: a script inherits the environment of `run`",
            )
    return values


def _time_limit(path: Path, typed: Any) -> float | None:
    if typed is None:
        return None
    limit = durations.seconds(str(typed)) if isinstance(typed, str | int | float) else None
    if not limit:
        raise StudyFileError(f"{path}: script.time_limit = {typed!r} is not a duration; {durations.EXPECTED}")
    return limit
