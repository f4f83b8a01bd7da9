"""Optuna's cache of a storage, for programs that read it for days: emptied when one of its studies was replaced.

Optuna keys this cache, and optuna-dashboard its own, by the ids of studies and trials. SQLite gives the id of a deleted
study to the next one. A database file may be deleted, replaced, or restored from a backup while it is read.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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
        self._file: _File | None = None
        self._values = _Values(0, {}, {})
        self._studies: dict[int, _Study] = {}
        self._keys: dict[int, str] = {}
        self._renew()

    @property
    def built(self) -> Built:
        """Return what is built on the newest cache, without reading the storage."""
        return self._built

    def look(self) -> Snapshot[Built]:
        """Compare the storage with the cache; if a cached study was deleted or replaced, begin a new cache.

        This takes a few small queries, and a sum of all values if a SQLite file was written to. Raises what SQLAlchemy
        raises if the storage does not answer, and StorageError if its file is gone.
        """
        with self._lock:
            file = _file(self._storage.engine)
            with self._storage.engine.connect() as database:
                studies = _studies(database)
                newest = {study.newest.trial_id for study in self._studies.values() if study.newest}
                trials = _trials(database, newest)
                values = self._values if file == self._file or file is None else _values(database, self._values.newest)
            replaced = file is not None and self._file is not None and file.place != self._file.place
            same = {
                study_id
                for study_id, before in self._studies.items()
                if study_id in studies
                and not replaced
                and before.is_still(studies[study_id], trials)
                and values.hold_still(self._values, study_id)
            }
            if same != self._studies.keys():
                self._renew()
            self._keys = {study_id: self._keys[study_id] if study_id in same else uuid4().hex for study_id in studies}
            self._file, self._studies, self._values = file, studies, values
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


class _File(NamedTuple):
    place: tuple[int, int]  # device and inode
    written: tuple[int, ...]  # size and times of the file and of its write-ahead log


class _Values(NamedTuple):
    """The values of all trials, which are stored once and never changed, summed up by study.

    Another database may have the same studies, trials and starts: a copy that went on elsewhere.
    """

    newest: int  # id of the last value
    sums: Mapping[int, tuple[Any, ...]]  # of all values
    earlier: Mapping[int, tuple[Any, ...]]  # of those that were there at the look before

    def hold_still(self, before: "_Values", study_id: int) -> bool:
        """Tell whether the values of a study that were there at an earlier look still are."""
        return self is before or self.earlier.get(study_id) == before.sums.get(study_id)


def _values(database: Connection, before: int) -> _Values:
    """Sum up the values of each study, and those with ids up to `before`."""

    def sums(newest: int) -> dict[int, tuple[Any, ...]]:
        question = text(
            "select study_id, count(*), total(value), total(value * trial_value_id), total(trial_id) from trial_values "
            "join trials using (trial_id) where trial_value_id <= :newest group by study_id"
        )
        return {row[0]: tuple(row[1:]) for row in database.execute(question, {"newest": newest})}

    newest = database.execute(text("select coalesce(max(trial_value_id), 0) from trial_values")).scalar_one()
    return _Values(newest, sums(newest), sums(before))


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


def _file(engine: Engine) -> _File | None:
    """Return where a SQLite file is and when it was written to; None for a server.

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
    written = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]  # `cp -p` keeps the second
    with suppress(FileNotFoundError):
        log = path.with_name(f"{path.name}-wal").stat()
        written += [log.st_size, log.st_mtime_ns]
    return _File((status.st_dev, status.st_ino), tuple(written))
