"""A study file with [script]: a search over the flags of the user's own script, read and checked against them.

Every error in a file raises StudyFileError, naming file and key.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face3d_tune.config import check_kind
from face3d_tune.errors import ConfigError, StudyFileError
from face3d_tune.script import command as commands
from face3d_tune.script import script_table, sources
from face3d_tune.script.flag_owners import Owners, flag_at, kind, owners_in, require_complete, values_at
from face3d_tune.script.flags import UNKNOWN, Flag, Script, arguments
from face3d_tune.script.script_table import ScriptTable
from face3d_tune.study import space as space_module
from face3d_tune.study import tables
from face3d_tune.study.attrs import StoredScript
from face3d_tune.study.objective import Objective
from face3d_tune.study.presets import PRESETS, Preset
from face3d_tune.study.space import Space
from face3d_tune.study.study_file import InitialTrial, distinct
from face3d_tune.study.tables import Component
from face3d_tune.system.paths import expanded

_TABLES = {
    "script": script_table.KEYS,
    "study": ("description", "presets"),
    "budget": ("trials", "epochs"),
    "sampler": None,
    "pruner": None,
    "fixed": None,
    "space": None,
    "presets": None,
}
# As in studies/default.toml.
_SAMPLER = {"name": "tpe", "multivariate": False, "constant_liar": True, "n_startup_trials": 8}
_PRUNER = {"name": "shape", "chance": 0.05, "n_warmup_steps": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptStudyFile:
    """One study file of a script, read and checked. `presets` are in the order in which they are tried."""

    name: str
    path: Path
    description: str
    trials: int
    epochs: int | None  # None: the script decides
    sampler: Component
    pruner: Component
    fixed: Mapping[str, Any]
    space: Space
    presets: Mapping[str, Preset]
    near: tuple[str, ...] = ()
    objective: Objective
    script: ScriptTable
    flags: Script

    @property
    def parameters(self) -> Collection[str]:
        """Return the flags that a preset may set."""
        return self.flags.flags.keys()

    def exact(self, name: str, value: Any) -> Any:
        """Return a value in the type of its flag. Raises ConfigError if it does not fit."""
        flag = self.flags.flags[name]
        check_kind(name, value, kind(flag))
        return space_module.exact(value, kind(flag))

    def stored(self) -> StoredScript:
        """Return the table [script] as a study stores it, with the hashes of the script's files."""
        table = self.script
        stored: StoredScript = {
            "path": Path(os.path.relpath(table.path, self.path.absolute().parent)).as_posix(),
            "sources": sources.hashes(table.path),
            "metric": table.metric,
            "source": table.source,
            "direction": table.direction,
            "keep": table.keep,
            "keep_direction": table.keep_direction,
            "command": [table.python, str(table.path)],
            "seed_flag": table.seed_flag,
            "epochs_flag": table.epochs_flag,
            "arguments": list(table.arguments),
            "folder_flags": list(table.folder_flags),
            "start_in": None if table.start_in is None else str(table.start_in),
            "environment": dict(table.environment),
            "time_limit": table.time_limit,
            "resume_flag": table.resume_flag,
        }
        if table.checkpoint is not None:
            stored["checkpoint"] = table.checkpoint
        return stored

    def settings(self) -> dict[str, Any]:
        """Return what all trials of a study share beside the script, as a study stores it; without the seed."""
        return {
            "study_file": self.name,
            "epochs": self.epochs,
            "objective": self.objective.name,
            "fixed": dict(self.fixed),
            "space": space_module.to_stored(self.space),
        }

    def config(self, params: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return the flags' values: the fixed ones, under a preset's own, under the searched ones."""
        return {**self.fixed, **overrides, **params}

    def command(self, config: Mapping[str, Any], seed: int | None = None, epochs: int | None = None) -> tuple[str, ...]:
        """Return Python, the script and its arguments, without folders and a checkpoint to resume.

        `epochs` replaces the budget's. Raises ConfigError if a flag cannot have a value of `config`.
        """
        epochs = self.epochs if epochs is None else epochs
        made = commands.command(self.stored(), self.flags, config, seed=seed, epochs=epochs)
        if made.missing:
            raise ConfigError(made.missing[0])
        return tuple(made.words)

    def initial_trials(self) -> list[InitialTrial]:
        """Cut every preset into searched and other values.

        A searched flag that a preset does not name has the script's default. A value outside its range is refused,
        except 0 in a logarithmic range, which cannot contain it. Optuna does not see that 0, and the trial applies it.
        """
        return [self._initial_trial(name, preset) for name, preset in self.presets.items()]

    def _initial_trial(self, name: str, preset: Preset) -> InitialTrial:
        place = f"{self.path}: presets.{name}."
        values = {**{key: self._default(place, key) for key in self.space if key not in preset}, **preset}
        try:
            params, overrides = space_module.cut(self.space, values)
        except ConfigError as error:
            raise StudyFileError(f"{place}{error.message}", f"{error.hint}, or omit the preset") from error
        return InitialTrial(name, params, overrides, "near" if name in self.near else "preset")

    def _default(self, place: str, name: str) -> Any:
        """Return the script's default of a searched flag."""
        flag = self.flags.flags[name]
        if flag.default is UNKNOWN:
            reason = f"the script's default of {flag.typed} cannot be read from its source"
        elif flag.default is None:
            reason = f"the script has no default of {flag.typed}"
        else:
            try:
                check_kind(name, flag.default, kind(flag))
                return space_module.exact(flag.default, kind(flag))
            except ConfigError as error:
                reason = f"the script's default does not fit: {error.message}"
        raise StudyFileError(f"{place}{name} is not set, and {reason}", f"set {name} in the preset")

    def constant(self, name: str) -> Any:
        """Return the value of a flag that is not searched; None if the script's default is not known."""
        if name in self.fixed:
            return self.fixed[name]
        try:
            return self._default("", name)
        except StudyFileError:
            return None

    def distinct_presets(self) -> tuple[list[InitialTrial], dict[str, str]]:
        """Return the presets without those that equal an earlier one, and for these the name of the earlier one."""
        return distinct(self.initial_trials(), lambda params, overrides: self.command(self.config(params, overrides)))

    def check(self) -> None:
        """Type every end, choice and preset, so that a value that no flag can say is found before the first trial.

        Raises StudyFileError.
        """
        for place, name, value in self._values():
            said = arguments(self.flags, name, value)
            if isinstance(said, str):
                raise StudyFileError(f"{self.path}: {place} = {_shown(value)}: {said}")
        self.initial_trials()

    def _values(self) -> Iterator[tuple[str, str, Any]]:
        """Yield every value of a table, and each end or choice of the space: its place, its flag and itself."""
        if self.script.epochs_flag is not None and self.epochs is not None:
            yield "budget.epochs", self.script.epochs_flag, self.epochs
        yield from ((f"fixed.{name}", name, value) for name, value in self.fixed.items())
        for name, row in self.space.items():
            yield from ((f"space.{name}", name, value) for value in space_module.ends(row))
        for preset, values in self.presets.items():
            yield from ((f"presets.{preset}.{name}", name, value) for name, value in values.items())


def has_script(name_or_path: str) -> bool:
    """Tell whether a study file by path has a table [script]; a built-in study has none. Raises StudyFileError."""
    return name_or_path.endswith(".toml") and "script" in tables.load(expanded(name_or_path))


def read(path: Path, script: Path | None = None) -> ScriptStudyFile:
    """Read a study file; `script` replaces its script.path. Raises StudyFileError, and ExportError for `script`."""
    return parse(path, tables.load(path), script)


def parse(path: Path, loaded: dict[str, Any], script: Path | None = None) -> ScriptStudyFile:
    """Check the content of a study file at `path`, as `read` does."""
    content = tables.split(path, loaded, _TABLES)
    table, flags = script_table.read(path, content["script"], script)
    owners = owners_in(table, flags)
    space = _space(path, content["space"], flags, owners)
    fixed = values_at(path, "fixed", content["fixed"], flags, owners)
    require_complete(path, flags, owners)
    sampler, pruner = content["sampler"] or _SAMPLER, content["pruner"] or _PRUNER
    file = ScriptStudyFile(
        name=path.stem,
        path=path,
        description=tables.text(path, "study.description", content["study"].get("description", "")),
        trials=tables.count(path, "budget.trials", content["budget"].get("trials", 50)),
        epochs=_epochs(path, content["budget"], table, flags),
        sampler=tables.component(path, "sampler", sampler, "tpe"),
        pruner=tables.component(path, "pruner", pruner, "shape"),
        fixed=fixed,
        space=space,
        presets=_presets(path, content, flags, space, owners),
        objective=Objective(table.metric, table.direction, script=True),
        script=table,
        flags=flags,
    )
    file.check()
    return file


def read_space(path: Path, file: ScriptStudyFile) -> Space:
    """Read only the table [space] of a file at `path`, for a study that exists. Raises StudyFileError."""
    content = tables.split(path, {"space": tables.load(path).get("space", {})}, {"space": None})
    return _space(path, content["space"], file.flags, owners_in(file.script, file.flags))


def _space(path: Path, rows: Mapping[str, Any], script: Script, owners: Owners) -> Space:
    """Parse [space], and enter its flags in `owners`."""
    space = {}
    for name, row in rows.items():
        flag = flag_at(path, "space", name, script, owners)
        if flag.many:
            raise StudyFileError(f"{path}: space.{name} takes a list, which no search can vary", "set it in [fixed]")
        if flag.choices and isinstance(row, dict):
            raise StudyFileError(
                f"{path}: space.{name} takes only {', '.join(map(str, flag.choices))}; expected a list of some of them"
            )

        def parse(name: str, row: Any, flag: Flag = flag) -> Any:
            return space_module.parse(name, row, kind(flag))

        space[name] = tables.at(path, "space", parse, name, row)
    if not space:
        raise StudyFileError(
            f"{path}: [space] is empty; a study needs at least one searched flag",
            f"known are {', '.join(script.flags)}",
        )
    return space


def _epochs(path: Path, budget: Mapping[str, Any], table: ScriptTable, script: Script) -> int | None:
    """Return the budget's epochs, or else the default of the script's flag."""
    if "epochs" in budget or table.epochs_flag is None:
        return tables.count(path, "budget.epochs", budget["epochs"]) if "epochs" in budget else None
    default = script.flags[table.epochs_flag].default
    if not isinstance(default, int) or isinstance(default, bool) or default < 1:
        raise StudyFileError(f"{path}: budget.epochs is missing, which script.epochs_flag gets")
    return default


def _presets(path: Path, content: Mapping[str, Any], script: Script, space: Space, owners: Owners) -> dict[str, Preset]:
    """Return the guide's presets that `study.presets` lists, as far as the script has their flags, then the file's."""
    listed, own = tables.presets(path, content, tuple(PRESETS), tuple(script.flags))
    presets: dict[str, Preset] = {}
    for name in listed:
        known = {key: value for key, value in PRESETS[name].items() if key in script.flags}
        if not known.keys() & space.keys():
            raise StudyFileError(
                f"{path}: study.presets: {name} sets none of the searched flags, {', '.join(space)}", "omit it"
            )
        presets[name] = values_at(path, f"presets.{name}", known, script, dict(owners))
    for name, preset in own.items():
        presets[name] = values_at(path, f"presets.{name}", preset, script, dict(owners))
    return presets


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
