"""Optuna's storage on a PostgreSQL server that may be far away: one question for what Optuna asks in several.

What is stored and read is the same, in the same tables.
"""

import json
import re
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, event, text

from face3d_tune.storage.few_round_trips import only_reads
from face3d_tune.storage.optuna_internals import FIXED_PARAMS, NO_RECORD, StorageOfTrials, read_step, read_value

# Numbers as text: JSON would turn -0.0 into 0.
_TRIALS = """
select t.trial_id, t.number, t.state, t.datetime_start, t.datetime_complete,
    (select json_agg(json_build_array(cast(value as text), value_type) order by objective)
        from trial_values each where each.trial_id = t.trial_id),
    (select json_agg(json_build_array(param_name, cast(param_value as text), distribution_json) order by param_id)
        from trial_params each where each.trial_id = t.trial_id),
    (select json_object_agg(key, value_json) from trial_user_attributes each where each.trial_id = t.trial_id),
    (select json_object_agg(key, value_json) from trial_system_attributes each where each.trial_id = t.trial_id),
    (select json_agg(json_build_array(step, cast(intermediate_value as text), intermediate_value_type))
        from trial_intermediate_values each where each.trial_id = t.trial_id)
from """
# A study without trials, or attributes, gives a row without values; one that does not exist gives none.
_OF_STUDY = (
    "studies s left join trials t on t.study_id = s.study_id and ({}) "
    "where s.study_id = :study order by t.trial_id limit :few"
)
_NEWER = "t.trial_id > :after or t.trial_id = any(cast(:also as integer[]))"
_ATTRS = "select key, value_json from studies left join {} using (study_id) where study_id = :study"
_NEW_STUDY = """
with made as (insert into studies (study_name) values (:name) on conflict do nothing returning study_id), aims as (
    insert into study_directions (study_id, direction, objective) select study_id, cast(d as studydirection), place - 1
    from made, unnest(cast(:directions as text[])) with ordinality as each (d, place)
)
select study_id from made
"""
_OF_WORKERS = re.compile(r"(update|insert into|delete from) face3d_tune_workers").match  # change no answer here
_GOOD = 3  # times as long as it took
_MOST = 20  # answers that are kept
_FEW = 200  # trials that are read by one question
_ENQUEUE = """
with given as (
    select value, place from jsonb_array_elements(cast(:trials as jsonb)) with ordinality as each (value, place)
), study as (
    select study_id from studies where study_id = :study for update
), held as (
    select (select count(*) from trials where study_id = study.study_id) as held from study
), made as (
    insert into trials (number, study_id, state)
    select held + place - 1, :study, cast('WAITING' as trialstate) from given, held
    returning trial_id, number
), ours as (
    select trial_id, value from made, given, held where number = held + place - 1
), users as (
    insert into trial_user_attributes (trial_id, key, value_json)
    select trial_id, k, v from ours, jsonb_each_text(value -> 'user') as each (k, v)
)
insert into trial_system_attributes (trial_id, key, value_json)
select trial_id, k, v from ours, jsonb_each_text(value -> 'system') as each (k, v)
"""
_STATE = "select state from trials where trial_id = :trial for update"
_FAIL = """
with attrs as (
    insert into trial_user_attributes (trial_id, key, value_json)
    select :trial, k, v from unnest(cast(:keys as text[]), cast(:values as text[])) as each (k, v)
    on conflict (trial_id, key) do update set value_json = excluded.value_json
)
update trials set state = 'FAIL', datetime_complete = :now where trial_id = :trial
"""
_PUT = """
insert into {} (study_id, key, value_json)
select study_id, k, v from studies, unnest(cast(:keys as text[]), cast(:values as text[])) as each (k, v)
where study_id = :study
on conflict (study_id, key) do update set value_json = excluded.value_json
"""


class FarStorage(StorageOfTrials):
    """Optuna's storage with fewer questions."""

    @cached_property
    def _answers(self) -> dict[Any, tuple[float, list[Any]]]:
        """Return the last answers, with the times until which they are good.

        An answer is used again for as long as three new ones would take, at most: it is hardly older than they would be
        when they arrive. Everything that writes or locks forgets it.
        """
        answers: dict[Any, tuple[float, list[Any]]] = {}

        def forget(_: Any, __: Any, statement: str, *___: Any) -> None:
            if not (only_reads(statement) or _OF_WORKERS(statement)):
                answers.clear()

        event.listen(self.engine, "before_cursor_execute", forget)
        return answers

    def _ask(self, question: str, **values: Any) -> list[Any]:
        """Return the rows that answer a question. Raises KeyError if there are none."""
        key = (question, *map(str, values.values()))
        until, rows = self._answers.get(key, (0.0, []))
        asked = time.monotonic()
        if asked > until:
            with self.engine.connect() as database:
                rows = list(database.execute(text(question), values).all())
            if not rows:
                raise KeyError(NO_RECORD)
            now = time.monotonic()
            if len(self._answers) >= _MOST:  # of a program that only reads
                self._answers.clear()
            self._answers[key] = now + _GOOD * (now - asked), rows
        return rows

    def study_names(self) -> list[str]:
        """Return the names of all studies, without their attributes."""
        return [row[0] for row in self._ask("select study_name from studies union all select null") if row[0]]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study, and return its id. Raises DuplicatedStudyError."""
        if study_name is None:
            return super().create_new_study(directions, study_name)
        values = {"name": study_name, "directions": [direction.name for direction in directions]}
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            made: int | None = database.execute(text(_NEW_STUDY), values).scalar_one_or_none()
        if made is None:
            raise DuplicatedStudyError
        return made

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user attributes of a study. Raises KeyError."""
        return self._attrs("study_user_attributes", study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the system attributes of a study. Raises KeyError."""
        return self._attrs("study_system_attributes", study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Store a user attribute of a study. Raises KeyError."""
        self.set_study_user_attrs(study_id, {key: value})

    def set_study_user_attrs(self, study_id: int, attrs: Mapping[str, Any]) -> None:
        """Store user attributes of a study, all or none. Raises KeyError."""
        self._put("study_user_attributes", study_id, attrs)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Store a system attribute of a study. Raises KeyError."""
        self._put("study_system_attributes", study_id, {key: value})

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial. Raises KeyError."""
        return self._read("trials t where t.trial_id = :trial", {"trial": trial_id})[0]

    def enqueue_trials(self, study_id: int, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Queue trials with these parameters and user attributes, all or none."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            _enqueue(database, study_id, trials)

    def requeue(
        self,
        study_id: int,
        trial_id: int,
        attrs: Mapping[str, Any],
        successors: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    ) -> None:
        """Fail a running trial with these user attributes and queue its successors, all or none.

        A trial that does not run any more stays as it is, without further successors: the network may have held up this
        request while another worker requeued the trial.
        """
        stored = _stored(attrs)
        values = {"trial": trial_id, "keys": list(stored), "values": list(stored.values())}
        with self.engine.begin() as database:
            if database.execute(text(_STATE), {"trial": trial_id}).scalar_one_or_none() != TrialState.RUNNING.name:
                return
            _enqueue(database, study_id, successors)
            database.execute(text(_FAIL), {**values, "now": datetime.now(UTC).replace(tzinfo=None)})

    def read_few(
        self, study_id: int, states: Container[TrialState] | None, also: Iterable[int], after: int
    ) -> list[FrozenTrial] | None:
        """Return the trials of a study with these states whose ids are greater than `after`, or among `also`.

        None if there are many, which are read faster in another way.
        """
        values = {"study": study_id, "after": after, "also": sorted(also), "few": _FEW}
        found = self._read(_OF_STUDY.format(_NEWER), values)
        if len(found) == _FEW:
            return None
        return [trial for trial in found if states is None or trial.state in states]

    def _attrs(self, table: str, study_id: int) -> dict[str, Any]:
        rows = self._ask(_ATTRS.format(table), study=study_id)
        return {key: json.loads(value) for key, value in rows if key is not None}

    def _put(self, table: str, study_id: int, attrs: Mapping[str, Any]) -> None:
        values = {"study": study_id, "keys": list(attrs), "values": [json.dumps(value) for value in attrs.values()]}
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            if database.execute(text(_PUT.format(table)), values).rowcount == 0:
                raise KeyError(NO_RECORD)

    def _read(self, chosen: str, values: Mapping[str, Any]) -> list[FrozenTrial]:
        return [_trial(*row) for row in self._ask(_TRIALS + chosen, **values) if row[0] is not None]


def _trial(
    trial_id: int,
    number: int,
    state: str,
    start: datetime | None,
    complete: datetime | None,
    values: Iterable[tuple[str | None, str]] | None,
    params: Iterable[tuple[str, str, str]] | None,
    user_attrs: Mapping[str, str] | None,
    system_attrs: Mapping[str, str] | None,
    curve: Iterable[tuple[int, str | None, str]] | None,
) -> FrozenTrial:
    distributions = {name: json_to_distribution(stored) for name, _, stored in params or ()}
    return FrozenTrial(
        number=number,
        state=TrialState[state],
        value=None,
        values=[read_value(_number(value), kind) for value, kind in values] if values else None,
        datetime_start=_local(start),
        datetime_complete=_local(complete),
        params={name: distributions[name].to_external_repr(float(value)) for name, value, _ in params or ()},
        distributions=distributions,
        user_attrs={key: json.loads(value) for key, value in (user_attrs or {}).items()},
        system_attrs={key: json.loads(value) for key, value in (system_attrs or {}).items()},
        intermediate_values={step: read_step(_number(value), kind) for step, value, kind in curve or ()},
        trial_id=trial_id,
    )


def _enqueue(
    database: Connection, study_id: int, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> None:
    """Queue trials with these parameters and user attributes by one question."""
    rows = [{"user": _stored(attrs), "system": _stored({FIXED_PARAMS: dict(params)})} for params, attrs in trials]
    if rows:
        database.execute(text(_ENQUEUE), {"study": study_id, "trials": json.dumps(rows)})


def _number(stored: str | None) -> float | None:
    return None if stored is None else float(stored)


def _stored(attrs: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in attrs.items()}


def _local(stored: datetime | None) -> datetime | None:
    """Return a stored time, which is in UTC, as Optuna gives it."""
    return stored and stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
