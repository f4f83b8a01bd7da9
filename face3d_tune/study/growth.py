"""The growth of a study's search space: ranges become wider, or a fixed parameter is searched, while the study goes on.

Every value of the old trials stays inside, so they compare with the new ones. Choices cannot grow: Optuna takes the
same choices in all trials of a study.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from face3d_tune.errors import StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import ANOTHER, study_names
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import StoredGrowth, StoredSettings, StudyAttr, TrialAttr
from face3d_tune.study.searched_file import SearchedFile
from face3d_tune.study.space import Space
from face3d_tune.system import person

F = TypeVar("F", bound=SearchedFile)


@dataclass(frozen=True, slots=True)
class GrownSpace:
    """The space of a study that grew, as its sampler needs it.

    Attributes:
        space: As it is now.
        values: Of parameters that were not searched at first, by name: the value of the trials before.
    """

    space: Space
    values: Mapping[str, Any]

    @classmethod
    def of(cls, settings: StoredSettings) -> "GrownSpace | None":
        """Read the settings of a study; None if its space never grew."""
        if not settings.get("grown"):
            return None
        return cls(space_module.from_stored(settings["space"]), values_before(settings))

    def seen(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as the sampler reads it: in the space as it is now.

        Optuna samples jointly what all trials have with equal distributions. An old trial has narrower ones, and lacks
        a parameter that was fixed then. A trial that has not begun stays as it is, for its values are still open.
        """
        if not TrialAttr.config.held_by(trial.user_attrs):
            return trial
        attrs = trial.user_attrs
        values = {**self.values, **TrialAttr.config.of(attrs), **TrialAttr.overrides.get(attrs, {})}
        params = {name: values[name] for name in self.values if name in self.space} | trial.params
        held = {name: row for name, row in self.space.items() if name in params}
        inside = {name: row for name, row in held.items() if space_module.contains(row, params[name])}
        stand_in = copy.copy(trial)
        stand_in.params = {name: value for name, value in params.items() if name in inside or name in trial.params}
        stand_in.distributions = {**trial.distributions, **inside}
        return stand_in


def values_before(settings: StoredSettings) -> dict[str, Any]:
    """Return the values that parameters had before they were searched, by name."""
    return {each["parameter"]: each["value"] for each in settings.get("grown", ()) if "value" in each}


def require_begun(place: Storage, name: str, path: Path) -> None:
    """Raise StudyError unless the storage holds study `name`, whose space is to grow to that of the file at `path`."""
    if place.holds_studies():
        with place.opened() as storage:
            if name in study_names(storage):
                return
    raise StudyError(f"study {name!r} has not begun, so it has no ranges to grow", f"begin it with --study {path}")


def grow(study: optuna.Study, file: F, wider: Space, worker: str, check: Callable[[F], object]) -> None:
    """Store that the space of a study grows by these rows; parameters that they do not name stay as they are.

    Args:
        study: The study. The caller holds the lock of its database.
        file: Its study file, as `as_grown` gives it.
        wider: New rows. One that is as before changes nothing.
        worker: Which worker stores it.
        check: Raises an error if nothing can be searched with the grown file.

    Raises:
        StudyError: A row is narrower or another one, or Optuna cannot take it. Nothing has been stored.
    """
    settings = StudyAttr.settings.of(study.user_attrs)
    space, fixed, grown = dict(settings["space"]), dict(settings["fixed"]), list(settings.get("grown", ()))
    at = person.now()
    for name, row in space_module.to_stored(wider).items():
        if space.get(name) == row:
            continue
        growth: StoredGrowth = {"parameter": name, "after": row, "at": at, "by": worker}
        if name in space:
            _require_wider(study.study_name, name, space_module.from_stored(space)[name], wider[name])
            growth["before"] = space[name]
        else:
            growth["value"] = _value_until_now(study.study_name, file, name, wider[name])
            fixed.pop(name, None)
        space[name] = row
        grown.append(growth)
    if len(grown) > len(settings.get("grown", ())):
        after = cast(StoredSettings, {**settings, "space": space, "fixed": fixed, "grown": grown})
        check(as_grown(file, after))
        study.set_user_attr(StudyAttr.settings.key, after)


def _require_wider(study: str, name: str, before: BaseDistribution, row: BaseDistribution) -> None:
    was, told = space_module.describe(before), space_module.describe(row)
    if isinstance(before, CategoricalDistribution) and isinstance(row, CategoricalDistribution):
        raise StudyError(
            f"study {study!r} searches {name} in {was}, not in {told}: "
            "Optuna takes the same choices in all trials of a study",
            "start another study with its winners: --study FILE.toml --study-name NEW --like "
            f"sqlite:///FILE.db#{study}",
        )
    if not isinstance(before, type(row)) or getattr(before, "log", None) != getattr(row, "log", None):
        raise StudyError(
            f"study {study!r} searches {name} in {was}, not in {told}: Optuna takes one kind of range in a study",
            ANOTHER,
        )
    assert isinstance(before, FloatDistribution | IntDistribution)
    assert isinstance(row, FloatDistribution | IntDistribution)
    if row.low > before.low or row.high < before.high:
        raise StudyError(
            f"study {study!r} searches {name} in {was}, and {told} does not hold all of it: ranges only grow", ANOTHER
        )


def _value_until_now(study: str, file: SearchedFile, name: str, row: BaseDistribution) -> Any:
    value = file.constant(name)
    if value is None:
        raise StudyError(
            f"study {study!r} does not say which {name} its trials have, so it cannot be searched", ANOTHER
        )
    if not space_module.contains(row, value):
        raise StudyError(
            f"the trials of study {study!r} have {name} = {value}, outside {space_module.describe(row)}",
            f"give a range that holds {value}, or {ANOTHER}",
        )
    return value


def as_grown(file: F, settings: StoredSettings) -> F:
    """Return a study file with the ranges to which its study has grown since.

    A row of the file grows if it is one that the study had. Presets keep the value that a parameter had before it was
    searched. Any other difference stays, and is refused as in every study.
    """
    if not settings.get("grown"):
        return file
    space, fixed, presets = dict(file.space), dict(file.fixed), dict(file.presets)
    for each in settings.get("grown", ()):
        name = each["parameter"]
        if "before" in each:
            before = space_module.from_stored({name: each["before"]})[name]
            if space.get(name) == before:
                space[name] = space_module.from_stored({name: each["after"]})[name]
        elif name not in space and file.constant(name) == each["value"]:
            fixed.pop(name, None)
            space[name] = space_module.from_stored({name: each["after"]})[name]
            presets = {preset: {name: each["value"], **values} for preset, values in presets.items()}
    order = (*settings["space"], *space)  # the same for every worker
    space = {name: space[name] for name in order if name in space}
    return cast(F, replace(cast(Any, file), space=space, fixed=fixed, presets=presets))


def lines(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each growth of a space, in order; none if it never grew."""
    return [_line(each, *ranges(each)) for each in settings.get("grown", ())]


def _line(growth: StoredGrowth, before: str, after: str) -> str:
    name, at, by = growth["parameter"], growth["at"], growth["by"]
    if "before" in growth:
        return f"the range of {name} grew from {before} to {after} at {at}, by {by}"
    return f"{name} was {before}, and is searched in {after} since {at}, by {by}"


def ranges(growth: StoredGrowth) -> tuple[str, str]:
    """Describe a range before and after it grew; of a parameter that was not searched, its value before."""
    (after,) = space_module.from_stored({"": growth["after"]}).values()
    if "before" not in growth:
        return str(growth["value"]), space_module.describe(after)
    (before,) = space_module.from_stored({"": growth["before"]}).values()
    return space_module.describe(before), space_module.describe(after)
