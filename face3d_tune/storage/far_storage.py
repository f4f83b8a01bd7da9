"""Optuna's storage on a PostgreSQL server that may be far away: one question for what Optuna asks in several.

What is stored and read is the same, in the same tables.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, text

from face3d_tune.storage import times
from face3d_tune.storage.answers import Answers, answers_of
from face3d_tune.storage.optuna_internals import FIXED_PARAMS, NO_RECORD, StorageOfTrials, read_step, read_value
from face3d_tune.storage.questions import Question, Rows, ask_at_once, filled, question, row_of_study

# Numbers as text: JSON would turn -0.0 into 0.
_TRIALS = """
select t.trial_id, t.number, t.state, t.datetime_start, t.datetime_complete,
    (select json_agg(json_build_array(cast(value as text), value_type) order by objective)
        from trial_values each where each.trial_id = t.trial_id),
    (select json_agg(json_build_array(param_name, cast(param_value as text), distribution_json) order by param_id)
        from trial_params each where each.trial_id = t.trial_id),
    (select json_object_agg(key, value_json) from trial_user_attributes each where each.trial_id = t.trial_id),
    (select json_object_agg(key, value_json) from trial_system_attributes each where each.trial_id = t.trial_id
        and key <> all(cast(:unread as text[]))),
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
ALL_STUDIES = question(  # a storage without studies gives a row without a name
    "select s.study_id, s.study_name, "
    "(select json_agg(direction order by objective) from study_directions d where d.study_id = s.study_id) "
    "from (select 1) always left join studies s on true"
)
_FEW = 200  # trials that are read by one question
# After `row_of_study`.
_ENQUEUE = """
with given as (
    select value, place from jsonb_array_elements(cast(:trials as jsonb)) with ordinality as each (value, place)
), held as (
    select (select count(*) from trials where study_id = study.study_id) as held
    from studies study where study_id = :study
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
with users as (
    insert into study_user_attributes (study_id, key, value_json)
    select study_id, k, v from studies,
        unnest(cast(:user_keys as text[]), cast(:user_values as text[])) as u (k, v)
    where study_id = :study
    on conflict (study_id, key) do update set value_json = excluded.value_json
), systems as (
    insert into study_system_attributes (study_id, key, value_json)
    select study_id, k, v from studies,
        unnest(cast(:system_keys as text[]), cast(:system_values as text[])) as s (k, v)
    where study_id = :study
    on conflict (study_id, key) do update set value_json = excluded.value_json
)
select study_id from studies where study_id = :study
"""


class FarStorage(StorageOfTrials):
    """Optuna's storage with fewer questions."""

    @cached_property
    def _answers(self) -> Answers:
        return answers_of(self.engine)

    def _ask(self, asked: Question, *soon: Question) -> Rows:
        """Return the rows that answer a question, and ask at once what is likely to be asked next.

        Raises KeyError if there are none.
        """
        rows = self._answers.ask(asked, *soon)
        if not rows:
            raise KeyError(NO_RECORD)
        return rows

    def _studies(self) -> list[tuple[int, str, list[str]]]:
        return [(number, name, directions) for number, name, directions in self._ask(ALL_STUDIES) if number is not None]

    def study_names(self) -> list[str]:
        """Return the names of all studies, without their attributes."""
        return [name for _, name, _ in self._studies()]

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study. Raises KeyError."""
        study_id: int = self._study(1, study_name)[0]
        return study_id

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study. Raises KeyError."""
        return [StudyDirection[direction] for direction in self._study(0, study_id)[2]]

    def _study(self, column: int, value: object) -> Sequence[Any]:
        """Return the row of a study. Raises KeyError if it does not exist now: an old answer is not enough for that."""

        def found(rows: Rows) -> list[Sequence[Any]]:
            return [row for row in rows if row[column] == value]

        if rows := found(self._answers.ask(ALL_STUDIES, enough=lambda rows: bool(found(rows)))):
            return rows[0]
        raise KeyError(NO_RECORD)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study, and return its id. Raises DuplicatedStudyError."""
        if study_name is None:
            return super().create_new_study(directions, study_name)
        known = self._answers.known(ALL_STUDIES)
        values = {"name": study_name, "directions": [direction.name for direction in directions]}
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            made: int | None = database.execute(text(_NEW_STUDY), values).scalar_one_or_none()
        if made is None:
            raise DuplicatedStudyError
        if known is not None:
            self._answers.learn(ALL_STUDIES, [*known, (made, study_name, values["directions"])])
        for asked in attrs_of_study(made):
            self._answers.learn(asked, [(None, None)])
        return made

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user attributes of a study. Raises KeyError."""
        user, system = attrs_of_study(study_id)
        return _read_attrs(self._ask(user, system))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the system attributes of a study. Raises KeyError."""
        user, system = attrs_of_study(study_id)
        return _read_attrs(self._ask(system, user))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Store a user attribute of a study. Raises KeyError."""
        self.set_study_attrs(study_id, {key: value})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Store a system attribute of a study. Raises KeyError."""
        self.set_study_attrs(study_id, {}, {key: value})

    def set_study_attrs(
        self, study_id: int, attrs: Mapping[str, Any], system_attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Store user and system attributes of a study, all or none. Raises KeyError."""
        user, system = _stored(attrs), _stored(system_attrs or {})
        asked = attrs_of_study(study_id)
        before = [self._answers.known(each) for each in asked]
        values: dict[str, Any] = {"study": study_id}
        values |= {"user_keys": list(user), "user_values": list(user.values())}
        values |= {"system_keys": list(system), "system_values": list(system.values())}
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            if not database.execute(text(_PUT), values).all():
                raise KeyError(NO_RECORD)
        for each, rows, stored in zip(asked, before, (user, system), strict=True):
            if rows is not None:
                self._answers.learn(each, list({**{key: value for key, value in rows}, **stored}.items()))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial. Raises KeyError."""
        return self._read(question(f"{_TRIALS} trials t where t.trial_id = :trial", trial=trial_id, unread=()))[0]

    def enqueue_trials(self, study_id: int, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Queue trials with these parameters and user attributes, all or none."""
        with self.engine.connect() as database:
            _enqueue(database, study_id, trials, "commit")

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
            database.execute(text(_FAIL), {**values, "now": times.utc_now()})

    def read_few(
        self, study_id: int, states: Container[TrialState] | None, also: Iterable[int], after: int
    ) -> list[FrozenTrial] | None:
        """Return the trials of a study with these states whose ids are greater than `after`, or among `also`.

        None if there are many, which are read faster in another way.
        """
        found = self._read(newer_trials(study_id, also, after, self.unread))
        if len(found) == _FEW:
            return None
        return [trial for trial in found if states is None or trial.state in states]

    def _read(self, asked: Question) -> list[FrozenTrial]:
        return [_trial(*row) for row in self._ask(asked) if row[0] is not None]


def newer_trials(study_id: int, also: Iterable[int], after: int, unread: Iterable[str] = ()) -> Question:
    """Return the question for the first trials of a study whose ids are greater than `after`, or among `also`.

    They come without the system attributes whose keys are `unread`.
    """
    chosen, keys = _TRIALS + _OF_STUDY.format(_NEWER), tuple(sorted(unread))
    return question(chosen, study=study_id, after=after, also=tuple(sorted(also)), few=_FEW, unread=keys)


def attrs_of_study(study_id: int) -> tuple[Question, Question]:
    """Return the questions for the user and the system attributes of a study."""
    user, system = (_ATTRS.format(table) for table in ("study_user_attributes", "study_system_attributes"))
    return question(user, study=study_id), question(system, study=study_id)


def _read_attrs(rows: Rows) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in rows if key is not None}


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
        datetime_start=times.local(start),
        datetime_complete=times.local(complete),
        params={name: distributions[name].to_external_repr(float(value)) for name, value, _ in params or ()},
        distributions=distributions,
        user_attrs={key: json.loads(value) for key, value in (user_attrs or {}).items()},
        system_attrs={key: json.loads(value) for key, value in (system_attrs or {}).items()},
        intermediate_values={step: read_step(_number(value), kind) for step, value, kind in curve or ()},
        trial_id=trial_id,
    )


def _enqueue(
    database: Connection, study_id: int, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], *then: str
) -> None:
    """Queue trials with these parameters and user attributes in one journey, with the statements that come `then`."""
    rows = [{"user": _stored(attrs), "system": _stored({FIXED_PARAMS: dict(params)})} for params, attrs in trials]
    if rows:
        queueing = filled(database, _ENQUEUE, {"study": study_id, "trials": json.dumps(rows)})
        ask_at_once(database, row_of_study(database, study_id), queueing, *then)


def _number(stored: str | None) -> float | None:
    return None if stored is None else float(stored)


def _stored(attrs: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in attrs.items()}
