"""The winners of a study on other data as first trials of this one: its best configs, in this study's space.

`warm_start` continues a study on the same data, and fixes what it does not search. A winner gives only the values of
parameters that this study searches, and those that a preset there had set; all others stay as this study has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from face3d_tune.errors import ConfigError, NoStudiesError, StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import existing_name, named_elsewhere
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import StoredWinner, StudyAttr, TrialAttr
from face3d_tune.study.lookup import find_study
from face3d_tune.study.searched_file import SearchedFile
from face3d_tune.study.space import Space
from face3d_tune.study.study_file import InitialTrial
from face3d_tune.study.trials import completed_trials, config_of
from face3d_tune.study.warm_start import nearest

WINNERS = 3  # distinct configs that a search begins with


@dataclass(frozen=True, slots=True)
class Winners:
    """The first trials that another study gives, best first."""

    study: str
    trials: Sequence[InitialTrial]
    changed: Sequence[str]  # what a person should know of each value that is not as it was there

    def __str__(self) -> str:
        numbers = [str(trial.winner["trial"]) for trial in self.trials if trial.winner]
        return f"{self.study}, trial {', '.join(numbers)}"


def winners_of(
    typed: str, here: Storage, name: str, file: SearchedFile, *, space: Space | None = None, script: str | None = None
) -> Winners:
    """Read the best configs of another study, no two of them equal and none equal to a preset of this one.

    Args:
        typed: `URL#STUDY`, `URL`, or `STUDY` of the storage here.
        here: The storage of this study.
        name: Of this study.
        file: Its study file.
        space: Its space, if that is not the one of the file.
        script: File name of the user's own script; None: the built-in trainer.

    Raises:
        StudyError: That study does not compare, or has no winner.
        StorageError: Its storage does not answer.
    """
    place, wanted = named_elsewhere(typed, here)
    if not place.holds_studies():
        raise NoStudiesError(f"storage {place} holds no study", "name a study on other data with --like")
    with place.opened() as storage:
        if place == here and existing_name(storage, wanted, place) == name:
            raise StudyError(f"study {name!r} cannot begin with its own winners", "name another study with --like")
        study = find_study(storage, wanted, place)
        _require_same_program(study, script)
        best = completed_trials(study)
        if not best:
            raise StudyError(f"study {study.study_name!r} has no completed trial yet, so it has no winner", None)
        return _distinct(study, best, file, file.space if space is None else space)


def _require_same_program(study: optuna.Study, script: str | None) -> None:
    """Raise StudyError unless the study trains with the same script, or the built-in trainer too."""
    stored = StudyAttr.script.get(study.user_attrs)
    theirs = PurePosixPath(stored["path"]).name if stored else None
    if theirs != script:
        raise StudyError(
            f"study {study.study_name!r} searches {theirs or 'the built-in trainer'}, this one "
            f"{script or 'the built-in trainer'}: their parameters do not compare",
            "name a study of the same trainer or script with --like",
        )


def _distinct(study: optuna.Study, best: Sequence[FrozenTrial], file: SearchedFile, space: Space) -> Winners:
    presets, _ = file.distinct_presets()
    seen = [file.config(each.params, each.overrides) for each in presets]
    trials: list[InitialTrial] = []
    changed: list[str] = []
    for trial in best:
        params, overrides, notes = _in_space(trial, study, file, space)
        try:
            config = file.config(params, overrides)
        except ConfigError:  # as of d_model and nhead; it could not train here
            continue
        if config in seen:
            continue
        seen.append(config)
        winner: StoredWinner = {
            "study": study.study_name,
            "id": StudyAttr.id.get(study.user_attrs),
            "trial": trial.number,
            "value": float(trial.value or 0.0),
        }
        trials.append(InitialTrial(f"{study.study_name} trial {trial.number}", params, overrides, "like", winner))
        changed += notes
        if len(trials) == WINNERS:
            break
    return Winners(study.study_name, trials, changed)


def _in_space(
    trial: FrozenTrial, study: optuna.Study, file: SearchedFile, space: Space
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return a winner's values of the searched parameters: params, overrides as of a preset, and what changed."""
    params: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    notes: list[str] = []
    values = _values(trial, study.user_attrs)
    for name, value in TrialAttr.overrides.get(trial.user_attrs, {}).items():
        if name in file.parameters and name not in space:
            overrides[name] = value
    for name, row in space.items():
        value = values.get(name)
        try:
            value = None if value is None else file.exact(name, value)
        except ConfigError:
            value = None
        if value is not None and space_module.contains(row, value):
            params[name] = value
        elif value == 0 and getattr(row, "log", False):
            overrides[name] = value
        elif value is None or isinstance(row, CategoricalDistribution):
            notes.append(f"trial {trial.number}: the sampler chooses {name}, which is {values.get(name)} there")
        else:
            params[name] = nearest(row, value)
            notes.append(f"trial {trial.number}: {name} = {value:g} is outside this space; begins at {params[name]:g}")
    return params, overrides, notes


def _values(trial: FrozenTrial, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a trial by parameter; a width is relative to the embeddings of its own data."""
    if StudyAttr.script.held_by(attrs):
        return {**TrialAttr.config.of(trial.user_attrs), **trial.params}
    config = config_of(trial).to_dict()
    return {**config, "width": config["d_model"] / StudyAttr.data.of(attrs)["feature_size"]}
