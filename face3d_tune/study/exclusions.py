"""Trials that a person excluded from a study, and the trials of a study with these marked.

A finished trial cannot be changed, and Optuna reads it only once. So exclusions are stored with the study, where every
worker sees them, and are marked on copies of the trials as a study is read.
"""

import copy
import json
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine

from face3d_tune.storage.optuna_internals import change_study_attr, engine_of, stored_attr
from face3d_tune.study.attrs import StoredExclusion, StudyAttr, TrialAttr

Exclusions = Mapping[int, StoredExclusion]  # by number of the trial, in order


def read_trials(study: optuna.Study, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
    """Return the trials of a study, the excluded ones marked; they are Optuna's own, so leave them as they are."""
    return marked(study.get_trials(deepcopy=False, states=states), exclusions_of(study))


def exclusions_of(study: optuna.Study) -> Exclusions:
    """Return the exclusions that a study holds now, by one small query: a search asks often."""
    if (engine := engine_of(study)) is None:
        return exclusions_in(study.user_attrs)
    return _by_number(stored_attr(engine, study, StudyAttr.excluded.key))


def change_exclusions(engine: Engine, study: optuna.Study, change: Callable[[Exclusions], Exclusions]) -> None:
    """Store what `change` makes of the exclusions that a study holds, though others change them at the same moment."""

    def changed(stored: Mapping[str, StoredExclusion] | None) -> dict[str, StoredExclusion]:
        return {str(number): exclusion for number, exclusion in change(_by_number(stored)).items()}

    change_study_attr(engine, study, StudyAttr.excluded.key, changed)


def exclusions_in(attrs: Mapping[str, Any]) -> Exclusions:
    """Return the exclusions in a study's user attributes."""
    return _by_number(StudyAttr.excluded.get(attrs))


def marked(trials: Iterable[FrozenTrial], exclusions: Exclusions) -> list[FrozenTrial]:
    """Return the trials, with a mark on those that are excluded and on no others."""
    return [
        trial
        if exclusions.get(trial.number) == TrialAttr.excluded.get(trial.user_attrs)
        else _marked(trial, exclusions.get(trial.number))
        for trial in trials
    ]


def is_excluded(trial: FrozenTrial) -> bool:
    """Tell whether a person excluded a trial that `read_trials` has read."""
    return TrialAttr.excluded.held_by(trial.user_attrs)


def without(trials: Iterable[FrozenTrial], excluded: Container[int]) -> list[FrozenTrial]:
    """Return the trials whose numbers are not among the excluded ones."""
    return [trial for trial in trials if trial.number not in excluded]


def said(number: int, exclusion: StoredExclusion) -> str:
    """Say who excluded a trial, when and why."""
    reason = exclusion["reason"]
    line = f"trial {number} is excluded by {exclusion['by']} at {exclusion['at']}"
    return f"{line}: {json.dumps(reason, ensure_ascii=False)}" if reason else line


def excluded(attrs: Mapping[str, Any]) -> list[str]:
    """Say it of every excluded trial of a study."""
    return [said(number, exclusion) for number, exclusion in exclusions_in(attrs).items()]


def _marked(trial: FrozenTrial, exclusion: StoredExclusion | None) -> FrozenTrial:
    another = copy.copy(trial)
    others = {key: value for key, value in trial.user_attrs.items() if key != TrialAttr.excluded.key}
    another.user_attrs = others | ({TrialAttr.excluded.key: exclusion} if exclusion else {})
    return another


def _by_number(stored: Mapping[str, StoredExclusion] | None) -> Exclusions:
    numbers = {int(number): exclusion for number, exclusion in (stored or {}).items()}
    return dict(sorted(numbers.items()))
