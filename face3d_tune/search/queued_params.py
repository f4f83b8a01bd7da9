"""The parameters of a queued trial, checked against the study file before Optuna reads them.

Every program with access to the storage may queue a trial, and Optuna takes any value. It would use one outside of its
range with a warning. A value of another kind would end the search with a ValueError each time that the trial begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from face3d_tune.errors import ConfigError, near_miss
from face3d_tune.storage.optuna_internals import fixed_params
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.searched_file import SearchedFile

_LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Queued:
    """The request of a queued trial, beside Optuna's own parameters."""

    overrides: Mapping[str, Any]
    preset: str | None
    seed: int | None  # None: derived from the study's seed
    ignored: tuple[str, ...]  # parameters that the study does not search


def from_outside(trial: FrozenTrial) -> bool:
    """Return whether another program queued a trial: this one marks its presets and retries."""
    return (
        fixed_params(trial) is not None
        and not {TrialAttr.overrides.key, TrialAttr.retry_of.key} & trial.user_attrs.keys()
    )


def read(trial: FrozenTrial, file: SearchedFile) -> Queued:
    """Return the request of a queued trial. Raises ConfigError if no trial of this study can have it."""
    attrs, wanted = trial.user_attrs, fixed_params(trial) or {}
    overrides, seed = TrialAttr.overrides.get(attrs, {}), TrialAttr.seed.get(attrs)
    valid = isinstance(overrides, dict) and overrides.keys() <= set(file.parameters)
    _require("overrides", overrides, valid, "parameters of a study file")
    for attr in (TrialAttr.preset, TrialAttr.near):
        name = attr.get(attrs)
        _require(attr.key, name, isinstance(name, str | None), "text")
    winner = TrialAttr.like.get(attrs)
    known = isinstance(winner, dict) and {"study", "trial", "value"} <= winner.keys()
    _require("like", winner, winner is None or known, "the winner of a study")
    whole = isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0
    _require("seed", seed, seed is None or whole, "a whole number of at least 0")
    for name, value in wanted.items():
        if name in file.space and name not in overrides:
            _check(name, value, file)
    return Queued(
        overrides, TrialAttr.preset.get(attrs), seed, tuple(name for name in wanted if name not in file.space)
    )


def say_ignored(names: tuple[str, ...], file: SearchedFile) -> str:
    """Name the ignored parameters, and suggest the nearest known name."""
    words = []
    for name in names:
        near = near_miss(name, file.space)
        words.append(short(name) + (f" (did you mean {near}?)" if near else ""))
    return f"this study does not search {', '.join(words)}; the trial trains without"


def short(value: object) -> str:
    """Format a stored value of any origin, cut if it is long."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _check(name: str, value: Any, file: SearchedFile) -> None:
    try:
        inside = space_module.contains(file.space[name], file.exact(name, value))
    except OverflowError:  # an integer beyond the range of floats
        inside = False
    if not inside:
        raise ConfigError(
            f"{name} = {short(value)} is outside the search space, {space_module.describe(file.space[name])}"
        )


def _require(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise ConfigError(f"{name} = {short(value)} cannot be used; expected {expected}")
