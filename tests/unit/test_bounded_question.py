"""A storage that is locked or silent while visitors ask: they are told soon, and no thread waits."""

import sqlite3
import threading
import time

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError

from face3d_tune.dashboard import bounded_question
from face3d_tune.dashboard.bounded_question import BoundedQuestion
from face3d_tune.errors import StorageError
from face3d_tune.storage import brief_waits
from face3d_tune.storage.brief_waits import wait_briefly
from face3d_tune.storage.database import Storage
from face3d_tune.storage.failures import is_away


class Slow:
    """A storage that answers with the number of the question when it is let."""

    def __init__(self):
        self.asked, self.may, self.began = 0, threading.Event(), threading.Event()

    def __call__(self):
        self.asked += 1
        number = self.asked
        self.began.set()
        self.may.wait(30)
        return number


def in_threads(number, ask):
    """What each of so many visitors is told: an answer or the type of an error."""
    told = []

    def visit():
        try:
            told.append(ask())
        except Exception as error:
            told.append(type(error))

    visitors = [threading.Thread(target=visit) for _ in range(number)]
    for visitor in visitors:
        visitor.start()
    return visitors, told


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_who_come_while_the_storage_answers_share_the_next_answer_which_begins_after_they_came():
    storage = Slow()
    ask = BoundedQuestion(storage)
    first, told_first = in_threads(1, ask)
    storage.began.wait(30)
    others, told = in_threads(20, ask)
    until(lambda: ask._next is not None)
    storage.may.set()
    for visitor in (*first, *others):
        visitor.join()
    assert told_first == [1]
    assert set(told) <= {2, 3}  # 3: of a visitor whose thread began late
    assert storage.asked <= 3


def test_a_storage_that_says_nothing_is_an_error_for_all_visitors_at_once_and_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(bounded_question, "_FIRST", 0.2)
    storage = Slow()
    ask = BoundedQuestion(storage)
    with pytest.raises(StorageError, match="does not answer"):
        ask()
    ask._limit, ask._asked.since = 60.0, ask._asked.since - 60.0  # as if the first had waited for a minute
    started = time.monotonic()
    visitors, told = in_threads(20, ask)
    for visitor in visitors:
        visitor.join()
    assert told == [StorageError] * 20
    assert (storage.asked, time.monotonic() - started < 30) == (1, True)
    storage.may.set()
    until(lambda: ask._asked is None)
    assert ask() > 1  # as soon as it answers again


def test_an_error_that_took_long_is_repeated_for_as_long_and_a_quick_one_is_not(monkeypatch):
    monkeypatch.setattr(bounded_question, "_LONG", 0.05)
    pauses, asked = [0.0, 0.0, 0.2, 0.0], []

    def fail():
        asked.append(1)
        time.sleep(pauses[len(asked) - 1])
        raise ConnectionError

    ask = BoundedQuestion(fail)
    for calls in (1, 2, 3, 3):
        with pytest.raises(ConnectionError):
            ask()
        assert len(asked) == calls
    until(lambda: ask._failed[0] < time.monotonic())
    with pytest.raises(ConnectionError):
        ask()
    assert len(asked) == 4


def test_a_storage_far_away_is_given_four_times_what_its_last_answer_took(monkeypatch):
    monkeypatch.setattr(bounded_question, "PATIENCE", 0.01)
    pauses = iter((0.3, 0.6))
    ask = BoundedQuestion(lambda: time.sleep(next(pauses)))
    ask()
    ask()  # twice the last answer, and sixty times `PATIENCE`


def test_a_query_of_a_locked_sqlite_file_fails_after_a_second_and_not_after_a_minute(sqlite, sqlite_url, monkeypatch):
    monkeypatch.setattr("face3d_tune.storage.sqlite_file._LOOK_EVERY", 0.1)
    monkeypatch.setattr(brief_waits, "_LOCKED", 0.1)
    wait_briefly(sqlite)
    other = sqlite3.connect(Storage.parse(sqlite_url).sqlite_file)
    try:
        other.execute("begin exclusive")
        with pytest.raises(StorageInternalError) as error:
            optuna.get_all_study_names(sqlite)
    finally:
        other.close()
    assert (is_away(error.value), "locked" in str(error.value.__cause__)) == (True, True)
    assert optuna.get_all_study_names(sqlite) == []


def test_a_query_of_a_locked_table_of_postgresql_fails_too(postgres_url, monkeypatch):
    monkeypatch.setattr(brief_waits, "_LOCKED", 0.2)
    with Storage.parse(postgres_url).opened(create=True) as opened, Storage.parse(postgres_url).connected() as engine:
        wait_briefly(opened)
        with engine.connect() as other:
            other.execute(sqlalchemy.text("lock table studies in access exclusive mode"))
            started = time.monotonic()
            with pytest.raises(StorageInternalError) as error:
                optuna.get_all_study_names(opened)
            assert time.monotonic() - started < 12  # `bounded_psycopg.SILENCE` is longer
        assert (is_away(error.value), "lock timeout" in str(error.value.__cause__)) == (True, True)
        assert optuna.get_all_study_names(opened) == []
