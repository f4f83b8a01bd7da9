"""A config that a person tries: the typed values, checked against what a study searches, and completed from a trial.

A study stores its space, its fixed values and its presets, so neither the study file nor the data are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

from face3d_tune.config import PARAMETERS, check_kind, resolve
from face3d_tune.errors import ConfigError, StudyError, did_you_mean
from face3d_tune.storage.optuna_internals import fixed_params
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import StoredSettings, StudyAttr, TrialAttr
from face3d_tune.study.growth import values_before
from face3d_tune.study.lookup import pick_trial
from face3d_tune.study.other_programs import own_trials
from face3d_tune.study.trials import every_preset

_OF_EVERY_TRIAL = ("epochs", "layout", "seed", "folds", "objective")  # settings of a study


@dataclass(frozen=True, slots=True)
class TriedConfig:
    """A config to queue. The sampler chooses the searched parameters that neither field names."""

    params: Mapping[str, Any]  # of the space
    overrides: Mapping[str, Any]  # values that the study does not search
    sampled: Sequence[str]  # names that the sampler chooses


def tried_config(
    study: optuna.Study, typed: Sequence[str], *, preset: str | None = None, like: int | None = None
) -> TriedConfig:
    """Return the config that `typed` asks for: words NAME=VALUE, over a preset's values or those of the trial `like`.

    Raises ConfigError for a value that no trial of this study can have, and StudyError for a preset or trial that it
    does not hold.
    """
    space = _space(study)
    base = _preset(study, preset) if preset is not None else pick_trial(study, like) if like is not None else None
    params, overrides = _values(base, StudyAttr.settings.of(study.user_attrs)) if base else ({}, {})
    params = {name: value for name, value in params.items() if name in space and name not in overrides}
    for word in typed:
        name, value = _read(study, space, word)
        params.pop(name, None)
        overrides.pop(name, None)
        searched = name in space and space_module.contains(space[name], value)
        (params if searched else overrides)[name] = value
    sampled = [name for name in space if name not in params and name not in overrides]
    if not StudyAttr.script.held_by(study.user_attrs):
        _check(study, space, params, overrides)
    return TriedConfig(params, overrides, sampled)


def _space(study: optuna.Study) -> dict[str, BaseDistribution]:
    return space_module.from_stored(StudyAttr.settings.of(study.user_attrs)["space"])


def _values(trial: FrozenTrial, settings: StoredSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and overrides of a trial, which may still wait.

    A trial from before a parameter was searched has the value of that time.
    """
    overrides, config = TrialAttr.overrides.get(trial.user_attrs, {}), TrialAttr.config.get(trial.user_attrs, {})
    before = {name: config.get(name, value) for name, value in values_before(settings).items()}
    return {**before, **(fixed_params(trial) or {}), **trial.params}, dict(overrides)


def _preset(study: optuna.Study, name: str) -> FrozenTrial:
    held = {row.name: row.trial for row in every_preset(study) if row.trial is not None}
    if name not in held:
        names = f"it has {', '.join(held)}" if held else "it has none"
        raise StudyError(f"study {study.study_name!r} has no preset {name!r}{did_you_mean(name, held)}", names)
    return held[name]


def _read(study: optuna.Study, space: Mapping[str, BaseDistribution], word: str) -> tuple[str, Any]:
    """Return name and value of a typed word. Raises ConfigError."""
    name, equals, text = (part.strip() for part in word.partition("="))
    name = name.removeprefix("--").replace("-", "_")
    if not equals or not name:
        raise ConfigError(f"{word!r} is no value of a parameter; expected NAME=VALUE, e.g. lr=3e-4")
    settings = StudyAttr.settings.of(study.user_attrs)
    if name in space:
        return name, _searched(name, text, space[name])
    may_set = _overridable(study)
    if name in may_set:
        kind = may_set[name]
        if kind not in (bool, int, float, str) and not get_args(kind):
            raise ConfigError(f"{name} takes a list, which cannot be typed here", "use --like or --preset")
        value = _parsed(text, kind)
        check_kind(name, value, kind)
        return name, space_module.exact(value, kind)
    searched = f"it searches {', '.join(space)}"
    if name in settings["fixed"]:
        raise ConfigError(f"{name} is fixed at {settings['fixed'][name]} in study {study.study_name!r}", searched)
    if name in _OF_EVERY_TRIAL:
        raise ConfigError(f"{name} is the same in every trial of study {study.study_name!r}", searched)
    near = did_you_mean(name, [*space, *may_set])
    raise ConfigError(f"study {study.study_name!r} has no parameter {name!r}{near}", searched)


def _searched(name: str, text: str, row: BaseDistribution) -> Any:
    """Return the value of a searched parameter; 0 is one of a logarithmic range, as in presets. Raises ConfigError."""
    value: Any = text
    if isinstance(row, CategoricalDistribution):
        value = next((choice for choice in row.choices if _means(text, choice)), text)
    else:
        kind = int if isinstance(row, IntDistribution) else float
        value = _parsed(text, kind)
        check_kind(name, value, kind)
    if space_module.contains(row, value) or (value == 0 and getattr(row, "log", False)):
        return value
    if isinstance(row, CategoricalDistribution):
        hint = f"to try it, widen space.{name} in a copy of the study file, and search that as another study"
    else:
        hint = f"to try it, widen space.{name} first: face3d-tune run --space FILE.toml"
    raise ConfigError(f"{name} = {text} is outside the search space, {space_module.describe(row)}", hint)


def _means(text: str, choice: Any) -> bool:
    """Tell whether a typed text means a choice: true and false in any case, a number however it is written."""
    if isinstance(choice, bool):
        return text.lower() == str(choice).lower()
    if isinstance(choice, int | float):
        return bool(_parsed(text, float) == choice)
    return text == str(choice)


def _parsed(text: str, kind: Any) -> Any:
    """Return the value that a text says; the text itself if it says none of that kind."""
    if choices := get_args(kind):
        return next((choice for choice in choices if str(choice) == text), text)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _overridable(study: optuna.Study) -> dict[str, Any]:
    """Return the parameters beside the space that a preset of this study may set, each with its type.

    One of [fixed] is among them only if a preset sets it.
    """
    set_by_presets: dict[str, Any] = {}
    for trial in own_trials(study.get_trials(deepcopy=False)):
        if TrialAttr.preset.get(trial.user_attrs):
            for name, value in TrialAttr.overrides.get(trial.user_attrs, {}).items():
                set_by_presets[name] = type(value)
    if StudyAttr.script.held_by(study.user_attrs):
        return set_by_presets
    fixed = StudyAttr.settings.of(study.user_attrs)["fixed"]
    return {name: kind for name, kind in PARAMETERS.items() if name not in fixed or name in set_by_presets}


def _check(
    study: optuna.Study, space: Mapping[str, BaseDistribution], params: Mapping[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Raise ConfigError if the values do not fit together, whatever the sampler chooses for the others."""
    settings, data = StudyAttr.settings.of(study.user_attrs), StudyAttr.data.of(study.user_attrs)
    for end in (0, -1):
        others = {name: space_module.ends(row)[end] for name, row in space.items()}
        values = {**others, **settings["fixed"], **overrides, **params}
        config = resolve(
            values, feature_size=data["feature_size"], epochs=settings["epochs"], layout=settings["layout"]
        )
        if config.batch_size > data["pairs"]["train"]:
            raise ConfigError(
                f"batch_size = {config.batch_size} is more than the {data['pairs']['train']} training pairs"
            )
