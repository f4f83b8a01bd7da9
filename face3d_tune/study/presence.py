"""Whether the storage still has a study, and what has become of it otherwise."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from sqlalchemy.engine import Engine

from face3d_tune.errors import StudyGoneError
from face3d_tune.storage.optuna_internals import storage_of, stored_attr
from face3d_tune.storage.study_names import listed_names, study_names
from face3d_tune.study.attrs import StudyAttr


def require_present(study: optuna.Study, own: str | None, engine: Engine) -> None:
    """Raise StudyGoneError unless the storage still has the study whose user attribute `id` is `own`.

    Optuna's id of a study is not enough: SQLite gives that of a deleted study to the next one. The dashboard renames a
    study by making another one with all its attributes. A name changed in the database itself makes no difference.
    """
    storage = storage_of(study)
    try:
        if own == (stored_attr(engine, study, StudyAttr.id.key) if own else StudyAttr.id.get(study.user_attrs)):
            return
    except KeyError:
        pass
    names = {storage.get_study_id_from_name(name): name for name in study_names(storage)}
    renamed = [
        name for key, name in names.items() if own and StudyAttr.id.get(storage.get_study_user_attrs(key)) == own
    ]
    if renamed:
        raise StudyGoneError(
            f"study {study.study_name!r} was renamed to {renamed[0]!r} meanwhile",
            f"to resume it: --study-name {shlex.quote(renamed[0])}",
        )
    raise StudyGoneError(
        f"study {study.study_name!r} was deleted meanwhile; {listed_names(sorted(names.values()))}",
        "its checkpoints are kept: restore the study from a backup, and `face3d-tune run` resumes from them",
    )


@contextmanager
def still_present(study: optuna.Study, own: str | None, engine: Engine, *, at_first: bool = True) -> Iterator[None]:
    """Raise StudyGoneError if the study is gone `at_first`, or if that is why the block fails."""
    if at_first:
        require_present(study, own, engine)
    try:
        yield
    except Exception:
        require_present(study, own, engine)
        raise
