"""Samplers and pruners by the name that a study file gives them; all but two are Optuna's own, with its options."""

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from optuna import pruners, samplers

from face3d_tune.errors import StudyFileError, did_you_mean
from face3d_tune.search.extrapolation import ExtrapolationPruner
from face3d_tune.search.shape_pruner import ShapePruner
from face3d_tune.study.searched_file import SearchedFile
from face3d_tune.study.tables import Component

_SAMPLERS: Mapping[str, type[samplers.BaseSampler]] = {
    "tpe": samplers.TPESampler,
    "random": samplers.RandomSampler,
    "gp": samplers.GPSampler,
    "cmaes": samplers.CmaEsSampler,
}
_PRUNERS: Mapping[str, type[pruners.BasePruner]] = {
    "none": pruners.NopPruner,
    "median": pruners.MedianPruner,
    "percentile": pruners.PercentilePruner,
    "successive_halving": pruners.SuccessiveHalvingPruner,
    "hyperband": pruners.HyperbandPruner,
    "extrapolation": ExtrapolationPruner,
    "shape": ShapePruner,
}
_NEEDS = {"gp": ("scipy",), "cmaes": ("cmaes",)}  # packages that Optuna imports in mid-search
_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}


def make_sampler(file: SearchedFile, seed: int) -> samplers.BaseSampler:
    """Make the sampler of a study file, seeded. Raises StudyFileError."""
    options = dict(file.sampler.options)
    if file.sampler.name == "tpe":  # several trials run at once: they must not try the same point
        options = {"constant_liar": True, **options}
    component = Component(file.sampler.name, options)
    sampler: samplers.BaseSampler = _make(file, "sampler", component, _SAMPLERS, {"seed": seed % 2**32})
    return sampler


def make_pruner(file: SearchedFile) -> pruners.BasePruner:
    """Make the pruner of a study file. Raises StudyFileError."""
    pruner: pruners.BasePruner = _make(file, "pruner", file.pruner, _PRUNERS, {})
    return pruner


def _make(file: SearchedFile, table: str, component: Component, kinds: Mapping[str, Any], ours: dict[str, Any]) -> Any:
    if component.name not in kinds:
        question = did_you_mean(component.name, kinds)
        raise StudyFileError(
            f"{file.path}: {table}.name = {component.name!r} is unknown{question}", f"known are {', '.join(kinds)}"
        )
    for package in _NEEDS.get(component.name, ()):
        if find_spec(package) is None:
            raise StudyFileError(
                f"{file.path}: {table}.name = {component.name!r} needs {package}, which is not installed",
                f"pip install {package}",
            )
    kind = kinds[component.name]
    options = {name: p for name, p in inspect.signature(kind).parameters.items() if name not in ours}
    for key, value in component.options.items():
        if key not in options:
            question = did_you_mean(key, options)
            raise StudyFileError(f"{file.path}: {table}.{key} is unknown{question}", f"known are {', '.join(options)}")
        _check_type(f"{file.path}: {table}.{key}", value, options[key].annotation)
    try:
        return kind(**component.options, **ours)
    except (TypeError, ValueError) as error:
        raise StudyFileError(f"{file.path}: [{table}]: {error}") from error


def _check_type(place: str, value: Any, annotation: Any) -> None:
    """Check a value against Optuna's own annotation, such as `bool | None`: Optuna checks some options only in
    mid-search.

    An int may stand for a float.
    """
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    kinds, kind = {part.strip() for part in text.split("|")}, type(value).__name__
    if kind in kinds or (kind == "int" and "float" in kinds):
        return
    words = [word for name, word in _WORDS.items() if name in kinds]
    if not words:
        raise StudyFileError(f"{place} cannot be set in a study file: Optuna expects {text}")
    raise StudyFileError(f"{place} = {value!r} has the wrong type; expected {' or '.join(words)}")
