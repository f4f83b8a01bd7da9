"""Study files (`studies/*.toml`): the searched and fixed parameters, the first trials and the budget of a search.

Every error in a file raises StudyFileError, naming file and key.
"""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from face3d_tune.config import DEFAULTS, PARAMETERS, Layout, TrialConfig, check_type, resolve
from face3d_tune.errors import ConfigError, StudyFileError, did_you_mean
from face3d_tune.study import space as space_module
from face3d_tune.study import tables
from face3d_tune.study.attrs import StoredWinner
from face3d_tune.study.builtin import STUDIES, builtin_names
from face3d_tune.study.objective import COSINE, OBJECTIVES, ObjectiveName
from face3d_tune.study.presets import PRESETS, Preset
from face3d_tune.study.space import Space
from face3d_tune.study.tables import Component
from face3d_tune.system.paths import expanded

_TABLES = {
    "study": ("description", "presets", "objective"),
    "budget": ("trials", "epochs"),
    "sampler": None,  # `name` and the options of Optuna's class
    "pruner": None,
    "fixed": tuple(PARAMETERS),
    "space": tuple(PARAMETERS),
    "presets": None,
}


@dataclass(frozen=True, slots=True)
class InitialTrial:
    """A preset cut in two: Optuna's parameters, and the values that its trial sets outside the search."""

    name: str
    params: Mapping[str, Any]
    overrides: Mapping[str, Any]
    kind: Literal["preset", "near", "like"] = "preset"  # user attribute that names it: only presets are compared with
    winner: StoredWinner | None = None  # of another study, if its config is that

    @property
    def mark(self) -> Any:
        """Return the value of that user attribute, by which a trial that is queued is known."""
        return self.name if self.winner is None else self.winner


def distinct(
    initial_trials: Iterable[InitialTrial], config: Callable[[Mapping[str, Any], Mapping[str, Any]], Hashable]
) -> tuple[list[InitialTrial], dict[str, str]]:
    """Return the trials whose `config` no earlier one has, and for the others the name of the earlier one."""
    first_of: dict[Hashable, str] = {}
    kept, aliases = list[InitialTrial](), dict[str, str]()
    for each in initial_trials:
        first = first_of.setdefault(config(each.params, each.overrides), each.name)
        if first == each.name:
            kept.append(each)
        else:
            aliases[each.name] = first
    return kept, aliases


@dataclass(frozen=True, slots=True)
class StudyFile:
    """One study file, read and checked. `presets` are in the order in which they are tried.

    Those in `near` are not named presets, but points near the best of the study before (see `warm_start`).
    """

    name: str
    path: Path
    description: str
    trials: int
    epochs: int
    sampler: Component
    pruner: Component
    fixed: Mapping[str, Any]
    space: Space
    presets: Mapping[str, Preset]
    near: tuple[str, ...] = ()
    objective: str = COSINE.name

    def bind(self, layout: Layout, feature_size: int, epochs: int, *, use_amp: bool = True) -> "BoundStudyFile":
        """Return the file for one layout, feature size and number of epochs, as a study searches it.

        Without `use_amp` no config trains with mixed precision. Raises StudyFileError if the layout has nothing to
        search.
        """
        file = self._for_layout(layout)
        values = {field.name: getattr(file, field.name) for field in fields(StudyFile)} | {"epochs": epochs}
        return BoundStudyFile(**values, layout=layout, feature_size=feature_size, use_amp=use_amp)

    def _for_layout(self, layout: Layout) -> "StudyFile":
        """Drop the parameters that a layout does not have, so that every searched one acts."""
        if layout == "keypoint":
            return self

        def without(values: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in values.items() if name != "use_spatial_attention"}

        if not without(self.space):
            raise StudyFileError(
                f"{self.path}: [space] holds only use_spatial_attention, which the {layout} layout does not have"
            )
        presets = {name: without(preset) for name, preset in self.presets.items()}
        return replace(self, fixed=without(self.fixed), space=without(self.space), presets=presets)

    def check(self) -> None:
        """Build a config for every end, choice and preset, so that an impossible value is found before the first trial.

        The embeddings are taken to be of a size that any nhead divides. Raises StudyFileError.
        """

        def build(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
            values = {"nhead": 8, **self.fixed, **overrides, **params}
            resolve(values, feature_size=max(1, values["nhead"]), epochs=self.epochs, layout="keypoint")

        self._check_corners(build)

    def _check_corners(self, build: Callable[[Mapping[str, Any], Mapping[str, Any]], None]) -> None:
        for place, params, overrides in self._corners():
            try:
                build(params, overrides)
            except ConfigError as error:
                key = error.message.split()[0]
                tables = {place: {**overrides, **params}, "fixed": self.fixed}
                table = next((f"{table}." for table, keys in tables.items() if key in keys), f"{place}: ")
                raise StudyFileError(f"{self.path}: {table}{error.message}", error.hint) from error

    def _corners(self) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """Yield both ends of the whole space, each end or choice of each parameter, and the presets.

        Each item has name, params, overrides. Values in between cannot fail, but for nhead and d_model chosen together.
        """
        ends = {name: space_module.ends(row) for name, row in self.space.items()}
        low, high = ({name: values[end] for name, values in ends.items()} for end in (0, -1))
        yield from (("space", low, {}), ("space", high, {}))
        for name, values in ends.items():
            yield from (("space", {**low, name: value}, {}) for value in values)
        for initial_trial in self.initial_trials():
            yield f"presets.{initial_trial.name}", initial_trial.params, initial_trial.overrides

    def initial_trials(self) -> list[InitialTrial]:
        """Cut every preset into searched and other values.

        A searched parameter that a preset does not name has its script default. A value outside its range is refused,
        except 0 in a logarithmic range, which cannot contain it. Optuna does not see that 0, and the trial applies it.
        """
        return [self._initial_trial(name, preset) for name, preset in self.presets.items()]

    def _initial_trial(self, name: str, preset: Preset) -> InitialTrial:
        values = {**{key: _script_default(key) for key in self.space}, **preset}
        for key, value in values.items():
            if value is None:
                raise StudyFileError(f"{self.path}: presets.{name}.{key} is not set, and the study searches it")
        try:
            params, overrides = space_module.cut(self.space, values)
        except ConfigError as error:
            hint = f"{error.hint}, or leave the preset out of study.presets"
            raise StudyFileError(f"{self.path}: presets.{name}.{error.message}", hint) from error
        return InitialTrial(name, params, overrides, "near" if name in self.near else "preset")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundStudyFile(StudyFile):
    """A study file for one layout, feature size and number of epochs: what a study searches."""

    layout: Layout
    feature_size: int  # of the embeddings
    use_amp: bool = True  # False: no trial does, whatever the file or a preset says

    @property
    def parameters(self) -> Collection[str]:
        """Return the parameters that a preset may set."""
        return PARAMETERS.keys()

    def exact(self, name: str, value: Any) -> Any:
        """Return a value in its parameter's type. Raises ConfigError if it does not fit."""
        check_type(name, value)
        return space_module.exact(value, PARAMETERS[name])

    def constant(self, name: str) -> Any:
        """Return the value of a parameter that is not searched; None if it follows from others or the data."""
        follows = {"width": "d_model", "mse_weight": "cosine_weight"}.get(name)
        if follows is not None and follows in {**self.space, **self.fixed}:
            return None
        return self.fixed.get(name, _script_default(name))

    def config(self, params: Mapping[str, Any], overrides: Mapping[str, Any]) -> TrialConfig:
        """Return what trains: the fixed values, under a preset's own, under the searched ones. Raises ConfigError."""
        values = {**self.fixed, **overrides, **params}
        config = resolve(values, feature_size=self.feature_size, epochs=self.epochs, layout=self.layout)
        return config if self.use_amp else replace(config, use_mixed_precision=False)

    def check(self, training_pairs: float = math.inf) -> None:
        """Build a config for every end, choice and preset, as `StudyFile.check`, for the data at hand."""

        def build(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
            if (size := self.config(params, overrides).batch_size) > training_pairs:
                raise ConfigError(f"batch_size = {size} is more than the {training_pairs} training pairs")

        self._check_corners(build)

    def extreme_configs(self) -> list[TrialConfig]:
        """Return configs among which is the largest model that the search can meet."""
        return [self.config(params, overrides) for _, params, overrides in self._corners()]

    def distinct_presets(self) -> tuple[list[InitialTrial], dict[str, str]]:
        """Return the presets without those that equal an earlier one, and for these the name of the earlier one."""
        return distinct(self.initial_trials(), self.config)


def _script_default(name: str) -> Any:
    if name == "width":
        return 1.0
    return DEFAULTS.get(name)  # none if it follows the data; a range that searches it needs it in every preset


def read(name_or_path: str) -> StudyFile:
    """Read a built-in study by name, or any study file by path (it ends in .toml)."""
    if name_or_path.endswith(".toml"):
        path = expanded(name_or_path)
    elif name_or_path in builtin_names():
        path = STUDIES / f"{name_or_path}.toml"
    else:
        raise StudyFileError(
            f"no study named {name_or_path!r}{did_you_mean(name_or_path, builtin_names())}",
            f"built in are {', '.join(builtin_names())}; a file of your own ends in .toml",
        )
    return _parse(path, tables.load(path))


def _parse(path: Path, loaded: dict[str, Any]) -> StudyFile:
    content = tables.split(path, loaded, _TABLES)
    space = _space(path, content["space"])
    for name, value in content["fixed"].items():
        if name in space:
            raise StudyFileError(f"{path}: {name} is both in [fixed] and in [space]; keep one")
        tables.at(path, "fixed", check_type, name, value)
        content["fixed"][name] = space_module.exact(value, PARAMETERS[name])
    if "width" in space and "d_model" in {**space, **content["fixed"]}:
        raise StudyFileError(f"{path}: d_model follows from space.width; keep one of them")
    file = StudyFile(
        name=path.stem,
        path=path,
        description=tables.text(path, "study.description", content["study"].get("description", "")),
        trials=tables.count(path, "budget.trials", content["budget"].get("trials", 50)),
        epochs=tables.count(path, "budget.epochs", content["budget"].get("epochs", 100)),
        sampler=tables.component(path, "sampler", content["sampler"], "tpe"),
        pruner=tables.component(path, "pruner", content["pruner"], "none"),
        fixed=content["fixed"],
        space=space,
        presets=_presets(path, content),
        objective=_objective(path, content["study"].get("objective", COSINE.name)),
    )
    file.check()
    return file


def read_space(path: Path) -> Space:
    """Read only the table [space] of a file, for a study that exists. Raises StudyFileError."""
    content = tables.split(path, {"space": tables.load(path).get("space", {})}, {"space": _TABLES["space"]})
    return _space(path, content["space"])


def _space(path: Path, rows: Mapping[str, Any]) -> Space:
    space = {name: tables.at(path, "space", space_module.parse, name, row) for name, row in rows.items()}
    if not space:
        raise StudyFileError(f"{path}: [space] is empty; a study needs at least one searched parameter")
    return space


def _presets(path: Path, content: dict[str, Any]) -> dict[str, Preset]:
    """Return the guide's presets that `study.presets` lists, then every [presets.NAME] of the file."""
    listed, own = tables.presets(path, content, tuple(PRESETS), tuple(PARAMETERS))
    for name, preset in own.items():
        for key, value in preset.items():
            tables.at(path, f"presets.{name}", check_type, key, value)
            preset[key] = space_module.exact(value, PARAMETERS[key])
    return {**{name: PRESETS[name] for name in listed}, **own}


def _objective(path: Path, value: Any) -> ObjectiveName:
    for name in OBJECTIVES:
        if value == name:
            return name
    question = did_you_mean(str(value), OBJECTIVES)
    names = f"known are {', '.join(OBJECTIVES)}"
    raise StudyFileError(f"{path}: study.objective = {value!r} is unknown{question}", names)
