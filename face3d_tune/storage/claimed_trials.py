"""Every write to a claimed trial: its config, its epochs and its end. It reaches no trial whose claim does not stand.

On a server each is one statement, a file knows no such statements.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState
from sqlalchemy import Connection, Table, literal, select, text, union_all, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine

from face3d_tune.storage.claims import ATTR, Claim, locked, lost, over, release, standing
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
from face3d_tune.storage.times import utc_now

_MINE = """
with mine as (
    select t.trial_id from trials t join face3d_tune_claims c on c.trial_id = t.trial_id and c.worker = :worker
    join trial_system_attributes m on m.trial_id = t.trial_id and m.key = :mark and m.value_json = :text
    where t.trial_id = :trial and t.state = 'RUNNING' for update of t
), users as (
    insert into trial_user_attributes (trial_id, key, value_json)
    select trial_id, k, v from mine, unnest(cast(:user_keys as text[]), cast(:user_values as text[])) as u (k, v)
    on conflict (trial_id, key) do update set value_json = excluded.value_json
), systems as (
    insert into trial_system_attributes (trial_id, key, value_json)
    select trial_id, k, v from mine, unnest(cast(:system_keys as text[]), cast(:system_values as text[])) as s (k, v)
    on conflict (trial_id, key) do update set value_json = excluded.value_json
), params as (
    insert into trial_params (trial_id, param_name, param_value, distribution_json)
    select trial_id, n, v, d from mine,
        unnest(cast(:names as text[]), cast(:params as float8[]), cast(:distributions as text[])) as p (n, v, d)
    on conflict (trial_id, param_name) do update
    set param_value = excluded.param_value, distribution_json = excluded.distribution_json
)"""
_CURVE = """
curve as (
    insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    select trial_id, s, v, cast(k as trialintermediatevaluetype) from mine,
        unnest(cast(:steps as integer[]), cast(:curve as float8[]), cast(:curve_kinds as text[])) as c (s, v, k)
    on conflict (trial_id, step) do update set intermediate_value = excluded.intermediate_value,
    intermediate_value_type = excluded.intermediate_value_type
)"""
_STORE = f"{_MINE} select trial_id from mine"
_REPORT = f"{_MINE}, {_CURVE} select trial_id from mine"
_FINISH = f"""{_MINE}, {_CURVE}, value as (
    insert into trial_values (trial_id, objective, value, value_type)
    select trial_id, 0, v, cast(k as trialvaluetype) from mine,
        unnest(cast(:values as float8[]), cast(:value_kinds as text[])) as v (v, k)
    on conflict (trial_id, objective) do update set value = excluded.value, value_type = excluded.value_type
), released as (
    delete from face3d_tune_claims where trial_id in (select trial_id from mine)
)
update trials set state = cast(:state as trialstate), datetime_complete = :now
where trial_id in (select trial_id from mine) returning trial_id
"""


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


def report(engine: Engine, claim: Claim, step: int, value: float, attrs: Mapping[str, Any]) -> None:
    """Store the value of a step, after user attributes that belong to it. Raises TrialLost. It may be called again."""
    if _is_far(engine):
        if not _execute(engine, _REPORT, {**_held(claim, attrs), **_curve({step: value})}):
            raise lost(engine, claim)
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        if attrs:
            _put_claimed(database, claim, USER_ATTRS, ("key", "value_json"), _rows_of(attrs))
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
    if _is_far(engine):
        if not _execute(engine, _STORE, _held(claim, attrs, params, distributions, system_attrs or {})):
            raise lost(engine, claim)
        return
    with engine.begin() as database:
        if attrs and not _put_claimed(database, claim, USER_ATTRS, ("key", "value_json"), _rows_of(attrs)):
            raise lost(engine, claim, database)
        put(database, PARAMS, _params(claim, params, distributions))
        put(database, SYSTEM_ATTRS, attr_rows(claim, system_attrs or {}))


def finish(engine: Engine, claim: Claim, ended: Ended) -> None:
    """End a trial and release its claim. Raises TrialLost.

    Everything known of the trial is stored once more: a failover may have lost a part of it. May be called again if the
    answer was lost.
    """
    if _is_far(engine) and _execute(engine, _FINISH, _end(claim, ended)):
        return
    with engine.begin() as database:
        state, mark, stands = locked(database, claim)
        if mark == over(claim):
            return
        if not stands or state != TrialState.RUNNING:
            raise lost(engine, claim, database)
        put(database, USER_ATTRS, attr_rows(claim, ended.user_attrs))
        put(database, SYSTEM_ATTRS, attr_rows(claim, {**ended.system_attrs, ATTR: over(claim)}))
        put(database, PARAMS, _params(claim, ended.params, ended.distributions))
        columns = "trial_id", "step", "intermediate_value", "intermediate_value_type"
        curve = [(claim.trial_id, step, *stored_step(value)) for step, value in sorted(ended.curve.items())]
        put(database, CURVES, [dict(zip(columns, row, strict=True)) for row in curve])
        if ended.value is not None:
            value, kind = stored_value(ended.value)
            row = {"trial_id": claim.trial_id, "objective": 0, "value": value, "value_type": kind}
            put(database, VALUES, [row])
        end = update(TRIALS).where(TRIALS.c.trial_id == claim.trial_id)
        database.execute(end.values(state=ended.state, datetime_complete=utc_now()))
        release(database, claim.trial_id)


def _is_far(engine: Engine) -> bool:
    return engine.dialect.name == "postgresql"


def _execute(engine: Engine, statement: str, values: Mapping[str, Any]) -> bool:
    """Execute a statement on a server; return False if the claim does not stand."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        return bool(database.execute(text(statement), values).all())


def _held(
    claim: Claim,
    attrs: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    system_attrs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the values for `_MINE`."""
    rows = _params(claim, params or {}, distributions or {})
    values = {"trial": claim.trial_id, "worker": claim.worker, "mark": ATTR, "text": json.dumps(claim.text)}
    values |= {"names": [row["param_name"] for row in rows], "params": [float(row["param_value"]) for row in rows]}
    values |= {"distributions": [row["distribution_json"] for row in rows]}
    for name, each in ("user", attrs), ("system", system_attrs or {}):
        values |= {f"{name}_keys": list(each), f"{name}_values": [json.dumps(value) for value in each.values()]}
    return values


def _curve(curve: Mapping[int, float]) -> dict[str, Any]:
    """Return the values for `_CURVE`."""
    rows = [(step, *stored_step(value)) for step, value in sorted(curve.items())]
    steps, values, kinds = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return {"steps": steps, "curve": values, "curve_kinds": [kind.name for kind in kinds]}


def _end(claim: Claim, ended: Ended) -> dict[str, Any]:
    """Return the values for `_FINISH`."""
    attrs = {**ended.system_attrs, ATTR: over(claim)}
    values = _held(claim, ended.user_attrs, ended.params, ended.distributions, attrs) | _curve(ended.curve)
    value = [] if ended.value is None else [stored_value(ended.value)]
    values |= {"values": [stored for stored, _ in value], "value_kinds": [kind.name for _, kind in value]}
    return values | {"state": ended.state.name, "now": utc_now()}


def _rows_of(attrs: Mapping[str, Any]) -> list[Any]:
    """Return the selects of attributes for `_put_claimed`."""
    return [select(TRIALS.c.trial_id, literal(key), literal(json.dumps(attrs[key]))) for key in attrs]


def _put_claimed(database: Connection, claim: Claim, table: Table, columns: Sequence[str], rows: Iterable[Any]) -> int:
    """Insert rows, which begin with the trial's id, or replace others, if the claim stands; return how many."""
    conditions = TRIALS.c.trial_id == claim.trial_id, TRIALS.c.state == TrialState.RUNNING, *standing(claim)
    chosen = [row.where(*conditions) for row in rows]
    source: Any = chosen[0] if len(chosen) == 1 else union_all(*chosen)
    statement = _or_replace(_insert(database)(table).from_select(["trial_id", *columns], source), table)
    return int(database.execute(statement).rowcount)  # an old SQLite cannot return any


def put(database: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
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


def attr_rows(claim: Claim, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of attributes of a trial."""
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
