"""The flags that a study file sets: each by one table or key of the file, its owner, and to values that fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from face3d_tune.config import check_kind
from face3d_tune.errors import ConfigError, StudyFileError
from face3d_tune.script.flags import Flag, Script
from face3d_tune.script.script_table import ScriptTable
from face3d_tune.study import space as space_module
from face3d_tune.study import tables

Owners = dict[str, tuple[str, str]]  # by a flag as typed: the table or key of the file that sets it, and its name there
_TYPES: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "switch": bool}


def kind(flag: Flag) -> Any:
    """Return the type of a flag's values, as `config.check_kind` takes it: a Literal of its choices if it has any."""
    return Literal[flag.choices] if flag.choices else _TYPES[flag.kind]


def owners_in(table: ScriptTable, flags: Script) -> Owners:
    """Return the flags that the table [script] sets."""
    owners: Owners = {flags.flags[name].typed: (f"script.{key}", name) for name, key in table.own_flags().items()}
    return owners | {_typed(word, flags): ("script.arguments", word) for word in table.arguments if word[:2] == "--"}


def values_at(path: Path, place: str, values: Mapping[str, Any], script: Script, owners: Owners) -> dict[str, Any]:
    """Check the values of [fixed] or a preset, and enter their flags in `owners`."""
    return {
        name: tables.at(path, place, _checker(flag_at(path, place, name, script, owners)), name, value)
        for name, value in values.items()
    }


def _checker(flag: Flag) -> Any:
    def check(name: str, value: Any) -> Any:
        if not flag.many:
            check_kind(name, value, kind(flag))
            return space_module.exact(value, kind(flag))
        if not isinstance(value, list):
            raise ConfigError(f"{name} = {value!r} is not a list; {flag.typed} takes one")
        for each in value:
            check_kind(name, each, kind(flag))
        return [space_module.exact(each, kind(flag)) for each in value]

    return check


def flag_at(path: Path, place: str, name: str, script: Script, owners: Owners) -> Flag:
    """Return the flag of a key, and enter it: each flag has one owner."""
    tables.require_known(path, f"{place}.", [name], tuple(script.flags))
    flag = script.flags[name]
    if flag.kind == "other":
        raise StudyFileError(f"{path}: {place}.{name}: {flag.typed} takes no value that a study file can say")
    owner_place, owner = owners.setdefault(flag.typed, (place, name))
    if owner_place.startswith("script."):
        raise StudyFileError(f"{path}: {place}.{name} is also set by {owner_place}; keep one")
    if owner != name:
        raise StudyFileError(
            f"{path}: {place}.{name} and {owner_place}.{owner} are the same flag, {flag.typed}; keep one name"
        )
    if (owner_place, place) == ("space", "fixed"):
        raise StudyFileError(f"{path}: {name} is both in [fixed] and in [space]; keep one")
    return flag


def _typed(word: str, script: Script) -> str:
    """Return the flag that a word of a command line names, by its first name."""
    name = word.partition("=")[0]
    flag = script.flags.get(name.removeprefix("--").replace("-", "_"))
    return flag.typed if flag else name


def require_complete(path: Path, script: Script, owners: Owners) -> None:
    """Raise StudyFileError if the script needs a flag that has no owner."""
    for name, flag in script.flags.items():
        if flag.required and flag.typed not in owners:
            raise StudyFileError(
                f"{path}: {script.path} does not start without {flag.typed}",
                f"set fixed.{name}, or search it in [space]",
            )
