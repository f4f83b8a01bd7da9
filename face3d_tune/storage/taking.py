"""A trial of the queue, or a new one, that a worker takes: it runs and is claimed from one moment on."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import Connection, func, insert, literal, select, text, update

from face3d_tune.storage import claims
from face3d_tune.storage.claims import Claim
from face3d_tune.storage.optuna_internals import TRIALS

_CLAIM = """
with claim as (
    insert into face3d_tune_claims (trial_id, worker) values (:trial, :worker)
    on conflict (trial_id) do update set worker = excluded.worker
), mark as (
    insert into trial_system_attributes (trial_id, key, value_json) values (:trial, :mark, :text)
    on conflict (trial_id, key) do update set value_json = excluded.value_json
), attrs as (
    insert into trial_user_attributes (trial_id, key, value_json)
    select :trial, k, v from unnest(cast(:keys as text[]), cast(:values as text[])) as each (k, v)
    on conflict (trial_id, key) do update set value_json = excluded.value_json
)
update face3d_tune_workers set seen = extract(epoch from clock_timestamp()) where worker = :worker returning seen
"""

_NEW = """
with study as (select study_id from studies where study_id = :study for update)
insert into trials (study_id, state, datetime_start, number)
select study_id, cast('RUNNING' as trialstate), :now, (select count(*) from trials t where t.study_id = study.study_id)
from study returning trial_id, number
"""


def run_waiting(database: Connection, trial_id: int) -> bool:
    """Let a waiting trial run; return False if another program was faster."""
    chosen = update(TRIALS).where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
    return bool(database.execute(chosen.values(state=TrialState.RUNNING, datetime_start=_now())).rowcount)


def run_new(database: Connection, study_id: int) -> tuple[int, int]:
    """Create a running trial; return its id and its number."""
    if database.dialect.name == "postgresql":  # Optuna, too, numbers trials while it has the row of the study
        values = {"study": study_id, "now": datetime.now(UTC).replace(tzinfo=None)}
        trial_id, given = database.execute(text(_NEW), values).one()
        return trial_id, given
    number = select(func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id).scalar_subquery()
    new = {"study_id": study_id, "state": TrialState.RUNNING, "datetime_start": _now(), "number": number}
    made = insert(TRIALS).values(new)
    (trial_id,) = database.execute(made).inserted_primary_key or (0,)
    return trial_id, database.execute(select(TRIALS.c.number).where(TRIALS.c.trial_id == trial_id)).scalar_one()


def claim(
    database: Connection, trial_id: int, number: int, worker: str, attrs: Mapping[str, Any]
) -> tuple[Claim, bool]:
    """Claim a running trial, with user attributes; return whether the worker is known, which counts as a heartbeat."""
    if database.dialect.name != "postgresql":
        made = claims.write(database, trial_id, number, worker)
        claims.put_attrs(database, made, attrs)
        sign = "update face3d_tune_workers set seen = ((julianday('now') - 2440587.5) * 86400.0) where worker = :me"
        return made, bool(database.execute(text(sign), {"me": worker}).rowcount)
    made = claims.new(trial_id, number, worker)
    values = {"trial": trial_id, "worker": worker, "mark": claims.ATTR, "text": json.dumps(made.text)}
    values |= {"keys": list(attrs), "values": [json.dumps(value) for value in attrs.values()]}
    return made, database.execute(text(_CLAIM), values).first() is not None


def _now() -> Any:
    return literal(datetime.now(UTC).replace(tzinfo=None))
