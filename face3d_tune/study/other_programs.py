"""Trials and studies of other programs: Optuna lets every program with access to the storage add, ask for and end
trials.

This program counts a trial only if it trained or imported it. The value of any other trial may be of another measure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.objective import Objective

# User attributes by which this program recognises its own trials.
_TAKEN = (TrialAttr.ordinal.key, TrialAttr.config.key)  # set when a worker begins it; version 0.1.0 set the second only
_TRAINED = (TrialAttr.config.key, TrialAttr.stop_reason.key)  # set when a worker ends it
_QUEUED = TrialAttr.overrides.key  # set when this program queues it
_OF_A_STUDY = (StudyAttr.data_fingerprint, StudyAttr.data, StudyAttr.settings, StudyAttr.no_model_cosine)
_OF_A_SCRIPT = (StudyAttr.script, StudyAttr.settings)


def _has(*keys: str) -> str:
    """Return the SQL condition that a trial `t` has one of these user attributes."""
    quoted = ", ".join(f"'{key}'" for key in keys)
    return f"exists (select 1 from trial_user_attributes a where a.trial_id = t.trial_id and a.key in ({quoted}))"


# `is_foreign` for a row `t` of the table `trials`, so that trials can be counted without being read.
FOREIGN_SQL = f"""(case t.state
    when 'COMPLETE' then not ({" and ".join(map(_has, _TRAINED))})
    when 'PRUNED' then not ({" and ".join(map(_has, _TRAINED))})
    when 'FAIL' then not {_has(*_TAKEN, *_TRAINED)}
    when 'RUNNING' then not {_has(*_TAKEN, _QUEUED)}
        and exists (select 1 from trial_params p where p.trial_id = t.trial_id)
    else 1 = 0 end)"""


def is_foreign(trial: FrozenTrial) -> bool:
    """Tell whether a trial was added, asked for or completed by another program.

    A waiting trial is not foreign: this program trains it, whichever program queued it. Nor is a running trial without
    parameters: a worker that dies right after asking leaves such a trial.
    """
    attrs = trial.user_attrs
    match trial.state:
        case TrialState.COMPLETE | TrialState.PRUNED:
            return not all(key in attrs for key in _TRAINED)
        case TrialState.FAIL:
            return not any(key in attrs for key in (*_TAKEN, *_TRAINED))
        case TrialState.RUNNING:
            return bool(trial.params) and not any(key in attrs for key in (*_TAKEN, _QUEUED))
        case _:
            return False


def own_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that this program trained, imported or will train."""
    return [trial for trial in trials if not is_foreign(trial)]


def count_foreign(study: optuna.Study) -> int:
    """Count the trials of another program in a study."""
    return sum(map(is_foreign, study.get_trials(deepcopy=False)))


def ended_from_outside(trial: FrozenTrial) -> bool:
    """Tell whether another program ended a trial: a worker stores the reason before it ends one."""
    return trial.state.is_finished() and not TrialAttr.stop_reason.held_by(trial.user_attrs)


def is_own_study(study: optuna.Study) -> bool:
    """Tell whether this program made a study, completely."""
    directions = [direction.name.lower() for direction in study.directions]
    attrs = study.user_attrs
    return is_described(attrs) and directions == [Objective.of_study(attrs).direction]


def is_described(attrs: Mapping[str, Any]) -> bool:
    """Tell whether a study's user attributes are those that this program stores."""
    return all(attr.held_by(attrs) for attr in (_OF_A_SCRIPT if StudyAttr.script.held_by(attrs) else _OF_A_STUDY))
