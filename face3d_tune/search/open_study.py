"""Open a study, or create it: stored only if it can be searched, continued only with its own settings."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage

from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import StudyError
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.storage.far_storage import ALL_STUDIES
from face3d_tune.storage.optuna_internals import store_study_attrs
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.storage.study_names import ANOTHER
from face3d_tune.storage.workers import this_process
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.growth import as_grown, grow
from face3d_tune.study.objective import Objective
from face3d_tune.study.other_programs import is_described, is_own_study
from face3d_tune.study.searched_file import SearchedFile
from face3d_tune.study.settings import (
    Settings,
    check_same,
    kernel_ridge_attrs,
    no_model_attrs,
    ridge_attrs,
    settings_record,
    study_attrs,
)
from face3d_tune.study.space import Space
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.study_file import BoundStudyFile


def check(file: BoundStudyFile, settings: Settings, data: FaceData) -> None:
    """Check a study file and the number of folds against the data, before a storage is opened or created.

    Raises StudyFileError, and ConfigError if there are too few people for the folds.
    """
    training_pairs = min(len(fold.parts["train"]) for fold in data.folds(settings.folds))
    file.check(training_pairs)
    make_pruner(file)
    make_sampler(file, 0)


def open_study(
    storage: RDBStorage,
    name: str,
    file: BoundStudyFile,
    settings: Settings,
    data: FaceData,
    stage: WarmStart | None = None,
    wider: Space | None = None,
) -> optuna.Study:
    """Open the study, or create it; `stage` is the warm start that `file` contains.

    The space of a study that exists grows by the rows of `wider` (see `growth`).

    Raises StudyError if the study has other settings, and StudyFileError or ConfigError if the file does not fit.
    After an error nothing has been stored.
    """
    check(file, settings, data)
    _, aliases = file.distinct_presets()
    follows = {StudyAttr.follows.key: stage.to_attr()} if stage else {}
    attrs = {"preset_aliases": aliases, **follows, **study_attrs(data, file, settings)}

    def check_before(study: optuna.Study) -> None:
        grown = as_grown(file, StudyAttr.settings.of(study.user_attrs))
        wanted = {**attrs, StudyAttr.settings.key: settings_record(grown, settings)}
        check_same(name, study.user_attrs, wanted, settings)
        if wider:
            grow(study, grown, wider, this_process(), lambda each: check(each, settings, data))

    return opened(storage, name, file, attrs, settings.objective, check_before)


def opened(
    storage: RDBStorage,
    name: str,
    file: SearchedFile,
    attrs: Mapping[str, Any],
    objective: Objective,
    check_before: Callable[[optuna.Study], object],
) -> optuna.Study:
    """Open the study, or create it with these user attributes, of which `settings` is the last.

    `check_before` raises StudyError if a study that exists may not go on.
    """
    pruner = make_pruner(file)
    with one_at_a_time(storage.engine, lambda: [ALL_STUDIES]):
        study, new = _made(storage, name, objective, pruner)
        known = {} if new else study.user_attrs
        if not (is_described(known) and is_own_study(study)):  # new, incomplete after a crash, or of another program
            if not new:
                _require_empty(study, known, objective)
            store_study_attrs(study, {StudyAttr.id.key: uuid4().hex, **attrs}, objective.metric)
        else:
            check_before(study)
            _require_same_kinds(study, file)
            if not StudyAttr.id.held_by(known):
                study.set_user_attr(StudyAttr.id.key, uuid4().hex)
    return study


def _made(storage: RDBStorage, name: str, objective: Objective, pruner: BasePruner) -> tuple[optuna.Study, bool]:
    """Return the study, and whether it was created just now."""
    try:
        made = optuna.create_study(study_name=name, storage=storage, direction=objective.direction, pruner=pruner)
        return made, True
    except DuplicatedStudyError:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner), False


def store_baselines(study: optuna.Study, data: FaceData, folds: int) -> None:
    """Store what no model, ridge and kernel ridge reach, unless the study has it; other workers do not wait.

    It takes up to half a minute for wide embeddings.
    """
    attrs, missing = study.user_attrs, dict[str, Any]()
    for last, measure in (
        (StudyAttr.no_model_recognition, no_model_attrs),
        (StudyAttr.ridge_recognition, ridge_attrs),
        (StudyAttr.kernel_ridge_recognition, kernel_ridge_attrs),
    ):
        if not last.held_by(attrs):  # an earlier version has stored cosines alone, and they stay
            missing |= {key: value for key, value in measure(data, folds).items() if key not in attrs}
    if missing:
        store_study_attrs(study, missing)


def _require_empty(study: optuna.Study, attrs: Mapping[str, Any], objective: Objective) -> None:
    """Raise StudyError if another program made the study."""
    directions = [direction.name.lower() for direction in study.directions]
    foreign = directions != [objective.direction] or study.get_trials(deepcopy=False)
    if foreign or StudyAttr.settings.held_by(attrs):  # stored last, so an incomplete study does not have it
        raise StudyError(f"study {study.study_name!r} was not made by face3d-tune", ANOTHER)


def _require_same_kinds(study: optuna.Study, file: SearchedFile) -> None:
    """Raise StudyError if a trial has a parameter of another kind than the study file: Optuna allows one kind."""
    for trial in study.get_trials(deepcopy=False):
        for parameter in trial.distributions.keys() & file.space.keys():
            try:
                check_distribution_compatibility(trial.distributions[parameter], file.space[parameter])
            except ValueError:
                raise StudyError(
                    f"trial {trial.number} of study {study.study_name!r}, which another program added, holds "
                    f"{parameter} as another kind of parameter than this study; Optuna takes one kind only",
                    ANOTHER,
                ) from None
