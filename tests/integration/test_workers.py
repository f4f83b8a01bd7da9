"""Several workers on one study, on a real PostgreSQL: they share it, miss the dead, and outlast an absent server.

A worker here is a search in a thread with connections of its own; its slots only pretend to train.
"""

import os
import re
import sqlite3
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress

import doomed
import optuna
import psycopg
import pytest
import sqlalchemy
from changes import read, record, violations
from fake_data import write_data
from optuna.trial import TrialState
from searches import CPU, DISTINCT, Scripted, Watch, open_search, states
from sqlalchemy.exc import ProgrammingError

from face3d_tune import __version__
from face3d_tune.data import face_data
from face3d_tune.errors import StorageAwayError, StudyError
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.database import Storage
from face3d_tune.storage.server_lock import _LOCK_KEY
from face3d_tune.storage.workers import Heartbeat, Worker, read_workers
from face3d_tune.study.settings import Settings
from face3d_tune.study.trials import FINISHED

PATIENCE = 120.0  # seconds after which something that should have happened has not
SLACK = 8.0  # seconds that a busy machine may take


@contextmanager
def worker_of(url, file, data, **options):
    """One more worker of the study "quick", with connections of its own."""
    with Storage.parse(url).opened(create=True) as opened:
        yield open_search(opened, "quick", file, Settings("keypoint", 2, None), Setup(data, CPU, "off"), **options)


def beat_often(search):
    """Let a worker that may be silent for long, as on a busy machine, send heartbeats and look around several times."""
    search.worker.interval = 0.2


@contextmanager
def at_work(search, trials, slots, watch):
    """Let a search run beside the block; it must then end by itself, and without an error."""
    errors = []

    def run():
        try:
            search.run(trials, watch, slots=slots)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def lasting(seconds, epochs=2):
    """A training of so many epochs that take so long."""

    def play(task, number):
        time.sleep(seconds)
        return 0.01 * number, "finished" if number == epochs else None

    return play


def until(condition):
    give_up = time.monotonic() + PATIENCE
    while not (given := condition()):
        assert time.monotonic() < give_up, "this never happened"
        time.sleep(0.01)
    return given


def check(search, total):
    """The study ended as it should, and everything on the way was as it may be."""
    assert search.finished() == total
    assert violations(read(search.queue.engine), search.study.trials, total) == []


class LockOfEach:
    """Instead of the one lock of a process: a lock of each worker, so that the server must keep them apart."""

    def __init__(self):
        self.locks = defaultdict(threading.RLock)

    def __enter__(self):
        self.locks[id(sys._getframe(1).f_locals["engine"])].acquire()

    def __exit__(self, *_):
        self.locks[id(sys._getframe(1).f_locals["engine"])].release()


def executed(engine, statement, **values):
    with engine.begin() as database:
        return database.execute(sqlalchemy.text(statement), values)


@pytest.mark.parametrize("total", [7, 2])
def test_workers_that_start_at_once_on_a_new_study_do_exactly_what_was_asked_for(
    postgres_url, quick, data, monkeypatch, total
):
    monkeypatch.setattr("face3d_tune.storage.server_lock._in_this_process", LockOfEach())
    opened, errors = [], []
    everyone = threading.Barrier(3, action=lambda: record(opened[0].queue.engine), timeout=PATIENCE)

    def work():
        try:
            with worker_of(postgres_url, quick, data) as search:
                beat_often(search)
                opened.append(search)
                everyone.wait()
                search.enqueue_presets()
                search.run(total, Watch(), slots=Scripted(1, lasting(0.05)))
        except BaseException as error:
            errors.append(error)
            everyone.abort()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    assert errors == []
    with worker_of(postgres_url, quick, data) as search:
        check(search, total)
        trials = search.study.trials
        assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.WAITING}
        presets = Counter(trial.user_attrs.get("preset") for trial in trials)
        assert {name: presets[name] for name in DISTINCT} == dict.fromkeys(DISTINCT, 1)
        assert len(trials) == max(total, len(DISTINCT))
        assert read_workers(search.queue.engine, search.study._study_id) == []


def test_a_dead_worker_is_missed_in_time_even_by_one_that_is_busy_in_a_long_epoch(postgres_url, quick, data):
    silence, total = 1.0, 5
    in_epoch, epoch_over, missed = threading.Event(), threading.Event(), []

    def play(task, number):
        if not in_epoch.is_set():
            in_epoch.set()
            until(lambda: missed)
            epoch_over.set()
        return 0.1, "finished" if number == 2 else None

    watch = Watch()
    watch.note = lambda line: missed.append((line, time.monotonic(), epoch_over.is_set()))
    with (
        worker_of(postgres_url, quick, data, silence=silence) as living,
        worker_of(postgres_url, quick, data, silence=silence) as dying,
    ):
        record(living.queue.engine)
        living.enqueue_presets()
        with at_work(living, total, Scripted(1, play), watch):
            assert in_epoch.wait(PATIENCE)
            last_sign = time.monotonic()
            dying.worker.beat()
            dying.queue.budget = total
            number = dying.queue.ask().number
        ((line, when, too_late),) = missed
        assert (number, too_late) == (1, False)
        assert silence < when - last_sign < silence + silence / 6 + SLACK
        trials = living.study.trials
        assert trials[1].state == TrialState.FAIL
        who = re.escape(dying.worker.label.replace(":", ", process "))
        reason = trials[1].user_attrs["error"]
        assert re.fullmatch(rf"no heartbeat from its worker for \d+ s \({who}\)", reason)
        assert line == f"trial 1 was left running: {reason}"
        (again,) = [trial for trial in trials if trial.user_attrs.get("retry_of") == 1]
        assert (again.state, again.user_attrs["preset"]) == (TrialState.COMPLETE, DISTINCT[1])
        assert (again.params, again.user_attrs["deaths"]) == (trials[1].system_attrs["fixed_params"], 1)
        check(living, total)


def test_a_trial_that_runs_and_that_nobody_claims_is_taken_back_at_the_next_ask(postgres_url, quick, data):
    with (
        worker_of(postgres_url, quick, data) as died_at_once,
        worker_of(postgres_url, quick, data) as search,
    ):
        search.enqueue_presets()
        search.worker.beat()
        with Heartbeat(search.worker, lambda: None, pytest.fail):
            assert died_at_once.study.ask().number == 0
            search.queue.budget = 5
            assert search.queue.ask().number == 1
            stray, again = search.study.trials[0], search.study.trials[-1]
            assert (stray.state, stray.user_attrs["error"]) == (TrialState.FAIL, "no worker claims it")
            assert (again.state, again.user_attrs["retry_of"]) == (TrialState.WAITING, 0)
            assert states(search.study).count("RUNNING") == 1


@pytest.mark.parametrize("last", [False, True], ids=["before an epoch", "before its last epoch"])
def test_a_worker_that_only_slept_loses_its_trial_and_goes_on(postgres_url, quick, data, last):
    total = 5
    asleep, woken = threading.Event(), threading.Event()
    with (
        worker_of(postgres_url, quick, data, silence=1.0) as sleeper,
        worker_of(postgres_url, quick, data) as other,
    ):
        beat_often(other)

        def play(task, number):
            time.sleep(0.05)
            if number == 3 and not asleep.is_set():
                sleeper.worker.beat = lambda: None
                asleep.set()
                assert woken.wait(PATIENCE)
                del sleeper.worker.beat
            return 0.1, "finished" if number == (3 if last else 6) else None

        def note(line):
            others.notes.append(line)
            if "left running" in line:  # from now on a busy machine may be silent, too
                executed(other.queue.engine, "update face3d_tune_workers set silence = 60")
                woken.set()

        slept, others = Watch(), Watch()
        others.note = note
        record(sleeper.queue.engine)
        sleeper.enqueue_presets()
        with at_work(sleeper, total, Scripted(1, play), slept):
            assert asleep.wait(PATIENCE)
            with at_work(other, total, Scripted(1, lasting(0.1, epochs=4)), others):
                pass
        assert (slept.lost, others.lost) == ([0], [])
        assert (slept.notes, slept.reasons) == ([], ["reassigned to another worker: no heartbeat from this one"])
        (line,) = others.notes
        assert line.startswith("trial 0 was left running: no heartbeat from its worker for ")  # it only sleeps
        assert len(slept.ended) >= 1  # it went on with others
        assert [trial.number for trial in other.study.trials if trial.state == TrialState.FAIL] == [0]
        check(other, total)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
@pytest.mark.parametrize("hours", [24, -24])
def test_a_worker_whose_clock_is_wrong_changes_nothing(postgres_url, quick, quick_study, data, data_folder, hours):
    total, watch, begun = 5, Watch(), threading.Event()
    words = ("run", "--study", quick_study, "--data-dir", data_folder, "--storage", postgres_url, "--device", "cpu")
    words = (*words, "--slots", 1, "--trials", total, "--worker-timeout", "20s")

    def play(task, number):
        begun.set()
        until(lambda: states(search.study).count("COMPLETE") == total - 1)  # those of the other one
        return lasting(0.1)(task, number)

    with worker_of(postgres_url, quick, data, silence=20.0) as search:
        beat_often(search)
        record(search.queue.engine)
        search.enqueue_presets()
        with at_work(search, total, Scripted(1, play), watch):
            assert begun.wait(PATIENCE)
            assert doomed.run(*words, clock=3600 * hours) == 0
        assert (watch.lost, watch.notes) == ([], [])
        assert states(search.study) == ["COMPLETE"] * total
        assert len({trial.user_attrs["worker"] for trial in search.study.trials}) == 2
        check(search, total)


@pytest.fixture
def short_pauses(monkeypatch):
    """Let a worker ask a server that is away again at least five times a second."""
    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.1, 0.2))


@contextmanager
def stopped(server, url):
    server.stop()
    try:
        yield "the storage does not answer ("
    finally:
        server.start()


@contextmanager
def read_only(server, url):
    server.psql("alter system set default_transaction_read_only = on;")
    server.psql("select pg_reload_conf();")
    try:
        yield "the storage does not answer (cannot execute "
    finally:
        server.psql("alter system reset default_transaction_read_only;")
        server.psql("select pg_reload_conf();")


@contextmanager
def full(server, url):
    """Everyone's connections end, and others take all that there are; they leave them at one moment."""
    hold, name = [psycopg.connect(server.get_uri("postgres"), autocommit=True)], sqlalchemy.make_url(url).database

    def count(what, whose):
        return hold[0].execute(f"select count({what}) from pg_stat_activity where datname = '{whose}'").fetchone()[0]

    def take_all():  # an ended connection may leave its place a moment later
        ended, held = count("pg_terminate_backend(pid)", name), len(hold)
        with suppress(psycopg.OperationalError):
            while True:
                hold.append(psycopg.connect(server.get_uri("postgres"), autocommit=True))
        return not ended and len(hold) == held

    hold[0].execute(f"alter database {name} allow_connections false")  # nobody of ours may have a place meanwhile
    until(take_all)
    hold[0].execute(f"alter database {name} allow_connections true")
    try:
        yield "the storage does not answer ("
    finally:
        hold[0].execute(f"alter database {name} allow_connections false")
        for connection in hold[1:]:
            connection.close()
        until(lambda: count("*", "postgres") == 1)  # a worker needs two at once
        hold[0].execute(f"alter database {name} allow_connections true")
        hold[0].close()


@pytest.mark.parametrize("absence", [stopped, read_only, full], ids=lambda absence: absence.__name__)
def test_nothing_is_lost_while_the_database_is_away_for_longer_than_a_worker_may_be_silent(
    own_server, quick, data, absence, short_pauses
):
    url, total = own_server.new_database(), 2
    watches, slots = (Watch(), Watch()), [Scripted(1, lasting(0.05, epochs=45)) for _ in range(2)]
    with (
        worker_of(url, quick, data, silence=3.0) as first,
        worker_of(url, quick, data, silence=3.0) as second,
    ):
        record(first.queue.engine)
        first.enqueue_presets()
        with at_work(first, total, slots[0], watches[0]), at_work(second, total, slots[1], watches[1]):
            until(lambda: all(max(scripted.epochs.values(), default=0) >= 3 for scripted in slots))
            with absence(own_server, url) as reason:
                time.sleep(4.0)
        for watch in watches:
            assert watch.lost == []
            gone, back = watch.notes
            assert gone.startswith(reason)
            assert gone.endswith("; training continues, and its results wait here")
            assert back.startswith("the storage answers again after ")
        assert states(first.study) == ["COMPLETE"] * 2 + ["WAITING"] * 2
        for trial in first.study.trials[:2]:
            steps = executed(
                first.queue.engine,
                "select step from trial_intermediate_values where trial_id = :trial "
                "order by trial_intermediate_value_id",
                trial=trial._trial_id,
            )
            assert [step for (step,) in steps] == list(range(1, 46))
        check(first, total)


def test_a_server_that_stays_away_ends_the_search_and_the_next_worker_takes_over(own_server, quick, data, short_pauses):
    url, total, watch, slots = own_server.new_database(), 3, Watch(), Scripted(2, lasting(0.05, epochs=1000))
    with worker_of(url, quick, data, silence=1.0, storage_timeout=1.0) as search:
        record(search.queue.engine)
        search.enqueue_presets()
        away = pytest.raises(StorageAwayError, match=r"^the storage did not answer for \d+ s: connection ")
        with away, at_work(search, total, slots, watch):
            until(lambda: slots.epochs.get(1, 0) >= 3)
            own_server.stop()
        own_server.start()
    assert slots.saves is True
    (gone,) = watch.notes
    assert gone.startswith("the storage does not answer (")
    with worker_of(url, quick, data, silence=1.0) as search:
        search.run(total, Watch(), slots=Scripted(2, lasting(0.02)))
        finished = [trial for trial in search.study.trials if trial.state in FINISHED]
        # The two presets that had waited come first, then one of those that were in training.
        assert sorted(trial.user_attrs.get("deaths", 0) for trial in finished) == [0, 0, 1]
        assert states(search.study)[:2] == ["FAIL", "FAIL"]
        check(search, total)


def test_a_worker_that_searches_has_two_connections_and_never_more(postgres_url, quick, data):
    seen, over = {"opening": [], "searching": []}, threading.Event()
    elsewhere = sqlalchemy.make_url(postgres_url)
    ours = f"datname = '{elsewhere.database}' and backend_type = 'client backend'"  # not the server's own cleaning
    count = f"select count(*) from pg_stat_activity where {ours}"
    elsewhere = elsewhere.set(database="postgres").render_as_string(hide_password=False)

    doing = "opening"

    def play(task, number):
        if (task.number, number) == (11, 5):
            until(lambda: len(seen["searching"]) > 100)
        return lasting(0.02, epochs=5)(task, number)

    def sample():
        with psycopg.connect(elsewhere, autocommit=True) as connection:
            while not over.is_set():
                seen[doing].append(connection.execute(count).fetchone()[0])
                time.sleep(0.003)  # or it takes half of the processor from the search

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        with worker_of(postgres_url, quick, data, silence=0.6) as search:
            search.enqueue_presets()
            until(lambda: max(seen["opening"][-30:]) <= 2)  # the connection of the opening is closed
            doing = "searching"
            search.run(12, Watch(), slots=Scripted(3, play))
    finally:
        over.set()
        sampler.join(PATIENCE)
    assert max(seen["searching"]) == 2
    assert max(seen["opening"]) <= 3  # while the tables are made, under a lock of another connection


def test_a_worker_with_other_data_may_not_join(postgres_url, quick, data, tmp_path):
    with (
        worker_of(postgres_url, quick, data) as search,
        pytest.raises(StudyError, match="was made on other data"),
        worker_of(postgres_url, quick, face_data.load(write_data(tmp_path / "other", seed=1))),
    ):
        pytest.fail("it joined")
    assert search.study.trials == []


def test_a_worker_of_another_version_may_not_join_a_living_one_but_may_follow_a_dead_one(postgres_url, quick, data):
    with worker_of(postgres_url, quick, data) as search:
        executed(
            search.queue.engine,
            "insert into face3d_tune_workers select 'old', :study, 'elsewhere', 1, '0.0.1', now, now, 60.0 "
            "from extract(epoch from clock_timestamp()) as now",
            study=search.study._study_id,
        )
    reason = f"^a worker of this study on elsewhere is face3d-tune 0.0.1, this is {__version__}$"
    with pytest.raises(StudyError, match=reason), worker_of(postgres_url, quick, data):
        pytest.fail("it joined")
    with Storage.parse(postgres_url).opened() as opened:
        executed(opened.engine, "update face3d_tune_workers set seen = seen - 61")
    with worker_of(postgres_url, quick, data) as search:
        search.run(1, Watch(), slots=Scripted(1, lasting(0)))
        assert search.finished() == 1


def test_the_first_worker_makes_its_tables_where_only_optuna_made_the_others(postgres_tables_url):
    with Storage.parse(postgres_tables_url).opened() as opened:
        study = optuna.create_study(storage=opened)
        executed(opened.engine, "drop table face3d_tune_workers, face3d_tune_claims")
        worker = Worker(opened.engine, study._study_id, alone=False)
        worker.beat()
        assert [row.alive for row in read_workers(opened.engine, study._study_id)] == [True]


def test_an_error_of_a_heartbeat_is_said_once_and_the_heartbeats_go_on(sqlite):
    worker = Worker(sqlite.engine, optuna.create_study(storage=sqlite)._study_id, silence=0.06, alone=True)
    looks, notes = [], []

    def look():
        looks.append(len(looks))
        raise ValueError("a bug")

    with Heartbeat(worker, look, notes.append):
        until(lambda: len(looks) > 2)
    assert notes == ["no heartbeat: ValueError: a bug"]


def test_a_worker_that_cannot_leave_although_the_database_is_there_says_why(postgres_tables_url):
    with Storage.parse(postgres_tables_url).connected() as engine:
        worker = Worker(engine, 1, alone=False)
        with (
            pytest.raises(ProgrammingError, match="face3d_tune_workers"),
            Heartbeat(worker, lambda: None, lambda line: None),
        ):
            executed(engine, "drop table face3d_tune_workers")


def test_while_someone_else_asks_for_a_trial_it_only_comes_later(postgres_url, quick, data):
    with worker_of(postgres_url, quick, data) as search, psycopg.connect(postgres_url) as someone:
        search.worker.beat()
        search.queue.budget = 1
        someone.execute("select pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        began = time.monotonic()
        letting_go = threading.Timer(0.3, someone.rollback)
        letting_go.start()
        assert search.queue.ask().number == 0
        assert 0.2 < time.monotonic() - began < 0.3 + SLACK
        letting_go.join()


def test_a_search_waits_for_whoever_holds_the_sqlite_file(sqlite_url, quick, data):
    watch, holding = Watch(), []
    someone = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)

    def epoch_ended(number, result):
        if not holding:
            someone.execute("begin exclusive")
            holding.append(time.monotonic())
            threading.Timer(1.5, someone.rollback).start()

    watch.epoch_ended = epoch_ended
    with worker_of(sqlite_url, quick, data, silence=0.6) as search:
        search.enqueue_presets()
        search.run(4, watch, slots=Scripted(2, lasting(0.02)))
        assert time.monotonic() - holding[0] > 1.4
        assert (watch.lost, watch.notes) == ([], [])
        assert states(search.study) == ["COMPLETE"] * 4
        assert all(trial.intermediate_values.keys() == {1, 2} for trial in search.study.trials)
    someone.close()
