"""A worker's claim on a trial, which every write to the trial asks for.

The number of a trial does not identify it. A failover that loses the last seconds, or a restored backup, gives ids and
numbers again. So each claim stores a random text with its trial, and no write reaches a trial without this text.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

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
    select,
)
from sqlalchemy.engine import Engine

from face3d_tune.storage.optuna_internals import (
    SYSTEM_ATTRS,
    TRIALS,
)
from face3d_tune.storage.questions import Question, question

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


def new_text() -> str:
    """Return the text of a claim that is not stored yet."""
    return uuid4().hex


def release(database: Connection, trial_id: int) -> None:
    """Release the claim on a trial in this transaction, whichever worker has it."""
    database.execute(delete(CLAIMS).where(CLAIMS.c.trial_id == trial_id))


def take_away(database: Connection, trial_id: int) -> None:
    """Release the claim on a trial of another worker, which may be alive after all and must see it."""
    release(database, trial_id)
    database.execute(delete(SYSTEM_ATTRS).where(SYSTEM_ATTRS.c.trial_id == trial_id, SYSTEM_ATTRS.c.key == ATTR))


def marks(study_id: int, trial_ids: Iterable[int]) -> Question:
    """Return the question for id, state and stored text of the claim of those trials that a study holds."""
    chosen = ", ".join(str(int(trial_id)) for trial_id in sorted(trial_ids)) or "null"
    return question(
        "select t.trial_id, t.state, (select value_json from trial_system_attributes m where m.trial_id = t.trial_id "
        f"and m.key = '{ATTR}') from trials t where t.study_id = :study and t.trial_id in ({chosen})",
        lasting=False,
        study=study_id,
    )


def stands(engine: Engine, claim: Claim) -> bool:
    """Tell whether a claim stands; False if this worker has ended its trial. Raises TrialLost."""
    with engine.connect() as database:
        state, mark, standing = locked(database, claim)
        if standing:
            return True
        if state is not None and state.is_finished() and mark in (claim.text, over(claim)):
            return False
        raise lost(engine, claim, database)


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


def over(claim: Claim) -> str:
    """Return the text of a claim whose trial was ended by its worker."""
    return f"ended:{claim.text}"


def _text_of(trial_id: ColumnElement[int]) -> Any:
    mark = select(SYSTEM_ATTRS.c.value_json).where(SYSTEM_ATTRS.c.trial_id == trial_id, SYSTEM_ATTRS.c.key == ATTR)
    return mark.scalar_subquery()


def standing(claim: Claim) -> Sequence[ColumnElement[bool]]:
    """Return the conditions on a row of TRIALS that this claim stands."""
    row = and_(CLAIMS.c.trial_id == TRIALS.c.trial_id, CLAIMS.c.worker == claim.worker)
    return _text_of(TRIALS.c.trial_id) == json.dumps(claim.text), exists().where(row)


def locked(database: Connection, claim: Claim) -> tuple[TrialState | None, str | None, bool]:
    """Lock the trial; return its state, the text of its claim, and whether this claim stands."""
    stands = and_(*standing(claim))
    question = select(TRIALS.c.state, _text_of(TRIALS.c.trial_id), stands).where(TRIALS.c.trial_id == claim.trial_id)
    row = database.execute(question.with_for_update(of=TRIALS)).one_or_none()
    return (None, None, False) if row is None else (row[0], row[1] and json.loads(row[1]), bool(row[2]))
