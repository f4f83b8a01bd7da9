"""A worker's claim on a trial, and every write to a claimed trial.

The number of a trial does not identify it. A failover that loses the last seconds, or a restored backup, gives ids and
numbers again. So each claim stores a random text with its trial, and no write reaches a trial without this text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    delete,
    exists,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine

from face3d_tune.storage.optuna_internals import (
    CURVES,
    PARAMS,
    SYSTEM_ATTRS,
    TRIALS,
    USER_ATTRS,
    VALUES,
    stored_step,
    stored_value,
)

ATTR = "face3d_tune:claim"  # a system attribute: Optuna's own tables would show a user attribute as a column
tables = MetaData()
CLAIMS = Table(
    "face3d_tune_claims",
    tables,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(32), nullable=False),
)


class TrialLost(Exception):
    """A trial that was reassigned because this worker was presumed dead, or that another program ended."""


class TrialGone(TrialLost):
    """A trial that the database does not know any more, as after a failover that lost the last seconds."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's claim on a trial."""

    trial_id: int
    number: int
    worker: str
    text: str  # random, stored with the trial


@dataclass(frozen=True, slots=True)
class Ended:
    """What a trial ends with, and all that was stored of it before."""

    state: TrialState
    value: float | None
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    curve: Mapping[int, float]  # by step


def new(trial_id: int, number: int, worker: str) -> Claim:
    """Return a claim that is not stored yet."""
    return Claim(trial_id, number, worker, uuid4().hex)


def put_attrs(database: Connection, claim: Claim, attrs: Mapping[str, Any]) -> None:
    """Store user attributes of a trial in this transaction."""
    _put(database, USER_ATTRS, _attrs(claim, attrs))


def write(database: Connection, trial_id: int, number: int, worker: str) -> Claim:
    """Claim a running trial in this transaction."""
    claim = new(trial_id, number, worker)
    database.execute(delete(CLAIMS).where(CLAIMS.c.trial_id == trial_id))
    database.execute(CLAIMS.insert(), {"trial_id": trial_id, "worker": worker})
    _put(database, SYSTEM_ATTRS, [{"trial_id": trial_id, "key": ATTR, "value_json": json.dumps(claim.text)}])
    return claim


def release(database: Connection, trial_id: int) -> None:
    """Release the claim on a trial in this transaction, whichever worker has it."""
    database.execute(delete(CLAIMS).where(CLAIMS.c.trial_id == trial_id))


def take_away(database: Connection, trial_id: int) -> None:
    """Release the claim on a trial of another worker, which may be alive after all and must see it."""
    release(database, trial_id)
    database.execute(delete(SYSTEM_ATTRS).where(SYSTEM_ATTRS.c.trial_id == trial_id, SYSTEM_ATTRS.c.key == ATTR))


def marks(engine: Engine, study_id: int, trial_ids: Iterable[int]) -> dict[int, tuple[TrialState, str | None]]:
    """Return the state and the text of the claim of those trials that a study holds, by id."""
    question = select(TRIALS.c.trial_id, TRIALS.c.state, _text_of(TRIALS.c.trial_id))
    chosen = question.where(TRIALS.c.study_id == study_id, TRIALS.c.trial_id.in_(list(trial_ids)))
    with engine.connect() as database:
        return {row[0]: (row[1], row[2] and json.loads(row[2])) for row in database.execute(chosen)}


def stands(engine: Engine, claim: Claim) -> bool:
    """Tell whether a claim stands; False if this worker has ended its trial. Raises TrialLost."""
    with engine.connect() as database:
        state, text, standing = _locked(database, claim)
        if standing:
            return True
        if state is not None and state.is_finished() and text in (claim.text, _over(claim)):
            return False
        raise lost(engine, claim, database)


def report(engine: Engine, claim: Claim, step: int, value: float, attrs: Mapping[str, Any]) -> None:
    """Store the value of a step, after user attributes that belong to it. Raises TrialLost.

    It may be called again. Each table is one statement, which also looks for the claim, and a transaction of its own.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        if attrs:
            rows = [select(TRIALS.c.trial_id, literal(key), literal(json.dumps(attrs[key]))) for key in attrs]
            _put_claimed(database, claim, USER_ATTRS, ("key", "value_json"), rows)
        finite, kind = stored_step(value)
        types = CURVES.c.intermediate_value.type, CURVES.c.intermediate_value_type.type
        row = select(TRIALS.c.trial_id, literal(step), literal(finite, types[0]), literal(kind, types[1]))
        columns = "step", "intermediate_value", "intermediate_value_type"
        if not _put_claimed(database, claim, CURVES, columns, [row]):
            raise lost(engine, claim)


def store(
    engine: Engine,
    claim: Claim,
    attrs: Mapping[str, Any],
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    system_attrs: Mapping[str, Any] | None = None,
) -> None:
    """Store user attributes, parameters and system attributes, all or none. Raises TrialLost."""
    with engine.begin() as database:
        rows = [select(TRIALS.c.trial_id, literal(key), literal(json.dumps(attrs[key]))) for key in attrs]
        if attrs and not _put_claimed(database, claim, USER_ATTRS, ("key", "value_json"), rows):
            raise lost(engine, claim, database)
        _put(database, PARAMS, _params(claim, params, distributions))
        _put(database, SYSTEM_ATTRS, _attrs(claim, system_attrs or {}))


def finish(engine: Engine, claim: Claim, ended: Ended) -> None:
    """End a trial and release its claim. Raises TrialLost.

    Everything known of the trial is stored once more: a failover may have lost a part of it. May be called again if the
    answer was lost.
    """
    with engine.begin() as database:
        state, text, stands = _locked(database, claim)
        if text == _over(claim):
            return
        if not stands or state != TrialState.RUNNING:
            raise lost(engine, claim, database)
        _put(database, USER_ATTRS, _attrs(claim, ended.user_attrs))
        _put(database, SYSTEM_ATTRS, _attrs(claim, {**ended.system_attrs, ATTR: _over(claim)}))
        _put(database, PARAMS, _params(claim, ended.params, ended.distributions))
        columns = "trial_id", "step", "intermediate_value", "intermediate_value_type"
        curve = [(claim.trial_id, step, *stored_step(value)) for step, value in sorted(ended.curve.items())]
        _put(database, CURVES, [dict(zip(columns, row, strict=True)) for row in curve])
        if ended.value is not None:
            value, kind = stored_value(ended.value)
            row = {"trial_id": claim.trial_id, "objective": 0, "value": value, "value_type": kind}
            _put(database, VALUES, [row])
        end = update(TRIALS).where(TRIALS.c.trial_id == claim.trial_id)
        database.execute(end.values(state=ended.state, datetime_complete=_utc(datetime.now(UTC))))
        release(database, claim.trial_id)


def lost(engine: Engine, claim: Claim, database: Connection | None = None) -> TrialLost:
    """Return the reason why a claim does not stand: TrialLost, or TrialGone if the database lost the trial."""
    if database is None:
        with engine.connect() as another:
            return lost(engine, claim, another)
    stored = _text_of(TRIALS.c.trial_id)
    row = database.execute(select(TRIALS.c.state, stored).where(TRIALS.c.trial_id == claim.trial_id)).one_or_none()
    if row is None or row[0] == TrialState.WAITING or (row[1] and row[1] != json.dumps(claim.text)):
        return TrialGone()
    return TrialLost()


def _over(claim: Claim) -> str:
    """Return the text of a claim whose trial was ended by its worker."""
    return f"ended:{claim.text}"


def _text_of(trial_id: ColumnElement[int]) -> Any:
    mark = select(SYSTEM_ATTRS.c.value_json).where(SYSTEM_ATTRS.c.trial_id == trial_id, SYSTEM_ATTRS.c.key == ATTR)
    return mark.scalar_subquery()


def _standing(claim: Claim) -> Sequence[ColumnElement[bool]]:
    """Return the conditions on a row of TRIALS that this claim stands."""
    row = and_(CLAIMS.c.trial_id == TRIALS.c.trial_id, CLAIMS.c.worker == claim.worker)
    return _text_of(TRIALS.c.trial_id) == json.dumps(claim.text), exists().where(row)


def _locked(database: Connection, claim: Claim) -> tuple[TrialState | None, str | None, bool]:
    """Lock the trial; return its state, the text of its claim, and whether this claim stands."""
    stands = and_(*_standing(claim))
    question = select(TRIALS.c.state, _text_of(TRIALS.c.trial_id), stands).where(TRIALS.c.trial_id == claim.trial_id)
    row = database.execute(question.with_for_update(of=TRIALS)).one_or_none()
    return (None, None, False) if row is None else (row[0], row[1] and json.loads(row[1]), bool(row[2]))


def _put_claimed(database: Connection, claim: Claim, table: Table, columns: Sequence[str], rows: Iterable[Any]) -> int:
    """Insert rows that begin with the trial's id, or replace others, if the claim stands; return how many."""
    conditions = TRIALS.c.trial_id == claim.trial_id, TRIALS.c.state == TrialState.RUNNING, *_standing(claim)
    chosen = [row.where(*conditions) for row in rows]
    source: Any = chosen[0] if len(chosen) == 1 else union_all(*chosen)
    statement = _or_replace(_insert(database)(table).from_select(["trial_id", *columns], source), table)
    if database.dialect.name == "postgresql":  # where SQLAlchemy does not count inserted rows
        return len(database.execute(statement.returning(table.c.trial_id)).all())
    return int(database.execute(statement).rowcount)  # an old SQLite cannot return any


def _put(database: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or put them in the place of others."""
    if rows:
        database.execute(_or_replace(_insert(database)(table).values(list(rows)), table))


def _insert(database: Connection) -> Any:
    return postgresql.insert if database.dialect.name == "postgresql" else sqlite.insert


def _or_replace(statement: Any, table: Table) -> Any:
    """Let an insert put its rows in the place of those with the same keys."""
    keys = {USER_ATTRS: "key", SYSTEM_ATTRS: "key", PARAMS: "param_name", CURVES: "step", VALUES: "objective"}
    others = [column.name for column in table.columns if column.name not in ("trial_id", keys[table])]
    changed = {name: statement.excluded[name] for name in others if not table.columns[name].primary_key}
    return statement.on_conflict_do_update(index_elements=["trial_id", keys[table]], set_=changed)


def _attrs(claim: Claim, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": claim.trial_id, "key": key, "value_json": json.dumps(attrs[key])} for key in attrs]


def _params(
    claim: Claim, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": claim.trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(params[name]),
            "distribution_json": distribution_to_json(distributions[name]),
        }
        for name in params
    ]


def _utc(moment: datetime) -> datetime:
    """Return a time as Optuna stores it."""
    return moment.replace(tzinfo=None)
