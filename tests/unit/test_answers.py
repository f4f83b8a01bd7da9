"""Answers of a far server that are used again: only as long as they are good."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from unittest.mock import patch

import optuna
import pytest
from optuna.study import StudyDirection
from sqlalchemy import create_engine, text

from face3d_tune.storage.answers import Answers, answers_of, ask
from face3d_tune.storage.database import Storage
from face3d_tune.storage.far_storage import ALL_STUDIES
from face3d_tune.storage.questions import question
from face3d_tune.storage.server_lock import one_at_a_time

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server's socket is a file of Unix")

NAMES = question("select study_name from studies order by study_name")
TRIALS = question("select count(*) from trials")


@pytest.fixture
def engine(postgres_tables_url):
    with Storage.parse(postgres_tables_url).opened() as storage:
        yield storage.engine


@pytest.fixture
def theirs(postgres_tables_url):
    """The same database as another process has it."""
    with Storage.parse(postgres_tables_url).opened() as storage:
        yield storage.engine


def add(engine, name):
    with engine.begin() as database:
        database.execute(text("insert into studies (study_name) values (:name)"), {"name": name})


def names(engine):
    return [row[0] for row in ask(engine, NAMES)]


def test_an_answer_is_used_again_where_it_would_take_long(engine, theirs, far_server):
    assert names(engine) == []
    add(theirs, "one")
    assert names(engine) == []


def test_an_answer_is_used_again_for_no_longer_than_three_others_take(engine, theirs):
    assert names(engine) == []
    add(theirs, "one")
    time.sleep(0.01 + 3 * answers_of(engine)._trip)
    assert names(engine) == ["one"]


def test_a_study_that_was_not_there_is_looked_for_again(far_server, postgres_tables_url):
    """Another program may have created it a moment ago: an old answer must not end a command that names it."""
    with Storage.parse(postgres_tables_url).opened() as storage, Storage.parse(postgres_tables_url).opened() as theirs:
        assert storage.study_names() == []
        made = optuna.create_study(study_name="one", storage=theirs, direction="maximize")
        assert storage.study_names() == []  # the answer is still used where it says nothing about this study
        assert storage.get_study_id_from_name("one") == made._study_id
        another = optuna.create_study(study_name="two", storage=theirs, direction="maximize")
        assert storage.get_study_directions(another._study_id) == [StudyDirection.MAXIMIZE]


def test_under_the_lock_a_study_that_is_not_there_is_not_looked_for_again(far_server, postgres_tables_url):
    """Nobody else can create it meanwhile: a round trip would be wasted."""
    with (
        Storage.parse(postgres_tables_url).opened() as storage,
        one_at_a_time(storage.engine, lambda: [ALL_STUDIES]),
        patch.object(Answers, "_ask", side_effect=AssertionError),
        pytest.raises(KeyError),
    ):
        storage.get_study_id_from_name("one")


def test_what_this_process_writes_it_reads(engine, far_server):
    assert (names(engine), ask(engine, TRIALS)[0][0]) == ([], 0)
    add(engine, "one")
    assert names(engine) == ["one"]


def test_an_answer_that_was_under_way_during_a_write_is_not_kept(engine, far_server):
    answers = answers_of(engine)
    rows = type(NAMES).rows

    class Slow(type(NAMES)):
        def rows(self, database):
            found = rows(self, database)
            add(engine, "one")
            return found

    asked = Slow(NAMES.sql)
    assert answers.ask(asked) == []
    assert answers.known(asked) is None


def test_answers_that_came_with_the_lock_are_good_until_it_is_released(engine, theirs, near_server):
    with one_at_a_time(engine, lambda: [NAMES]):
        add(theirs, "by another program")
        assert names(engine) == []
        add(engine, "one")
        assert names(engine) == ["by another program", "one"]
    add(theirs, "two")
    assert "two" in names(engine)


def test_under_the_lock_no_answer_is_older_than_the_lock(engine, theirs, far_server):
    assert names(engine) == []
    add(theirs, "one")
    with one_at_a_time(engine):
        assert names(engine) == ["one"]


def test_the_questions_of_a_lock_are_answered_after_it_is_given(engine, theirs, near_server):
    with one_at_a_time(theirs) as lock:
        lock.execute(text("insert into studies (study_name) values ('under the lock')"))
        lock.commit()
    with one_at_a_time(engine, lambda: [NAMES]):
        assert names(engine) == ["under the lock"]


def test_what_is_asked_soon_comes_with_the_first_answer(engine, theirs, far_server):
    assert ask(engine, TRIALS, NAMES)[0][0] == 0
    add(theirs, "one")
    assert names(engine) == []


def test_a_question_that_does_not_last_is_always_asked(engine, theirs, far_server):
    now = question(NAMES.sql, lasting=False)
    assert ask(engine, now) == []
    add(theirs, "one")
    assert [tuple(row) for row in ask(engine, now)] == [("one",)]


def test_threads_that_ask_at_once_for_the_first_time_share_their_answers(engine, monkeypatch):
    """Else what one of them takes for an answer under the lock could be older than the lock."""
    fresh, make, meet = create_engine("sqlite://"), Answers.__init__, threading.Barrier(2, timeout=1.0)

    def slow(self, engine):
        with suppress(threading.BrokenBarrierError):
            meet.wait()
        make(self, engine)

    monkeypatch.setattr(Answers, "__init__", slow)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(answers_of, [fresh, fresh])
    assert first is second


def test_a_value_is_text_whatever_is_in_it(engine):
    name = "'; drop table studies; -- %s :x 名"
    add(engine, name)
    asked = question("select study_name from studies where study_name = :name", name=name)
    with engine.connect() as database:
        assert asked.rows(database) == [(name,)]
        assert database.execute(text("select 1")).scalar_one() == 1
    assert [list(map(tuple, rows)) for rows in answers_of(engine)._ask(asked, NAMES)] == [[(name,)], [(name,)]]


def test_a_text_in_a_statement_is_no_end_of_it(engine):
    with engine.connect() as database:
        assert database.execute(text("select '1 %; 2 %'")).scalar_one() == "1 %; 2 %"


@pytest.mark.parametrize("several", [True, False])
def test_a_transaction_has_all_rows_that_it_wrote_or_none(engine, near_server, several):
    rows = [{"name": "one"}, {"name": "two"}] if several else {"name": "one"}
    with engine.connect() as database:
        assert database.execute(text("select count(*) from studies")).scalar_one() == 0
        database.execute(text("insert into studies (study_name) values (:name)"), rows)
        database.rollback()
    assert names(engine) == []


def test_a_snapshot_is_one_although_it_only_reads(engine, theirs):
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as database:
        assert database.execute(text("select count(*) from studies")).scalar_one() == 0
        add(theirs, "one")
        assert database.execute(text("select count(*) from studies")).scalar_one() == 0
    assert names(engine) == ["one"]
