"""A search that is stopped, killed or started twice loses no trial and goes on where it was."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time

import optuna
import psutil
import pytest
from command_line import call, start, start_honestly
from optuna.trial import TrialState
from rich.console import Console
from stored import of_optuna

from face3d_tune.cli.progress import Interrupt
from face3d_tune.system import signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these signals to another process")

STUDY = """
[budget]
trials = 3
epochs = 10

[fixed]
batch_size = 32
nhead = 2
num_layers = 1

[space]
lr = { low = 1e-5, high = 1e-3, scale = "log" }

[presets.first]
lr = 1e-4
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] if os.name != "nt" else []
PATIENCE = 120  # seconds


@pytest.fixture
def place(tmp_path):
    (tmp_path / "long.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_folder):
    """What the study ends with if nothing happens to it: preset, parameters and value of each finished trial."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "long.toml").write_text(STUDY, encoding="utf-8")
    assert call(*search(data_folder), cwd=folder).code == 0
    return finished(folder)


def search(data_folder):
    return ("run", "--study", "long.toml", "--data-dir", data_folder, "--device", "cpu")


def read_trials(folder):
    storage = of_optuna(f"sqlite:///{folder / 'face3d_tune.db'}")
    return optuna.load_study(study_name="long", storage=storage).trials


def finished(folder):
    trials = [trial for trial in read_trials(folder) if trial.state == TrialState.COMPLETE]
    return [(trial.user_attrs["preset"], trial.params, trial.value) for trial in trials]


def wait_for_second_trial(folder, process):
    """Return when the first trial is finished and the second has trained an epoch."""
    wait_until(folder, process, lambda running: running.get(1, 0) > 0)


def wait_until(folder, process, reached):
    """Return when `reached` says so of the running trials: how many epochs each has reported, by its number."""
    question = (
        "select number, count(step) from trials join trial_user_attributes using (trial_id) "
        "left join trial_intermediate_values using (trial_id) "
        "where state = 'RUNNING' and key = 'config' group by number"  # the last that is said before it trains
    )
    url = f"file:{folder / 'face3d_tune.db'}?mode=ro"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(url, uri=True)) as database,
        ):
            if reached(dict(database.execute(question))):  # an error while there is no file or no table yet
                return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"the search got no further than this: {process.communicate()}")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_search_after_the_epoch_and_the_same_command_goes_on(
    place, data_folder, uninterrupted, number
):
    begin = start_honestly if number == signal.SIGINT else start
    with begin(*search(data_folder), cwd=place) as process:
        wait_for_second_trial(place, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out == ""
    assert "stopping after this epoch; once more to stop at once" in err
    assert err.split("\n\n")[-1].splitlines() == ["interrupted"]
    assert "hint: run the same command to resume" in err

    *done, stopped, again = read_trials(place)
    assert {trial.state for trial in done} == {TrialState.COMPLETE}
    assert (stopped.state, again.state) == (TrialState.FAIL, TrialState.WAITING)
    assert (stopped.user_attrs["stop_reason"], stopped.user_attrs["error"]) == ("error", "interrupted")
    assert again.system_attrs["fixed_params"] == stopped.params
    held = f"{len(done)} of 3"
    assert f"study 'long' holds {held} finished trials; what was running is queued again" in err

    rest = call(*search(data_folder), cwd=place)
    assert rest.code == 0
    assert f"{held} trials done" in rest.err
    assert "3 of 3 trials finished" in rest.err
    assert "Next:" in rest.out
    assert finished(place) == uninterrupted


def test_a_second_search_in_the_same_file_is_refused_and_a_killed_one_is_taken_up(place, data_folder, uninterrupted):
    words = (*search(data_folder), "--epochs", 25)  # so that it still runs when the others have answered
    with start(*words, cwd=place) as process:
        wait_for_second_trial(place, process)
        second = call(*words, "--study-name", "another", cwd=place)
        watching = call("status", cwd=place)
        process.kill()
        process.communicate(timeout=PATIENCE)
    unfinished = [trial for trial in read_trials(place) if trial.state == optuna.trial.TrialState.RUNNING]
    assert second.code == 2
    assert second.out == ""
    error, hint = second.err.splitlines()
    other = f"(process {process.pid} on {socket.gethostname()})"
    assert error == (
        f"error: storage sqlite:///face3d_tune.db: another `face3d-tune run` is searching in this file {other}"
    )
    assert hint.startswith("hint: wait until it ends, or give this search a file of its own")
    assert watching.code == 0
    assert re.search(r" complete, 1 running; \d of 3 trials finished\n", watching.out)

    rest = call(*words, cwd=place)
    assert rest.code == 0
    # It may have been killed between two trials.
    assert ("1 trial(s) without a living worker: queued again" in rest.err) == (len(unfinished) == 1)
    assert [each[:2] for each in finished(place)] == [each[:2] for each in uninterrupted]
    assert [trial.number for trial in read_trials(place) if not trial.state.is_finished()] == []


def test_status_shows_the_worker_and_its_trial_and_later_that_it_left(place, data_folder):
    with start(*search(data_folder), "--epochs", 5000, cwd=place) as process:
        wait_until(place, process, lambda running: running.get(0, 0) > 0)
        shown = json.loads(call("status", "--json", cwd=place).out)
        lines = call("status", cwd=place).out.splitlines()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    (worker,) = shown["studies"][0]["workers"]
    assert (worker["host"], worker["pid"], worker["alive"]) == (socket.gethostname(), process.pid, True)
    assert worker["trials"] == [0]
    assert 0 <= worker["silent"] <= 15 + worker["age"]
    pattern = rf"worker   {re.escape(worker['host'])}:{process.pid}: #0; last heartbeat \d+ s ago"
    assert re.fullmatch(pattern, lines[-1]), lines
    assert json.loads(call("status", "--json", cwd=place).out)["studies"][0]["workers"] == []


def test_a_training_that_is_stopped_keeps_the_best_checkpoint_so_far(place, data_folder):
    words = ("train", "--preset", "baseline", "--epochs", "5000", "--data-dir", data_folder, "--device", "cpu")
    with start(*words, "--out", "out", cwd=place) as process:
        for line in process.stderr:
            if line.startswith("epoch   1 "):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out == ""
    assert "stopping after this epoch" in err
    assert {path.name for path in (place / "out").iterdir()} == {"best_model.pth", "history.json"}


def test_the_first_signal_waits_for_the_epoch_and_the_second_does_not():
    said = io.StringIO()
    interrupt, before = Interrupt(Console(file=said)), signal.getsignal(signal.SIGINT)
    with interrupt.caught():
        interrupt.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said.getvalue() == "stopping after this epoch; once more to stop at once\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_waits_for_the_end_of_what_the_database_is_told():
    """A transaction that it left open would lock this process out of its own SQLite file for a minute."""
    interrupt, done = Interrupt(Console(file=io.StringIO())), []

    def tell():
        with signals.interrupt.held():
            with signals.interrupt.held():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            done.append("outer")

    with interrupt.caught():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            tell()
        assert done == ["inner", "outer"]
        with signals.interrupt.held():
            done.append("the next")  # it has been raised once
    assert done[2:] == ["the next"]


def test_a_closed_terminal_interrupts_and_changes_nothing_where_it_is_ignored():
    """As nohup lets a program begin."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, requested in ((signal.SIG_IGN, False), (signal.SIG_DFL, True)):
            signal.signal(signal.SIGHUP, handler)
            interrupt = Interrupt(Console(file=io.StringIO()))
            with interrupt.caught():
                signal.raise_signal(signal.SIGHUP)
            assert interrupt.requested is requested
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("twice", [False, True], ids=["after the epoch", "at once"])
def test_what_is_put_in_order_after_an_interrupt_is_not_interrupted(twice):
    interrupt = Interrupt(Console(file=io.StringIO()))
    with interrupt.caught():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT) if twice else interrupt.check()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)


def test_signals_are_left_alone_in_a_thread_that_gets_none():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with Interrupt(Console(file=io.StringIO())).caught():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


# Several trials at once, in processes of their own


AT_ONCE = ("--engine", "batched", "--trials", "5")


@contextlib.contextmanager
def searching(place, data_folder, slots, *, epochs, trained, first=None):
    """A search and all its processes, in a group of their own as a shell starts it, when all slots have a trial.

    So many of these have reported an epoch.
    """
    words = (*search(data_folder), *AT_ONCE, "--slots", slots, "--epochs", epochs)
    with start(*words, cwd=place, start_new_session=True, first=first) as process:
        try:
            wait_until(
                place, process, lambda running: len(running) == slots and sum(map(bool, running.values())) >= trained
            )
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= slots
            yield process, children
        finally:
            if process.poll() is None:
                process.kill()


def still_there(processes):
    """Those that have not ended within some time."""
    deadline = time.monotonic() + 30
    while processes and time.monotonic() < deadline:
        processes = [process for process in processes if is_alive(process)]
        time.sleep(0.05)
    return processes


def is_alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_all_put_back(folder, slots, reason):
    """So many trials failed because of that alone, and wait again as they were, in their order."""
    trials = read_trials(folder)
    stopped = [trial for trial in trials if trial.state == TrialState.FAIL]
    again = [trial for trial in trials if "retry_of" in trial.user_attrs]
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL", "WAITING"}
    assert {trial.user_attrs["error"] for trial in stopped} == {reason}
    assert {trial.state for trial in again} == {TrialState.WAITING}
    assert [trial.user_attrs["retry_of"] for trial in again] == [trial.number for trial in stopped]
    assert len(stopped) == slots
    for before, after in zip(stopped, again, strict=True):
        assert after.system_attrs["fixed_params"] == before.params
        for name in ("seed", "preset"):
            assert after.user_attrs.get(name) == before.user_attrs[name]


@pytest.mark.parametrize(
    ("number", "slots", "epochs", "trained"),
    [(signal.SIGINT, 4, 15, 0), (signal.SIGTERM, 2, 60, 2), (getattr(signal, "SIGHUP", 0), 2, 60, 2)],
    ids=["Ctrl-C at the start", "SIGTERM in training", "a terminal that closes"],
)
def test_a_signal_puts_all_running_trials_back_and_leaves_no_process(
    place, data_folder, number, slots, epochs, trained
):
    with searching(place, data_folder, slots, epochs=epochs, trained=trained) as (process, children):
        if number == signal.SIGTERM:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)  # as a terminal does
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert still_there(children) == []
    assert "Traceback" not in err
    assert err.split("\n\n")[-1].splitlines() == ["interrupted"]
    assert "what was running is queued again" in err
    check_all_put_back(place, slots, "interrupted")

    if number == signal.SIGINT:
        rest = call(*search(data_folder), *AT_ONCE, "--slots", 2, "--epochs", epochs, cwd=place)
        assert rest.code == 0, rest.err
        assert "5 of 5 trials finished" in rest.err
        states = [trial.state.name for trial in read_trials(place)]
        assert sorted(states) == ["COMPLETE"] * 5 + ["FAIL"] * slots
        assert [preset for preset, *_ in finished(place) if preset] == ["first"]


def test_a_second_ctrl_c_does_not_wait_for_the_epoch(place, data_folder):
    """Which here would never end."""
    first = ("doomed", "impatient", {})
    with searching(place, data_folder, 2, epochs=5000, trained=2, first=first) as (process, children):
        for child in children:
            if child.ppid() != process.pid:  # a slot, and not what it was forked from
                child.suspend()
        reported = -1
        while reported < (now := sum(len(trial.intermediate_values) for trial in read_trials(place))):
            reported = now
            time.sleep(1)  # until no epoch is on its way any more
        os.killpg(process.pid, signal.SIGINT)
        said = ""
        while "once more to stop at once" not in said:
            said += process.stderr.readline()
            assert said.endswith("\n"), said
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert still_there(children) == []
    assert "Traceback" not in said + err
    check_all_put_back(place, 2, "interrupted")
    assert sum(len(trial.intermediate_values) for trial in read_trials(place)) == reported


def test_the_processes_of_a_search_that_is_killed_end_by_themselves_and_the_next_one_takes_its_trials_back(
    place, data_folder
):
    with searching(place, data_folder, 2, epochs=25, trained=2) as (process, children):
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert still_there(children) == []
    running = [trial.number for trial in read_trials(place) if trial.state == TrialState.RUNNING]
    assert len(running) == 2

    rest = call(*search(data_folder), "--epochs", 25, "--trials", 3, cwd=place)  # by the other engine
    assert rest.code == 0, rest.err
    assert "2 trial(s) without a living worker: queued again" in rest.err
    trials = read_trials(place)
    abandoned = [trial.number for trial in trials if trial.state == TrialState.FAIL]
    assert abandoned == running
    assert [trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs] == running
    assert all(
        trial.user_attrs["error"].startswith("its process ended without notice (")
        for trial in trials
        if trial.number in running
    )
