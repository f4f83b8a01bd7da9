"""A trial of the queue, or a new one, that a worker takes: it runs and is claimed from one moment on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, func, insert, literal, select, text, update

from face3d_tune.storage import claims
from face3d_tune.storage.claimed_trials import attr_rows, put
from face3d_tune.storage.claims import CLAIMS, Claim
from face3d_tune.storage.optuna_internals import SYSTEM_ATTRS, TRIALS, USER_ATTRS
from face3d_tune.storage.questions import ask_at_once, filled, row_of_study
from face3d_tune.storage.times import utc_now

_WAITING = """
    update trials set state = 'RUNNING', datetime_start = :now
    where trial_id = :waiting and state = 'WAITING' returning trial_id, number
"""
# After `row_of_study`.
_NEW = """
    insert into trials (study_id, state, datetime_start, number)
    select study_id, cast('RUNNING' as trialstate), :now,
        (select count(*) from trials t where t.study_id = study.study_id)
    from studies study where study_id = :study returning trial_id, number
"""
_TAKE = """
with taken as ({taken}), claim as (
    insert into face3d_tune_claims (trial_id, worker) select trial_id, :worker from taken
    on conflict (trial_id) do update set worker = excluded.worker
), mark as (
    insert into trial_system_attributes (trial_id, key, value_json) select trial_id, :mark, :text from taken
    on conflict (trial_id, key) do update set value_json = excluded.value_json
), attrs as (
    insert into trial_user_attributes (trial_id, key, value_json)
    select trial_id, k, v from taken, unnest(cast(:keys as text[]), cast(:values as text[])) as each (k, v)
    on conflict (trial_id, key) do update set value_json = excluded.value_json
), beat as ({beat})
select trial_id, number from taken
"""


@dataclass(frozen=True, slots=True)
class Sign:
    """The SQL with which a worker says that it lives, and the values of its `:names`; `worker` is one of them."""

    sql: str
    values: Mapping[str, Any]


def take(
    engine: Engine, lock: Connection | None, study_id: int, waiting: int | None, sign: Sign, attrs: Mapping[str, Any]
) -> Claim | None:
    """Let a waiting trial, or else a new one, run, and claim it, with user attributes; None if another was faster.

    On a server all of it, with its COMMIT, is one journey on the connection that has the lock of `server_lock`. It is
    stored only if the lock still holds, and ends it.
    """
    if lock is not None:
        return _take_far(lock, study_id, waiting, sign, attrs)
    with engine.begin() as database:
        taken = _run_new(database, study_id) if waiting is None else _run_waiting(database, waiting)
        if taken is None:
            return None
        claim = Claim(*taken, sign.values["worker"], claims.new_text())
        claims.release(database, claim.trial_id)
        database.execute(CLAIMS.insert(), {"trial_id": claim.trial_id, "worker": claim.worker})
        put(database, SYSTEM_ATTRS, attr_rows(claim, {claims.ATTR: claim.text}))
        put(database, USER_ATTRS, attr_rows(claim, attrs))
        database.execute(text(sign.sql), dict(sign.values))
    return claim


def _take_far(
    lock: Connection, study_id: int, waiting: int | None, sign: Sign, attrs: Mapping[str, Any]
) -> Claim | None:
    mark = claims.new_text()
    values: dict[str, Any] = {
        "study": study_id,
        "waiting": waiting,
        "mark": claims.ATTR,
        "text": json.dumps(mark),
        "now": utc_now(),
    }
    values |= {"keys": list(attrs), "values": [json.dumps(value) for value in attrs.values()]}
    values |= sign.values
    taking = filled(lock, _TAKE.format(taken=_NEW if waiting is None else _WAITING, beat=sign.sql), values)
    _, rows, *_ = ask_at_once(lock, row_of_study(lock, study_id), taking, "commit")
    return Claim(rows[0][0], rows[0][1], sign.values["worker"], mark) if rows else None


def _run_waiting(database: Connection, trial_id: int) -> tuple[int, int] | None:
    """Let a waiting trial run; return its id and its number, or None if another program was faster."""
    chosen = update(TRIALS).where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
    if not database.execute(chosen.values(state=TrialState.RUNNING, datetime_start=literal(utc_now()))).rowcount:
        return None
    return trial_id, database.execute(select(TRIALS.c.number).where(TRIALS.c.trial_id == trial_id)).scalar_one()


def _run_new(database: Connection, study_id: int) -> tuple[int, int]:
    """Create a running trial; return its id and its number."""
    number = select(func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id).scalar_subquery()
    new = {"study_id": study_id, "state": TrialState.RUNNING, "datetime_start": literal(utc_now()), "number": number}
    made = insert(TRIALS).values(new)
    (trial_id,) = database.execute(made).inserted_primary_key or (0,)
    return trial_id, database.execute(select(TRIALS.c.number).where(TRIALS.c.trial_id == trial_id)).scalar_one()
