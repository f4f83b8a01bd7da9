"""`face3d-tune stop`: every worker of a study ends, and the next run goes on."""

import contextlib
import json
import math
import threading
from types import SimpleNamespace

import optuna
from command_line import call
from searches import SAMPLED_ONLY, Scripted, Watch, file_of, search_in, states
from stored_study import study_of

from face3d_tune.search import run_search
from face3d_tune.search.search_options import MessageOptions
from face3d_tune.search.stop import StopWatch, request_stop
from face3d_tune.search.telling import Telling
from face3d_tune.storage.database import Storage
from face3d_tune.storage.optuna_internals import change_study_attr
from face3d_tune.storage.workers import read_workers
from face3d_tune.system import signals

PATIENCE = 60.0  # seconds


def stop(place, url, *words):
    answer = call("stop", *words, cwd=place, FACE3D_TUNE_STORAGE=url)
    return answer.code, answer.out + answer.err


@contextlib.contextmanager
def workers_of(url, tmp_path, data, count):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Storage.parse(url).opened()) for _ in range(count)]
        file = file_of(tmp_path, SAMPLED_ONLY)
        yield [search_in(storage, file, data, epochs=9) for storage in opened]


def test_two_workers_on_postgresql_stop_after_their_epoch_and_the_next_run_goes_on(
    postgres_tables_url, tmp_path, data, near_server
):
    url, watches = postgres_tables_url, [Watch(), Watch()]
    both, heard, asked = threading.Barrier(2, timeout=PATIENCE), threading.Event(), []

    with workers_of(url, tmp_path, data, 2) as workers:

        def play(task, number):
            if number == 1 and not heard.is_set():
                both.wait()
                if task.number == 0:
                    asked.append(stop(tmp_path, url))
                    for worker in workers:
                        worker.stop._pace._next -= 10  # as if a second had passed
                    heard.set()
                heard.wait(PATIENCE)
            return 0.1, "finished" if number == 9 else None

        threads = [
            threading.Thread(target=worker.run, args=(2, watch), kwargs={"slots": Scripted(1, play)})
            for worker, watch in zip(workers, watches, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        ((code, said),) = asked
        assert (
            code,
            said.startswith("study 'quick': asked 2 worker(s) to stop after the epochs that they train: "),
        ) == (
            0,
            True,
        )
        assert [len(epochs) for watch in watches for epochs in watch.epochs.values()] == [2, 2]
        assert states(workers[0].study) == ["FAIL", "FAIL", "WAITING", "WAITING"]
        assert all("this worker stops after the epochs" in watch.notes[-1] for watch in watches)
        shown = call("status", "--json", cwd=tmp_path, FACE3D_TUNE_STORAGE=url)
        (held,) = json.loads(shown.out)["studies"]
        assert (held["stop"]["now"], held["stop"]["over"]) == (False, False)
    with workers_of(url, tmp_path, data, 1) as (again,):
        watch = Watch()
        again.run(2, watch, slots=Scripted(2, lambda task, number: (0.1, "finished")))
        assert again.finished() == 2
        assert watch.notes[0].endswith("; it goes on")
    assert "stopped by" not in call("status", cwd=tmp_path, FACE3D_TUNE_STORAGE=url).out


def test_a_stop_at_once_waits_for_no_further_epoch(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, epochs=9)
    watch = Watch()

    def play(task, number):
        request_stop(search.study, now=True)
        search.stop._pace._next -= 10
        return 0.1, None

    search.run(3, watch, slots=Scripted(1, play))
    assert len(watch.epochs[0]) == 1
    assert states(search.study) == ["FAIL", "WAITING"]
    error = search.study.trials[0].user_attrs["error"]
    assert error.startswith("stopped by ")
    assert watch.notes[-1] == f"{error}: this worker stops at once"


def test_a_stop_at_once_cuts_off_an_epoch_that_lasts(sqlite, tmp_path, data):
    """The heartbeat hears of it while the main thread waits."""
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, epochs=9)
    search.worker.interval = 0.05
    waiting = threading.Event()

    def play(task, number):
        request_stop(search.study, now=True)
        assert not waiting.wait(PATIENCE), "this waits until a signal ends it"
        raise AssertionError("no signal came")

    with signals.handled(lambda *_: signals.interrupt.now()):  # as `run` does; else a job in the background hears none
        search.run(3, Watch(), slots=Scripted(1, play))
    assert states(search.study) == ["FAIL", "WAITING"]


def test_a_search_whose_slots_are_still_opening_is_stopped_too(sqlite, sqlite_url, tmp_path, data):
    search, watch, asked = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, epochs=9), Watch(), []
    watch.shown = contextlib.nullcontext

    def slots(search):
        asked.append(stop(tmp_path, sqlite_url))
        search.stop._pace._next -= 10  # as if a second had passed
        opened = Scripted(1, lambda task, number: (0.1, "finished"))
        opened.close = lambda: None
        return opened

    prepared = SimpleNamespace(budget=2, storage=None, plan=None, stage=None, winners=None, wider=None, slots=slots)
    view = SimpleNamespace(opened=lambda _: watch, ended=lambda _: None, warning=watch.note)
    telling = Telling(MessageOptions(), watch.note)
    run_search._run(search, prepared, view, math.inf, telling)
    assert "asked 1 worker(s) to stop" in asked[0][1]
    assert watch.notes[-1].endswith("this worker stops after the epochs that it trains")
    assert (states(search.study), read_workers(sqlite.engine, search.study._study_id)) == ([], [])


def test_a_search_whose_slots_do_not_open_is_no_worker(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, epochs=9)
    search.worker.beat()
    with contextlib.suppress(MemoryError), search.worker.leaving_on_failure():
        assert len(read_workers(sqlite.engine, search.study._study_id)) == 1
        raise MemoryError
    assert read_workers(sqlite.engine, search.study._study_id) == []


def test_without_a_search_there_is_nothing_to_stop(sqlite, sqlite_url, tmp_path):
    study = study_of(storage=sqlite)
    assert stop(tmp_path, sqlite_url) == (0, "no search of study 'faces' runs: nothing to stop\n")
    assert "stop" not in optuna.load_study(study_name=study.study_name, storage=sqlite).user_attrs


def test_a_stop_that_is_asked_for_while_a_run_marks_the_one_before_is_obeyed(sqlite, monkeypatch):
    """The request arrives after the run has read the old one, before it has marked it as over."""
    study = study_of(storage=sqlite)
    request_stop(study, now=False)
    watch, notes, asked = StopWatch(study, sqlite.engine), [], []

    def at_this_moment(engine, study, key, change):
        def changed(stored):
            if not asked:
                asked.append(request_stop(study, now=True))
            return change(stored)

        return change_study_attr(engine, study, key, changed)

    monkeypatch.setattr("face3d_tune.search.stop.change_study_attr", at_this_moment)
    watch.begin(notes.append)
    assert (notes, watch.look()) == ([], asked[0])


def test_status_says_who_stopped_it(sqlite, sqlite_url, tmp_path):
    study = study_of(storage=sqlite)
    said = request_stop(study, now=False)
    assert f"         {said}\n" in call("status", cwd=tmp_path, FACE3D_TUNE_STORAGE=sqlite_url).out
