"""The tables of a study file, read and checked: every error names file and key."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face3d_tune.errors import ConfigError, StudyFileError, did_you_mean
from face3d_tune.study.builtin import builtin_names
from face3d_tune.system import regular_file
from face3d_tune.system.safe_text import fits_a_line


@dataclass(frozen=True, slots=True)
class Component:
    """A sampler or pruner by name, with the options of Optuna's class."""

    name: str
    options: Mapping[str, Any]


def load(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises StudyFileError."""
    try:
        regular_file.require(path, most=regular_file.MOST_TEXT)
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise StudyFileError(f"{path}: {error.strerror}", f"built in are {', '.join(builtin_names())}") from error
    except UnicodeDecodeError as error:
        raise StudyFileError(f"{path}: not UTF-8 at byte {error.start}", "save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise StudyFileError(f"{path}: not valid TOML: {error}") from error


def at(path: Path, table: str, check: Any, name: str, value: Any) -> Any:
    """Check one value; name its place in the file in the error."""
    try:
        return check(name, value)
    except ConfigError as error:
        raise StudyFileError(f"{path}: {table}.{error.message}", error.hint) from error


def split(path: Path, content: dict[str, Any], known: Mapping[str, Sequence[str] | None]) -> dict[str, Any]:
    """Return every table of a file, empty where the file has none; `known` lists the keys of each (None: any)."""
    require_known(path, "", content, tuple(known))
    tables = {table: content.get(table, {}) for table in known}
    for table, keys in known.items():
        if not isinstance(tables[table], dict):
            raise StudyFileError(f"{path}: {table} = {tables[table]!r} is not a table; expected [{table}]")
        if keys is not None:
            require_known(path, f"{table}.", tables[table], keys)
    return tables


def require_known(path: Path, place: str, names: Iterable[str], choices: Sequence[str]) -> None:
    """Raise StudyFileError, with the nearest choice, unless every name is one of the choices."""
    for name in names:
        if name not in choices:
            question = did_you_mean(str(name), choices)
            raise StudyFileError(f"{path}: {place}{name} is unknown{question}", f"known are {', '.join(choices)}")


def count(path: Path, key: str, value: Any) -> int:
    """Return a whole number of at least 1. Raises StudyFileError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StudyFileError(f"{path}: {key} = {value!r} is out of range; expected a whole number of at least 1")
    return value


def text(path: Path, key: str, value: Any) -> str:
    """Return a text. Raises StudyFileError."""
    if not isinstance(value, str):
        raise StudyFileError(f"{path}: {key} = {value!r} is not text")
    return value


def choice(path: Path, key: str, value: Any, choices: Sequence[str]) -> str:
    """Return the choice that a value is. Raises StudyFileError, with the nearest choice."""
    if value not in choices:
        question = did_you_mean(str(value), choices)
        raise StudyFileError(f"{path}: {key} = {value!r} is unknown{question}", f"known are {', '.join(choices)}")
    return str(value)


def presets(
    path: Path, tables: Mapping[str, Any], documented: Sequence[str], keys: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Return the documented presets that `study.presets` lists, and every [presets.NAME] of the file.

    `keys` are those that a preset may have. Raises StudyFileError.
    """
    own, listed = tables["presets"], tables["study"].get("presets", [])
    if not isinstance(listed, list):
        raise StudyFileError(f"{path}: study.presets = {listed!r} is not a list of names")
    require_known(path, "study.presets: ", listed, documented)
    for name, preset in own.items():
        if name in documented:
            raise StudyFileError(f"{path}: presets.{name} has the name of a documented preset; give it another")
        if not fits_a_line(name):
            raise StudyFileError(f"{path}: the preset {name!r} has a character that no line can show; rename it")
        if not isinstance(preset, dict):
            raise StudyFileError(f"{path}: presets.{name} is not a table")
        require_known(path, f"presets.{name}.", preset, keys)
    return listed, own


def component(path: Path, table: str, content: dict[str, Any], default: str) -> Component:
    """Return the sampler or pruner that a table names. Raises StudyFileError."""
    options = dict(content)
    name = options.pop("name", default)
    if not isinstance(name, str):
        raise StudyFileError(f"{path}: {table}.name = {name!r} is not text")
    return Component(name, options)
