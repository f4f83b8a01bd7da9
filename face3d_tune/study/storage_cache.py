"""Optuna's cache of a storage, for programs that read it for days: emptied when one of its studies was replaced.

Optuna keys this cache, and optuna-dashboard its own, by the ids of studies and trials. SQLite gives the id of a deleted
study to the next one. A database file may be deleted, replaced, or restored from a backup while it is read.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Connection, Engine, bindparam, text

from face3d_tune.errors import StorageError

Built = TypeVar("Built")


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[Built]):
    """A snapshot of a storage."""

    storage: BaseStorage  # cached
    built: Built  # on this cache
    keys: Mapping[int, str]  # by study id; another study with the same id has another key


class StorageCache(Generic[Built]):
    """The cache of a storage, and what is built on it.

    Args:
        storage: The storage of the studies.
        build: Builds what depends on the cache; called again for every new cache.
    """

    def __init__(self, storage: RDBStorage, build: Callable[[BaseStorage], Built]) -> None:
        self._storage, self._build = storage, build
        self._lock = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._studies: dict[int, _Study] = {}
        self._keys: dict[int, str] = {}
        self._renew()

    @property
    def built(self) -> Built:
        """Return what is built on the newest cache, without reading the storage."""
        return self._built

    def look(self) -> Snapshot[Built]:
        """Compare the storage with the cache; if a cached study was deleted or replaced, begin a new cache.

        This takes a few small queries, however many trials there are. Raises what SQLAlchemy raises if the storage does
        not answer, and StorageError if its file is gone.
        """
        with self._lock:
            file = _file(self._storage.engine)
            with self._storage.engine.connect() as database:
                studies = _studies(database)
                newest = {study.newest.trial_id for study in self._studies.values() if study.newest}
                trials = _trials(database, newest)
            same = {
                study_id
                for study_id, before in self._studies.items()
                if study_id in studies and file == self._file and before.is_still(studies[study_id], trials)
            }
            if same != self._studies.keys():
                self._renew()
            self._keys = {study_id: self._keys[study_id] if study_id in same else uuid4().hex for study_id in studies}
            self._file, self._studies = file, studies
            return Snapshot(self._cache, self._built, self._keys)

    def _renew(self) -> None:
        self._cache = optuna.storages.get_storage(self._storage)
        self._built = self._build(self._cache)


class _Trial(NamedTuple):
    trial_id: int
    study_id: int
    number: int
    start: Any  # as the driver gives it; None while the trial waits


@dataclass(frozen=True, slots=True)
class _Study:
    """The facts that tell a study from another one with its id."""

    name: str
    directions: tuple[str, ...]
    own_id: str | None  # the user attribute `id` of our studies
    newest: _Trial | None  # trials are never deleted singly: if the newest is still there, so are the others

    def is_still(self, now: "_Study", trials: Mapping[int, _Trial]) -> bool:
        """Tell whether the storage still has this study, and the trial that was its newest."""
        if (self.name, self.directions, self.own_id) != (now.name, now.directions, now.own_id):
            return False
        if self.newest is None:
            return True
        there = trials.get(self.newest.trial_id)
        waited = self.newest.start is None  # it may have started since
        return there is not None and self.newest == (there._replace(start=None) if waited else there)


def _studies(database: Connection) -> dict[int, _Study]:
    """Return every study of the storage, by id."""
    directions: dict[int, list[str]] = defaultdict(list)
    for study_id, direction in database.execute(
        text("select study_id, direction from study_directions order by objective")
    ):
        directions[study_id].append(direction)
    own = dict(_pairs(database, "select study_id, value_json from study_user_attributes where key = 'id'"))
    newest = dict(_pairs(database, "select study_id, max(trial_id) from trials group by study_id"))
    trials = _trials(database, newest.values())
    return {
        study_id: _Study(name, tuple(directions[study_id]), own.get(study_id), trials.get(newest.get(study_id, 0)))
        for study_id, name in _pairs(database, "select study_id, study_name from studies")
    }


def _trials(database: Connection, trial_ids: Iterable[int]) -> dict[int, _Trial]:
    query = text("select trial_id, study_id, number, datetime_start from trials where trial_id in :asked")
    rows = database.execute(query.bindparams(bindparam("asked", expanding=True)), {"asked": list(trial_ids)})
    return {row[0]: _Trial(*row) for row in rows}


def _pairs(database: Connection, question: str) -> list[tuple[Any, Any]]:
    return [(first, second) for first, second in database.execute(text(question))]


def _file(engine: Engine) -> tuple[int, int] | None:
    """Return device and inode of a SQLite file; None for a server.

    SQLite would create a missing file, and leave it empty.
    """
    if engine.dialect.name != "sqlite":
        return None
    path = Path(engine.url.database or "")
    try:
        status = path.stat()
    except FileNotFoundError:
        raise StorageError(
            f"storage sqlite:///{path}: file does not exist", "make one with `face3d-tune run`, or name another"
        ) from None
    return status.st_dev, status.st_ino
