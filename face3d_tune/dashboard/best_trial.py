"""The best trial of a study of ours in place of Optuna's, which counts excluded trials and those of other programs."""

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from face3d_tune.study.other_programs import is_own_study
from face3d_tune.study.trials import best_trial

_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # of attributes with other content than ours


def answer_with_own_best(storage: BaseStorage) -> None:
    """Let a storage return the best trial that counts; if none counts, or the study is not ours, Optuna's own.

    A damaged study of ours is shown as Optuna shows it.
    """
    optunas = storage.get_best_trial

    def best(study_id: int) -> FrozenTrial:
        study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
        try:
            counts = best_trial(study) if is_own_study(study) else None
        except _DAMAGED:
            counts = None
        return counts or optunas(study_id)

    storage.get_best_trial = best  # type: ignore[method-assign]
