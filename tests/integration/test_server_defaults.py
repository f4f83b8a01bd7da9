"""Servers whose defaults differ from what PostgreSQL brings, and other programs that write at the same moment."""

import math
import os
import threading
import time
from contextlib import contextmanager

import optuna
import psycopg
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from sqlalchemy import text

from face3d_tune.storage import claimed_trials
from face3d_tune.storage.answers import ask
from face3d_tune.storage.claimed_trials import Ended
from face3d_tune.storage.database import Storage
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.questions import question
from face3d_tune.storage.server_lock import _LOCK_KEY, one_at_a_time
from face3d_tune.storage.workers import Worker

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server's socket is a file of Unix")

NAME = "名 é 😀 %s %% :x \\ ' \" ; --"
COUNT = question("select count(*) from trials")
NEW = "insert into trials (study_id, state, number) select 1, 'COMPLETE', count(*) from trials"
ODD = {
    NAME: [NAME, '{"a",NULL}', "\\", "\n\0\ud800", "$1 $$", None, -0.0, math.inf, -math.inf],
    "": {},
    "null": None,
    "text": "NULL",
}


@pytest.fixture
def defaults(postgres_server, postgres_tables_url):
    """Sets defaults of the database, which every later connection has."""

    def set_them(name, value):
        database = sqlalchemy.make_url(postgres_tables_url).database
        postgres_server.psql(f"alter database {database} set {name} = {value};")
        return postgres_tables_url

    return set_them


@contextmanager
def started(url, action):
    """Start an action in a thread, and begin the block when it waits for a lock of the server; its end ends it."""
    errors = []

    def act():
        try:
            action()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=act)
    with psycopg.connect(url, autocommit=True) as looking:
        thread.start()
        ours = "pid in (select pid from pg_stat_activity where datname = current_database())"
        while not looking.execute(f"select 1 from pg_locks where not granted and {ours}").fetchone():
            assert thread.is_alive(), errors
            time.sleep(0.01)
    yield
    thread.join()
    assert errors == []


def take(storage, number=1, attrs=()):
    """Let a new trial run, as a worker of its own."""
    worker = Worker(storage.engine, number, alone=False)
    with one_at_a_time(storage.engine) as lock:
        return worker.take(lock, None, dict(attrs))


def requeue(storage, number):
    storage.requeue(number, 1, {"error": "x"}, [({"lr": 0.1}, {"a": 1}), ({"lr": 0.2}, {"a": 2})])


@pytest.mark.parametrize(
    "add",
    [take, lambda storage, number: storage.enqueue_trials(number, [({"lr": 0.1}, {}), ({"lr": 0.2}, {})]), requeue],
    ids=["take", "enqueue", "requeue"],
)
def test_trials_that_another_program_adds_meanwhile_have_numbers_of_their_own(postgres_tables_url, add):
    """Optuna numbers them while it has the row of the study; our request has arrived before and waits for the row."""
    with Storage.parse(postgres_tables_url).opened() as ours, psycopg.connect(postgres_tables_url) as theirs:
        study = optuna.create_study(study_name="both", storage=ours)
        study.ask()
        theirs.execute("select study_id from studies where study_id = 1 for update")
        with started(postgres_tables_url, lambda: add(ours, study._study_id)):
            theirs.execute(NEW)
            theirs.commit()
        trials = ours.get_all_trials(study._study_id)
    assert [trial._trial_id for trial in trials] == [1, 2, 3, 4][: 3 if add is take else 4]
    assert [trial.number for trial in trials] == list(range(len(trials)))


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_under_the_lock_a_worker_sees_what_was_stored_while_it_waited(defaults, level):
    url = defaults("default_transaction_isolation", f"'{level}'")
    counted = []
    with Storage.parse(url).opened() as ours, psycopg.connect(url) as theirs:
        optuna.create_study(study_name="both", storage=ours)
        worker = Worker(ours.engine, 1, alone=False)

        def wait_and_take():
            with one_at_a_time(ours.engine, lambda: [COUNT]) as lock:
                counted.append(ask(ours.engine, COUNT)[0][0])
                counted.append(worker.take(lock, None, {}).number)

        theirs.execute(f"select pg_advisory_xact_lock({_LOCK_KEY})")
        assert theirs.execute("show transaction_isolation").fetchone() == (level,)
        with started(url, wait_and_take):
            theirs.execute(NEW)
            theirs.commit()
    assert counted == [1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client_encoding", "LATIN1"),
        ("client_encoding", "SQL_ASCII"),
        ("standard_conforming_strings", "off"),
        ("backslash_quote", "off"),
        ("datestyle", "'SQL, DMY'"),
        ("timezone", "'Asia/Tokyo'"),
        ("default_transaction_isolation", "serializable"),
    ],
)
def test_what_a_worker_stores_is_read_as_it_was_whatever_the_defaults_are(defaults, name, value):
    url = defaults(name, value)
    params = {"lr": 0.1 + 0.2, "kind": NAME}
    spaces = {"lr": FloatDistribution(0, 1), "kind": CategoricalDistribution(["b", NAME, None])}
    curve = {1: math.inf, 2: -math.inf, 3: -0.0, 4: 0.1 + 0.2, 5: 5e-324, 6: math.nan}
    with Storage.parse(url).opened() as ours, Storage.parse(url).opened() as theirs:
        optuna.create_study(study_name=NAME, storage=ours)
        ours.set_study_attrs(1, ODD, {"system": ODD})
        claim = take(ours, attrs=ODD)
        claimed_trials.store(ours.engine, claim, ODD, params, spaces, {"system": ODD})
        for step, each in curve.items():
            claimed_trials.report(ours.engine, claim, step, each, ODD)
        ended = Ended(TrialState.COMPLETE, -math.inf, ODD, {}, params, spaces, curve)
        claimed_trials.finish(ours.engine, claim, ended)
        ours.enqueue_trials(1, [(params, ODD)])
        read = optuna.load_study(study_name=NAME, storage=theirs)
        first, second = read.get_trials()
        assert read.study_name == NAME
        whole = [read.user_attrs, theirs.get_study_system_attrs(1)["system"]]
    assert (first.params, first.value) == (params, -math.inf)
    assert repr(sorted(first.intermediate_values.items())) == repr(sorted(curve.items()))
    for attrs in (*whole, first.user_attrs, first.system_attrs["system"], second.user_attrs):
        assert repr(sorted(attrs.items())) == repr(sorted(ODD.items()))
    assert second.system_attrs["fixed_params"] == params
    assert 0 <= (first.datetime_complete - first.datetime_start).total_seconds() < 600


def test_a_server_behind_a_pooler_is_asked_for_nothing_that_an_earlier_transaction_prepared(postgres_tables_url):
    """pgbouncer gives each transaction another connection to the server."""
    with Storage.parse(postgres_tables_url).opened() as storage, storage.engine.connect() as database:
        prepared = text("select count(*) from pg_prepared_statements where :a = :a")
        assert [database.execute(prepared, {"a": 1}).scalar_one() for _ in range(20)] == [0] * 20


def test_a_server_that_ends_each_connection_as_soon_as_it_is_made_is_away(postgres_server, postgres_tables_url):
    """One that shuts down does so: a search waits until it is back."""
    database = sqlalchemy.make_url(postgres_tables_url).database
    with Storage.parse(postgres_tables_url).opened() as storage:
        make = storage.engine.dialect.connect

        def end_all():
            postgres_server.psql(
                f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{database}';"
            )

        def make_and_end(*args, **options):
            made = make(*args, **options)
            end_all()
            return made

        end_all()
        storage.engine.dialect.connect = make_and_end
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            ask(storage.engine, COUNT)
        assert is_away(caught.value)
        storage.engine.dialect.connect = make
        assert ask(storage.engine, COUNT)[0][0] == 0
