"""What `face3d-tune status` says about a study, as plain values."""

from typing import Any

import optuna

from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.causes import count_causes
from face3d_tune.study.exclusions import exclusions_in, read_trials
from face3d_tune.study.objective import Objective
from face3d_tune.study.other_programs import count_foreign, is_own_study
from face3d_tune.study.trials import (
    best_trial,
    budget_of,
    count_imported,
    count_states,
    folds_of,
    kept_cosine,
    origin,
    stopped,
    trained_here,
)


def summary(study: optuna.Study) -> dict[str, Any]:
    """Summarise a study for `status`, as plain values. For a study of another program only the states are known."""
    own = is_own_study(study)
    best, attrs = (best_trial(study), study.user_attrs) if own else (None, {})
    return {
        "study": study.study_name,
        "own": own,
        "directions": [direction.name.lower() for direction in study.directions],
        "states": count_states(study),
        "finished": sum(map(trained_here, read_trials(study))) if own else None,
        "budget": budget_of(attrs),
        "causes": count_causes(read_trials(study) if own else []),
        "from": StudyAttr.follows.get(attrs),
        "stop": stopped(attrs),
        "grown": list(StudyAttr.settings.of(attrs).get("grown", ())) if own else [],
        "best_value": best.value if best else None,
        "best_cosine": kept_cosine(best) if best else None,
        "best_trial": best.number if best else None,
        "best_preset": TrialAttr.preset.get(best.user_attrs) if best else None,
        "best_origin": origin(best) if best else None,
        "best_recognition": TrialAttr.recognition.get(best.user_attrs) if best else None,
        "imported": count_imported(study),
        "by_hand": count_foreign(study) if own else 0,
        "excluded": [{"trial": number, **each} for number, each in exclusions_in(attrs).items()],
        "folds": folds_of(attrs),
        "objective": Objective.of_study(attrs).name if own else None,
        "script": StudyAttr.script.get(attrs),
        "best_numbers": TrialAttr.numbers.get(best.user_attrs) if best else None,
        "no_model_cosine": StudyAttr.no_model_cosine.get(attrs),
        "ridge_cosine": StudyAttr.ridge_cosine.get(attrs),
        "kernel_ridge_cosine": StudyAttr.kernel_ridge_cosine.get(attrs),
        "no_model_recognition": StudyAttr.no_model_recognition.get(attrs),
        "ridge_recognition": StudyAttr.ridge_recognition.get(attrs),
        "kernel_ridge_recognition": StudyAttr.kernel_ridge_recognition.get(attrs),
        "confirmation": StudyAttr.confirmation.get(attrs),
        "rotation": StudyAttr.rotation.get(attrs),
        "script_confirmation": StudyAttr.script_confirmation.get(attrs),
        "data": StudyAttr.data.get(attrs),
    }
