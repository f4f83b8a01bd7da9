"""A database that is away is tried again, at longer and longer intervals, said once, and given up after a while."""

from types import SimpleNamespace

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from face3d_tune.errors import StorageAwayError
from face3d_tune.search import run_search
from face3d_tune.storage import retry as outage_module
from face3d_tune.storage.database import Storage
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.retry import DatabaseRetry

GONE = OperationalError("select 1", {}, Exception("connection refused\nis the server running?"))


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(outage_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def fail():
    raise GONE


def wrapped(cause):
    error = StorageInternalError("something else")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError, InternalError])
def test_what_drivers_say_when_they_lose_a_database_is_an_absence_also_in_optunas_wrapping(kind):
    error = kind("select 1", {}, Exception("gone"))
    assert is_away(error)
    assert is_away(wrapped(error))
    assert is_away(PoolTimeout("no connection free"))


def test_what_optuna_and_libpq_make_of_a_lost_connection_is_an_absence_too():
    assert is_away(wrapped(PendingRollbackError("can't reconnect until the invalid transaction is rolled back")))
    assert is_away(DatabaseError("select 1", {}, Exception("an answer that is cut in half")))


@pytest.mark.parametrize("kind", [IntegrityError, ProgrammingError])
def test_a_wrong_question_is_no_absence(kind):
    error = kind("select 1", {}, Exception("wrong"))
    assert not is_away(error)
    assert not is_away(wrapped(error))
    assert not is_away(ValueError("connection refused"))


def test_an_attempt_gives_what_the_action_gives_and_passes_on_what_is_no_absence(clock):
    notes = []
    database_retry = DatabaseRetry(60, notes.append)
    assert database_retry.attempt(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        database_retry.attempt(lambda: 1 / 0)
    assert notes == []


def test_an_absence_is_said_once_tried_again_after_doubling_pauses_and_its_end_is_said(clock):
    notes, asked = [], []

    def action():
        asked.append(clock.now - 1000)
        fail()

    database_retry = DatabaseRetry(600, notes.append)
    while clock.now < 1030:
        assert database_retry.attempt(action) is None
        clock.now += 0.25
    assert asked == [0.0, 0.5, 1.5, 3.5, 7.5, 12.5, 17.5, 22.5, 27.5]
    assert notes == ["the storage does not answer (connection refused); training continues, and its results wait here"]
    clock.now = 1040.0
    assert database_retry.attempt(lambda: "back") == "back"
    assert notes[1:] == ["the storage answers again after 40 s"]
    assert database_retry.pause == 0


def test_after_the_timeout_it_is_given_up_with_the_reason_and_what_to_do(clock):
    database_retry = DatabaseRetry(60, lambda line: None)
    database_retry.attempt(fail)
    clock.now += 60
    assert database_retry.attempt(fail) is None
    clock.now += 5
    with pytest.raises(StorageAwayError, match=r"^the storage did not answer for 65 s: connection refused$") as raised:
        database_retry.attempt(fail)
    assert raised.value.exit_code == 1
    assert "run the same command again" in raised.value.hint


def test_a_short_return_starts_the_count_anew(clock):
    database_retry = DatabaseRetry(60, lambda line: None)
    for _ in range(3):
        database_retry.attempt(fail)
        clock.now += 50
        assert database_retry.attempt(lambda: True)
        clock.now += 1


def test_an_answer_in_between_begins_the_count_anew_on_a_server(clock, postgres_url):
    engine = sqlalchemy.create_engine(Storage.parse(postgres_url).url)
    database_retry = DatabaseRetry(60, lambda line: None).watch(engine)
    with engine.begin() as database:
        database.execute(sqlalchemy.text("create table answers (n integer)"))
    database_retry.attempt(fail)
    clock.now += 50
    with engine.begin() as database:
        database.execute(sqlalchemy.text("insert into answers values (1)"))
    clock.now += 50
    assert database_retry.attempt(fail) is None
    with engine.begin() as database:
        database.execute(sqlalchemy.text("select * from answers"))  # as a server that is read-only answers
    clock.now += 15
    with pytest.raises(StorageAwayError, match=r"^the storage did not answer for 65 s: "):
        database_retry.attempt(fail)
    engine.dispose()


def test_where_an_interrupted_search_stands_is_not_said_while_the_database_is_away_and_any_other_error_is():
    def of(error):
        def interrupted(opened):
            raise error

        return SimpleNamespace(interrupted=interrupted)

    run_search._tell_interrupted(of(GONE), None)
    with pytest.raises(ZeroDivisionError):
        run_search._tell_interrupted(of(ZeroDivisionError()), None)
