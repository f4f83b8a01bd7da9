"""The study and the trial that a person names, found in a storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.errors import StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import LONGEST_NAME, existing_name
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.exclusions import read_trials
from face3d_tune.study.other_programs import is_foreign, is_own_study
from face3d_tune.study.trials import best_trial


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial with its study's attributes, and the other trials."""

    study: str
    study_attrs: Mapping[str, Any]
    trial: FrozenTrial
    trials: Sequence[FrozenTrial]  # all of the study, by number

    def require_face_data(self, hint: str) -> None:
        """Raise StudyError with a hint if the study searches a script of the user's own, and so has no face data."""
        if script := StudyAttr.script.get(self.study_attrs):
            raise StudyError(f"study {self.study!r} searches a script of your own, {script['path']}", hint)


def read_trial(place: Storage, study_name: str | None, number: int | None) -> StoredTrial:
    """Read a trial of a study, or its best, from a storage. Raises StorageError and StudyError."""
    with place.opened() as storage:
        study = find_study(storage, study_name)
        trials = read_trials(study)
        return StoredTrial(study.study_name, study.user_attrs, pick_trial(study, number), trials)


def find_study(storage: BaseStorage, name: str | None, elsewhere: Storage | None = None) -> optuna.Study:
    """Find the study of that name; without a name, the only one. Raises StudyError, as `existing_name` does."""
    name = existing_name(storage, name, elsewhere)
    study = optuna.load_study(study_name=name, storage=storage)
    if not is_own_study(study):
        raise StudyError(f"study {name!r} was not made by face3d-tune", "name another with --study-name")
    return study


def pick_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    """Return a trial by number, or the best one. Raises StudyError if it does not exist, or never had a config."""
    if number is None:
        best = best_trial(study)
        if best is None:
            raise StudyError(
                f"study {study.study_name!r} has no completed trial yet", "let `face3d-tune run` complete one first"
            )
        return best
    trials = read_trials(study)
    if not 0 <= number < len(trials):
        held = f"it holds 0 to {len(trials) - 1}" if trials else "it holds none yet"
        raise StudyError(f"study {study.study_name!r} has no trial {number}", held)
    if is_foreign(trials[number]) and not TrialAttr.config.held_by(trials[number].user_attrs):
        raise StudyError(
            f"trial {number} was added by hand: face3d-tune did not train it and does not know its configuration",
            "name another with --trial, or omit --trial for the best",
        )
    if not TrialAttr.config.held_by(trials[number].user_attrs):
        failed = trials[number].state == TrialState.FAIL
        error = TrialAttr.error.get(trials[number].user_attrs)
        why = f"failed before it began: {error}" if failed else "has not started"
        raise StudyError(f"trial {number} {why}, so there is nothing to train", "see `face3d-tune status`")
    return trials[number]


def name_again(name: str) -> str:
    """Return the name of a study that repeats another one, short enough for a new study."""
    ending = "-again"
    return name[: LONGEST_NAME - len(ending)] + ending
