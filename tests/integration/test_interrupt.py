"""A search that is stopped, killed or started twice loses no trial and goes on where it was."""

import contextlib
import io
import os
import signal
import sqlite3
import threading
import time

import optuna
import pytest
from command_line import call, start
from optuna.trial import TrialState
from rich.console import Console

from face3d_tune.cli.progress import Interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these signals to another process")

STUDY = """
[budget]
trials = 3
epochs = 20

[fixed]
batch_size = 32
nhead = 2
num_layers = 1

[space]
lr = { low = 1e-5, high = 1e-3, scale = "log" }

[presets.first]
lr = 1e-4
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM]
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
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'face3d_tune.db'}")
    try:
        return optuna.load_study(study_name="long", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def finished(folder):
    trials = [trial for trial in read_trials(folder) if trial.state == TrialState.COMPLETE]
    return [(trial.user_attrs["preset"], trial.params, trial.value) for trial in trials]


def wait_for_second_trial(folder, process):
    """Return when the first trial is finished and the second has trained an epoch."""
    question = (
        "select count(*) from trials join trial_intermediate_values using (trial_id) "
        "where trials.number = 1 and trials.state = 'RUNNING'"
    )
    url = f"file:{folder / 'face3d_tune.db'}?mode=ro"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(url, uri=True)) as database,
        ):
            if database.execute(question).fetchone()[0]:  # an error while there is no file or no table yet
                return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"the search got no further than this: {process.communicate()}")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_search_after_the_epoch_and_the_same_command_goes_on(
    place, data_folder, uninterrupted, number
):
    with start(*search(data_folder), cwd=place) as process:
        wait_for_second_trial(place, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out == ""
    assert "stopping after this epoch; once more to stop at once" in err
    assert err.split("\n\n")[-1].splitlines() == ["interrupted"]
    assert "hint: the same command goes on from there" in err

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
    with start(*search(data_folder), cwd=place) as process:
        wait_for_second_trial(place, process)
        second = call(*search(data_folder), "--study-name", "another", cwd=place)
        watching = call("status", cwd=place)
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert second.code == 2
    assert second.out == ""
    error, hint = second.err.splitlines()
    assert error == ("error: storage sqlite:///face3d_tune.db: another `face3d-tune run` is searching in this file")
    assert hint.startswith("hint: wait until it ends, or give this search a file of its own")
    assert watching.code == 0
    assert " complete, 1 running\n" in watching.out

    rest = call(*search(data_folder), cwd=place)
    assert rest.code == 0
    assert "1 trial(s) of a run that was killed: queued again" in rest.err
    assert finished(place) == uninterrupted
    assert [trial.number for trial in read_trials(place) if not trial.state.is_finished()] == []


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
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said.getvalue() == "stopping after this epoch; once more to stop at once\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_are_left_alone_in_a_thread_that_gets_none():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with Interrupt(Console(file=io.StringIO())).caught():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
