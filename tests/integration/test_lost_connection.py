"""A connection to PostgreSQL that is lost at any query of a search, or after a write before its answer."""

import os
import socket
from contextlib import contextmanager

import pytest
import sqlalchemy
from command_line import call
from searches import SAMPLED_ONLY, Scripted, Watch, file_of
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from test_workers import check, record, worker_of

from face3d_tune.storage.few_round_trips import only_reads

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the way to the server is a socket of Unix")
RANDOM = SAMPLED_ONLY.replace('"tpe"', '"random"').replace("n_startup_trials = 2", "")


class Losses:
    """Loses the connection at the `due`-th query, or after the `due`-th write, since `begin`."""

    def __init__(self, kind):
        self.kind, self.seen, self.due, self.lost = kind, 0, 0, 0

    def begin(self, due):
        self.seen, self.due = 0, due

    def query(self, connection, cursor, *_):
        if self.kind == "query" and self._is_due():
            sever(cursor.connection)

    def written(self, cursor, statement):
        if self.kind == "write" and not only_reads(statement) and self._is_due():
            sever(cursor.connection)
            cursor.connection.execute("select 'the answer'")

    def _is_due(self):
        self.seen += 1
        self.lost += self.seen == self.due
        return self.seen == self.due


def sever(connection):
    """Cut the way to a server that is well."""
    with socket.socket(fileno=os.dup(connection.fileno())) as way:
        way.shutdown(socket.SHUT_RDWR)


@contextmanager
def losses(kind, monkeypatch):
    """Whatever engine is made: its connections are lost as asked for."""
    lose = Losses(kind)

    def losing(execute):
        def do(self, cursor, statement, *arguments, **named):
            execute(self, cursor, statement, *arguments, **named)
            lose.written(cursor, statement)

        return do

    for way in ("do_execute", "do_execute_no_params"):
        monkeypatch.setattr(PGDialect_psycopg, way, losing(getattr(PGDialect_psycopg, way)))
    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.0, 0.0))
    monkeypatch.setattr("face3d_tune.search.trial_loop._REST", 0.01)
    monkeypatch.setattr("face3d_tune.storage.answers._GOOD", -1)  # every question is asked
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", lose.query)
    try:
        yield lose
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "before_cursor_execute", lose.query)


@pytest.mark.parametrize(("kind", "times"), [("query", 8), ("write", 5)])
def test_a_search_whose_connection_is_lost_once_in_every_trial_goes_on(
    postgres_url, tmp_path, data, monkeypatch, kind, times
):
    """In the first trial at the first step, in the next ones further on: nothing doubled, and the exact total."""
    watch = Watch()
    with (
        losses(kind, monkeypatch) as lose,
        worker_of(postgres_url, file_of(tmp_path, RANDOM), data) as search,
    ):
        record(search.queue.engine)

        def ended(trial):
            if lose.seen < lose.due:  # no trial has so many steps
                search.queue.budget = search.finished()
            lose.begin(lose.due + 1)

        watch.trial_ended = ended
        lose.begin(1)
        search.run(100, watch, slots=Scripted(1, lambda task, number: (0.1, "finished")))
        assert lose.lost >= times
        check(search, search.queue.budget)


@pytest.mark.parametrize(
    ("kind", "step"),
    [*(("query", step) for step in range(3, 45, 7)), *(("write", step) for step in range(1, 12, 2))],
)
def test_a_run_that_loses_its_connection_at_the_start_goes_on(
    postgres_url, tmp_path, data_folder, monkeypatch, kind, step
):
    path = file_of(tmp_path, RANDOM).path
    words = ("--data-dir", data_folder, "--storage", postgres_url, "--trials", 1, "--epochs", 1)
    monkeypatch.setattr("face3d_tune.storage.database._LOST_AT_THE_START", (0.0,))
    with losses(kind, monkeypatch) as lose:
        lose.begin(step)
        ended = call("run", "--study", path, *words, "--device", "cpu", "--slots", 1, cwd=tmp_path)
        assert (lose.lost, ended.code) == (1, 0), ended.err
        assert "psycopg" not in ended.err.replace("postgresql+psycopg", "")
    assert "1 of 1 trials finished" in ended.err
