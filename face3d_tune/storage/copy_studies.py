"""Copies of studies from one storage to another, row by row as stored, so that nothing is lost.

`optuna.copy_study` reads and writes trials one by one through Optuna. It takes minutes for a large study and passes
times through this machine's time zone. It converts parameters from their stored form and back, and leaves half a study
behind when killed. Rows have none of these problems: both storages have the same tables, which `Storage.opened` checks.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import Column, ColumnElement, Connection, Table
from sqlalchemy.exc import IntegrityError

from face3d_tune.errors import StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.storage.optuna_internals import STUDIES, TABLES, TRIALS
from face3d_tune.storage.study_names import existing_name, study_names

_END_IT = "end it first; Ctrl-C loses nothing"  # of the search: its next trials would be missing from the copy
_ROWS_AT_ONCE = 5000  # in memory, however large a study is


@dataclass(frozen=True, slots=True)
class Copied:
    """One copied study."""

    name: str
    trials: int
    running: int  # of these, the ones in training when they were copied


def copy(source: Storage, target: Storage, study_name: str | None = None) -> list[Copied]:
    """Copy a study, or every study, with all that Optuna stores about it; only the rows' ids are new.

    One transaction copies everything or nothing. A SQLite file in which a search runs is refused; on a server the copy
    is a snapshot.

    Raises StorageError, and StudyError if the study does not exist or `target` has one of that name.
    """
    with source.opened() as opened_source, source.searching(_END_IT):
        names = [existing_name(opened_source, study_name)] if study_name else study_names(opened_source)
        with (
            target.opened(create=True) as opened_target,
            _snapshot(opened_source) as reading,
            opened_target.engine.begin() as writing,
        ):
            return [_copy_study(reading, writing, name, str(target)) for name in names]


@contextmanager
def _snapshot(storage: RDBStorage) -> Iterator[Connection]:
    """Open a connection that sees a snapshot, unchanged by concurrent writes."""
    with storage.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection.exec_driver_sql("begin")  # Python's driver would begin none for a SELECT
        yield connection


def _copy_study(reading: Connection, writing: Connection, name: str, target: str) -> Copied:
    """Copy one study; `target` names the target in the error for a study that exists there. Raises StudyError."""
    try:
        ids = {STUDIES: _copy_rows(reading, writing, STUDIES, name, {})}
    except IntegrityError as error:
        raise StudyError(
            f"storage {target} already holds a study named {name!r}",
            "nothing was copied; name another storage, or another study with --study-name",
        ) from error
    for table in TABLES:
        if table.foreign_keys:  # the others describe the database, not a study
            ids[table] = _copy_rows(reading, writing, table, name, ids)
    states = reading.execute(sqlalchemy.select(TRIALS.c.state).where(_of_study(TRIALS, name))).scalars().all()
    return Copied(name, len(states), states.count(TrialState.RUNNING))


def _copy_rows(
    reading: Connection, writing: Connection, table: Table, name: str, ids: Mapping[Table, Mapping[int, int]]
) -> dict[int, int]:
    """Copy a study's rows of one table in order; return new ids by old id, if other tables refer to them.

    `ids` has the new ids of the table that this one refers to.
    """
    key, parent = _key(table), _parent(table)
    rows = sqlalchemy.select(table).where(_of_study(table, name)).order_by(key)
    insert = sqlalchemy.insert(table)
    new_ids: dict[int, int] = {}
    for part in reading.execute(rows, execution_options={"yield_per": _ROWS_AT_ONCE}).mappings().partitions():
        new = [{column: value for column, value in row.items() if column != key.name} for row in part]
        if parent is not None:
            for row in new:
                row[parent.name] = ids[_refers_to(parent)][row[parent.name]]
        if table in (STUDIES, TRIALS):
            keys = writing.execute(insert.returning(key, sort_by_parameter_order=True), new).scalars()
            new_ids.update(zip((row[key.name] for row in part), keys, strict=True))
        else:
            writing.execute(insert, new)
    return new_ids


def _of_study(table: Table, name: str) -> ColumnElement[bool]:
    """Return the condition that a row of `table` belongs to the study of that name, directly or through its trial."""
    parent = _parent(table)
    if parent is None:
        return table.c.study_name == name
    above = _refers_to(parent)
    return parent.in_(sqlalchemy.select(_key(above)).where(_of_study(above, name)))


def _key(table: Table) -> Column[Any]:
    """Return the column with a row's id, which the database assigns."""
    (key,) = table.primary_key.columns
    return key


def _parent(table: Table) -> Column[Any] | None:
    """Return the column with a row's study or trial; None for studies themselves."""
    return next((column for column in table.columns if column.foreign_keys), None)


def _refers_to(column: Column[Any]) -> Table:
    """Return the table whose ids are in that column."""
    (foreign,) = column.foreign_keys
    return foreign.column.table
