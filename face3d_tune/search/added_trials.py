"""Trials that a person or another study adds to a study: presets, configs to try, trainings from elsewhere.

Adding them needs no worker, and not the right to search.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import Engine

from face3d_tune.storage.optuna_internals import FIXED_PARAMS, enqueue_trials, storage_of, study_id
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.other_programs import own_trials
from face3d_tune.study.presence import still_present
from face3d_tune.study.study_file import InitialTrial


def enqueue_presets(study: optuna.Study, engine: Engine, presets: Iterable[InitialTrial]) -> None:
    """Queue every preset that the study does not have yet, in this order."""
    wanted = list(presets)
    if not _missing(study, wanted):
        return
    with one_at_a_time(engine):
        overrides = TrialAttr.overrides.key
        missing = _missing(study, wanted)
        enqueue_trials(
            study, [(each.params, {each.kind: each.mark, overrides: dict(each.overrides)}) for each in missing]
        )


def _missing(study: optuna.Study, presets: Iterable[InitialTrial]) -> list[InitialTrial]:
    """Return the presets that the study does not have."""
    # A preset is enqueued again if another program completed it, or took its retry.
    own = own_trials(study.get_trials(deepcopy=False))
    trials = [trial for trial in own if not TrialAttr.requeued.held_by(trial.user_attrs)]
    kinds = (TrialAttr.preset.key, TrialAttr.near.key, TrialAttr.like.key)
    marks = [trial.user_attrs.get(kind) for trial in trials for kind in kinds]
    return [preset for preset in presets if preset.mark not in marks]


def enqueue_tried(
    study: optuna.Study, engine: Engine, params: Mapping[str, Any], overrides: Mapping[str, Any], words: Sequence[str]
) -> int:
    """Queue a config that a person tries, with the words that asked for it; return its number.

    It is one transaction. Raises StudyGoneError.
    """
    attrs = {TrialAttr.tried.key: list(words), TrialAttr.overrides.key: dict(overrides)}
    trial = create_trial(state=TrialState.WAITING, user_attrs=attrs, system_attrs={FIXED_PARAMS: dict(params)})
    with one_at_a_time(engine), still_present(study, StudyAttr.id.get(study.user_attrs), engine):
        return _add(study, trial)


def add_imported(study: optuna.Study, engine: Engine, trials: Iterable[FrozenTrial]) -> dict[str, tuple[int, bool]]:
    """Store trials that were trained elsewhere, each once; return by `run_id` the number, and whether it is new."""
    with one_at_a_time(engine):
        stored = study.get_trials(deepcopy=False)
        imported = [trial for trial in stored if isinstance(TrialAttr.run_id.get(trial.user_attrs), str)]
        numbers = {TrialAttr.run_id.of(trial.user_attrs): trial.number for trial in imported}
        taken: dict[str, tuple[int, bool]] = {}
        for trial in trials:
            run_id = TrialAttr.run_id.of(trial.user_attrs)
            if new := run_id not in numbers:
                numbers[run_id] = _add(study, trial)
            taken.setdefault(run_id, (numbers[run_id], new))
        return taken


def _add(study: optuna.Study, trial: FrozenTrial) -> int:
    """Add a trial, and return its number, which `Study.add_trial` does not."""
    storage = storage_of(study)
    return storage.get_trial_number_from_id(storage.create_new_trial(study_id(study), template_trial=trial))
