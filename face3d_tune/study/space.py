"""The search space: a distribution for each searched parameter, built from one row of a study file."""

import json
import math
from collections.abc import Mapping
from random import Random
from typing import Any, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from face3d_tune.config import PARAMETERS, check_kind
from face3d_tune.errors import ConfigError

Space = Mapping[str, BaseDistribution]

_LARGEST_WHOLE = 2**53  # which Optuna's tables keep exactly, as floats
_STEP = 0.1  # of a range: the distance of a neighbour


def parse(name: str, row: Any, kind: Any = None) -> BaseDistribution:
    """Parse a row of the space: a list is a choice, a table {low, high, scale = "linear" | "log"} a range.

    A range has the parameter's own type, or `kind`, one of those that `config.check_kind` takes. Raises ConfigError.
    """
    kind = PARAMETERS[name] if kind is None else kind
    if isinstance(row, list):
        if not row:
            raise ConfigError(f"{name} = [] has no choice; expected at least one value")
        for value in row:
            check_kind(name, value, kind)
        return CategoricalDistribution(tuple(exact(value, kind) for value in row))
    if not isinstance(row, dict):
        raise ConfigError(f"{name} = {row!r} is not a range; expected {{ low = …, high = … }} or a list of choices")
    if unknown := set(row) - {"low", "high", "scale"}:
        raise ConfigError(f"{name}: unknown key {min(unknown)!r}; expected low, high, scale")
    if kind in (bool, str) or get_args(kind):
        raise ConfigError(f"{name} has no order, so no range; expected a list of choices")
    if missing := {"low", "high"} - set(row):
        raise ConfigError(f"{name}: {min(missing)} is missing; expected {{ low = …, high = … }}")
    low, high, scale = row["low"], row["high"], row.get("scale", "linear")
    check_kind(name, low, kind)
    check_kind(name, high, kind)
    if scale not in ("linear", "log"):
        raise ConfigError(f"{name}: scale = {scale!r} is unknown; expected linear or log")
    if not low <= high:
        raise ConfigError(f"{name}: low = {low} is above high = {high}")
    if scale == "log" and low <= 0:
        raise ConfigError(f"{name}: low = {low} is not above 0, which a log scale needs")
    if kind is int and max(abs(low), abs(high)) > _LARGEST_WHOLE:
        raise ConfigError(f"{name}: low or high is beyond 2**53, where whole numbers are no longer exact")
    if not math.isfinite(float(high) - low):
        raise ConfigError(f"{name}: the range from low = {low} to high = {high} is too wide for a float")
    distribution = IntDistribution if kind is int else FloatDistribution
    return distribution(low, high, log=scale == "log")


def to_stored(space: Space) -> dict[str, Any]:
    """Return a space as a study stores it: Optuna's JSON of each distribution."""
    return {name: json.loads(distribution_to_json(row)) for name, row in space.items()}


def from_stored(stored: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return the space that a study stores."""
    return {name: json_to_distribution(json.dumps(row)) for name, row in stored.items()}


def exact(value: Any, kind: Any) -> Any:
    """Convert a checked value to its parameter's type, since Optuna tells the choices 0 and 0.0 apart."""
    if choices := get_args(kind):
        return next(choice for choice in choices if choice == value)
    return float(value) if kind is float else value


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Tell whether a distribution contains a preset's value. (Optuna only warns about one outside.)"""
    match distribution:
        case CategoricalDistribution():
            return any(value == choice and type(value) is type(choice) for choice in distribution.choices)
        case IntDistribution() | FloatDistribution():
            inside = isinstance(value, int | float) and distribution.low <= value <= distribution.high
            return inside and (isinstance(distribution, FloatDistribution) or value == int(value))
        case _:
            raise TypeError(f"no such distribution in a study file: {distribution}")


def cut(space: Space, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cut the values of a config in two: what Optuna is told, and what applies although no search varies it.

    A 0 is applied where the range is logarithmic: no such range can hold it. Raises ConfigError for any other value
    that the space does not hold. Every searched parameter needs a value.
    """
    params, overrides = {}, {name: value for name, value in values.items() if name not in space}
    for name, distribution in space.items():
        value = values[name]
        if contains(distribution, value):
            params[name] = value
        elif value == 0 and getattr(distribution, "log", False):
            overrides[name] = value
        else:
            raise ConfigError(
                f"{name} = {value!r} is outside the search space, {describe(distribution)}", f"widen space.{name}"
            )
    return params, overrides


def ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    """Return every choice, or both ends of a range."""
    match distribution:
        case CategoricalDistribution():
            return distribution.choices
        case IntDistribution() | FloatDistribution():
            return distribution.low, distribution.high
        case _:
            raise TypeError(f"no such distribution in a study file: {distribution}")


def neighbour(distribution: BaseDistribution, value: Any, rng: Random) -> Any:
    """Return a value a small step from `value`, inside the distribution; a step beyond an end turns round.

    The step is about a tenth of a range (of its logarithm on a log scale), at least one for a whole number. Of choices
    it is, half of the time, the one before or after.
    """
    sign = rng.choice((-1, 1))
    match distribution:
        case CategoricalDistribution():
            place, last = distribution.choices.index(value), len(distribution.choices) - 1
            step = sign if 0 <= place + sign <= last else -sign
            return distribution.choices[place + step] if last and rng.random() < 0.5 else value
        case FloatDistribution():
            return _moved(distribution, value, sign, rng)
        case IntDistribution():
            moved = round(_moved(distribution, value, sign, rng))
            if moved == value:
                moved += sign if distribution.low <= value + sign <= distribution.high else -sign
            return min(max(moved, distribution.low), distribution.high)
        case _:
            raise TypeError(f"no such distribution in a study file: {distribution}")


def _moved(distribution: FloatDistribution | IntDistribution, value: float, sign: int, rng: Random) -> float:
    there, back = (math.log, math.exp) if distribution.log else (float, float)
    low, high, here = there(distribution.low), there(distribution.high), there(value)
    step = sign * rng.uniform(0.5, 1.5) * _STEP * (high - low)
    moved = back(here + (step if low <= here + step <= high else -step))
    return min(max(moved, distribution.low), distribution.high)  # a logarithm may miss an end by a digit


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """Ask `trial` for one parameter."""
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        case FloatDistribution():
            return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        case _:
            raise TypeError(f"no such distribution in a study file: {distribution}")


def describe(distribution: BaseDistribution) -> str:
    """Format one cell of a table: `1e-05 … 0.003 (log)` or `degrees | radians`."""
    match distribution:
        case CategoricalDistribution():
            return " | ".join(
                str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in distribution.choices
            )
        case IntDistribution() | FloatDistribution():
            return f"{distribution.low} … {distribution.high}{' (log)' if distribution.log else ''}"
        case _:
            raise TypeError(f"no such distribution in a study file: {distribution}")
