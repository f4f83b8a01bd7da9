"""A server that acknowledges everything and says nothing, such as a tunnel whose far end is gone."""

import os
import time

import psycopg
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from proxy import Proxy
from searches import SAMPLED_ONLY, Scripted, Watch, file_of
from sqlalchemy.exc import OperationalError
from test_workers import check, record, worker_of

from face3d_tune.errors import StorageAwayError, StorageError
from face3d_tune.storage import bounded_psycopg, server_lock
from face3d_tune.storage.database import Storage
from face3d_tune.system import signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the server's socket is a file of Unix")
RANDOM = SAMPLED_ONLY.replace('"tpe"', '"random"').replace("n_startup_trials = 2", "")


@pytest.fixture
def proxy(postgres_url, monkeypatch):
    """A server that is waited for briefly once it is silent, and before that as long as a busy machine takes."""
    seconds = psycopg.connection.timeout_from_conninfo

    class Silent(set):
        def __ior__(self, ways):
            monkeypatch.setattr(bounded_psycopg, "SILENCE", 0.5)
            monkeypatch.setattr(psycopg.connection, "timeout_from_conninfo", lambda conninfo: 0.05 * seconds(conninfo))
            self.update(ways)
            return self

    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.05, 0.05))
    with Proxy(postgres_url) as proxy:
        proxy.silent = Silent()
        yield proxy


@pytest.mark.parametrize("way", ["to", "from"])
def test_a_search_says_that_the_server_is_silent_and_goes_on_when_it_speaks_again(proxy, tmp_path, data, way):
    watch = Watch()

    def play(task, number):
        if (task.number, number) == (1, 2):
            proxy.silent |= {way}
        if watch.notes:
            proxy.silent.clear()
        return 0.1, "finished" if number == 20 else None

    with worker_of(proxy.url, file_of(tmp_path, RANDOM), data) as search:
        record(search.queue.engine)
        search.run(3, watch, slots=Scripted(1, play))
        check(search, 3)
    assert watch.notes[0].startswith("the storage does not answer (")
    assert watch.notes[-1].startswith("the storage answers again")


def test_a_search_ends_after_the_storage_timeout_although_the_connection_stands(proxy, tmp_path, data):
    def play(task, number):
        if number == 2:
            proxy.silent |= {"to", "from"}
        return (0.1,)

    with (
        pytest.raises(StorageAwayError, match=r"^the storage did not answer for \d+ s: "),
        worker_of(proxy.url, file_of(tmp_path, RANDOM), data, storage_timeout=1.0) as search,
    ):
        search.run(3, Watch(), slots=Scripted(1, play))


def test_a_server_that_is_silent_at_once_is_an_error(proxy, monkeypatch):
    monkeypatch.setattr("face3d_tune.storage.database._LOST_AT_THE_START", ())
    proxy.silent |= {"from"}
    with pytest.raises(StorageError, match="cannot be reached: "), Storage.parse(proxy.url).opened(create=True):
        pass


def test_after_a_second_signal_a_silent_server_is_waited_for_no_longer(proxy, monkeypatch):
    with Storage.parse(proxy.url).opened(create=True) as opened, signals.handled(lambda *_: None):
        proxy.silent |= {"from"}
        monkeypatch.setattr(bounded_psycopg, "SILENCE", 600.0)
        monkeypatch.setattr(bounded_psycopg, "_HURRIED", 0.3)
        with pytest.raises(KeyboardInterrupt), signals.interrupt.held():  # noqa: PT012 - it waits for the block's end
            signals.interrupt.now()
            began = time.monotonic()
            with pytest.raises(StorageInternalError):
                opened.get_all_studies()
            assert time.monotonic() - began < 300


def test_who_waits_for_the_lock_of_another_worker_is_not_taken_for_one_whom_nobody_answers(postgres_url, monkeypatch):
    assert 1.4 * server_lock._LOCK_TRY < bounded_psycopg.SILENCE  # to each attempt the server answers in time
    attempts = []
    monkeypatch.setattr(server_lock, "_LOCK_TRY", 0.4)
    with Storage.parse(postgres_url).connected() as first, Storage.parse(postgres_url).connected() as second:
        with first.connect() as holder:
            holder.exec_driver_sql(f"select pg_advisory_xact_lock({server_lock._LOCK_KEY})")
            monkeypatch.setattr(server_lock, "_LOCK_WAIT", 1.0)
            sqlalchemy.event.listen(second, "before_cursor_execute", lambda *_: attempts.append(1))
            with pytest.raises(OperationalError, match="lock timeout"), server_lock.one_at_a_time(second):
                pass
            assert len(attempts) > 1
        with server_lock.one_at_a_time(second):
            pass
