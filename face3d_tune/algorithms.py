"""Samplers and pruners by the name that a study file gives them; they are Optuna's own, with Optuna's options."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from optuna import pruners, samplers

from face3d_tune.errors import StudyFileError
from face3d_tune.study_file import Component, StudyFile

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
}


def make_sampler(file: StudyFile, seed: int) -> samplers.BaseSampler:
    """The sampler of a study file, seeded. Raises StudyFileError."""
    sampler: samplers.BaseSampler = _make(file, "sampler", file.sampler, _SAMPLERS, {"seed": seed % 2**32})
    return sampler


def make_pruner(file: StudyFile) -> pruners.BasePruner:
    """The pruner of a study file. Raises StudyFileError."""
    pruner: pruners.BasePruner = _make(file, "pruner", file.pruner, _PRUNERS, {})
    return pruner


def _make(file: StudyFile, table: str, component: Component, known: Mapping[str, Any], ours: dict[str, Any]) -> Any:
    if component.name not in known:
        near = get_close_matches(component.name, known, n=1)
        question = f"; did you mean {near[0]!r}?" if near else ""
        raise StudyFileError(
            f"{file.path}: {table}.name = {component.name!r} is unknown{question}", f"known are {', '.join(known)}"
        )
    kind = known[component.name]
    options = [name for name in inspect.signature(kind).parameters if name not in ours]
    for key in component.options:
        if key not in options:
            near = get_close_matches(key, options, n=1)
            question = f"; did you mean {near[0]!r}?" if near else ""
            raise StudyFileError(f"{file.path}: {table}.{key} is unknown{question}", f"known are {', '.join(options)}")
    try:
        return kind(**component.options, **ours)
    except ImportError as error:
        package = str(error).split("'")[1] if "'" in str(error) else str(error)
        raise StudyFileError(
            f"{file.path}: {table}.name = {component.name!r} needs a package that is not installed: {package}",
            f"pip install {package}",
        ) from error
    except (TypeError, ValueError) as error:
        raise StudyFileError(f"{file.path}: [{table}]: {error}") from error
