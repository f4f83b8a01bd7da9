"""A search of a script whose worker is killed, stopped or interrupted loses nothing and leaves nothing running."""

import contextlib
import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import doomed
import psutil
import psycopg
import pytest
from command_line import call, start
from doomed import SCRIPT_MOMENTS
from optuna.trial import TrialState
from script_searches import PATIENCE, Place, check_nothing_left, found, running_of, study_of, until

from face3d_tune.study.trials import REQUEUED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")

HELD = {"the script has started": 0, "its first epoch was heard": 1, "between two epochs": 2}  # after which epoch
NEVER = "while it is taken"  # what such a transaction did is undone
BEGINNING = (NEVER, "after the claim", "its folder is empty")  # no script has started
OWNERSHIP = (NEVER, "after the claim", "between report and tell", "while its end is stored")
TOLD = ("after tell", "before its log is kept")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a preset and a sampled trial find if nothing happens."""
    place = Place(tmp_path_factory.mktemp("undisturbed") / "place")
    url = f"sqlite:///{place.folder / 'studies.db'}"
    answer = call(*place.words(url, "--trials", 2, slots=1), cwd=place.folder)
    assert answer.code == 0, answer.err
    assert place.begun() == [0, 0]
    return found(study_of(url)[1])


def check(place, url, undisturbed, *, requeued):
    """The trials found the same, each copy of a script ran alone, nothing runs any more, and every log is kept."""
    attrs, trials = study_of(url)
    check_nothing_left(attrs["id"])
    assert found(trials) == undisturbed
    left = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    assert [(trial.state.name, REQUEUED in trial.user_attrs) for trial in left] == [("FAIL", True)] * requeued
    assert "overlaps" not in {words for _, _, words in place.told()}
    logs = sorted(path.name for path in (place.folder / "artifacts").rglob("logs/*"))
    assert logs == [f"trial-{trial.number}.txt" for trial in trials if trial not in left]


@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("moment", "resume"),
    [*((moment, True) for moment in SCRIPT_MOMENTS), *((moment, False) for moment in (*HELD, "while it ends"))],
)
def test_a_search_of_a_script_killed_at_any_moment_ends_as_if_nothing_had_been(
    tmp_path, undisturbed, storage_url, moment, resume
):
    place = Place(tmp_path / "place", resume=resume)
    run = place.words(storage_url, "--trials", 2, slots=1)
    if moment in HELD:
        place.hold(1, HELD[moment])
    assert doomed.run(*run, moment=moment, trial=0 if moment in TOLD else 1) == -9
    if moment in HELD:
        place.release(1)
    rest = call(*run, cwd=tmp_path)
    assert rest.code == 0, rest.err
    check(place, storage_url, undisturbed, requeued=moment not in (*TOLD, NEVER))
    trained = HELD.get(moment, 0 if moment in BEGINNING else 3)
    if moment not in TOLD:
        assert place.begun()[-1] == (trained if resume else 0)


@pytest.mark.parametrize("storage_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("moment", [*OWNERSHIP, "the script has started", "between two epochs"])
def test_the_other_worker_takes_over_a_trial_whose_worker_is_killed(tmp_path, undisturbed, storage_url, moment):
    place = Place(tmp_path / "place")
    run = place.words(storage_url, "--trials", 2, slots=1)
    place.hold(0, HELD.get(moment, 0))
    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(doomed.run, *run, moment=moment, trial=0)
        until(lambda: killed.done() or place.begun())
        known = len(place.begun())  # none, if the script was ended before it said so
        with start(*run, cwd=tmp_path) as other:
            # It trains as well: the next trial or, if the first worker is missed by then, the first trial again.
            until(lambda: len(place.begun()) > known)
            place.release(0)
            assert killed.result() == -9
            doomed.long_silent(storage_url)
            _, err = other.communicate(timeout=PATIENCE)
    assert other.returncode == 0, err
    check(place, storage_url, undisturbed, requeued=moment not in (*TOLD, NEVER))


@pytest.mark.parametrize("resume", [True, False], ids=["with --resume", "without"])
def test_the_other_worker_takes_over_a_trial_whose_worker_is_stopped_and_one_copy_runs(
    tmp_path, undisturbed, postgres_tables_url, resume
):
    """What the script printed to a stopped worker is lost, so its checkpoint of epoch 2 comes with one known epoch."""
    place = Place(tmp_path / "place", resume=resume)
    run = place.words(postgres_tables_url, "--trials", 2, slots=1)
    place.hold(0, 1)
    with start(*run, cwd=tmp_path) as stopped:
        until(lambda: reported(postgres_tables_url))
        stopped.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
        place.hold(0, 2)
        until(lambda: place.ended() == [1, 2])
        doomed.long_silent(postgres_tables_url)
        with start(*run, cwd=tmp_path) as other:
            until(lambda: len(place.begun()) >= 3)
            place.release(0)
            _, err = other.communicate(timeout=PATIENCE)
        assert other.returncode == 0, err
        check(place, postgres_tables_url, undisturbed, requeued=True)
        stopped.send_signal(signal.SIGCONT)
        _, err = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == 0
    assert "reassigned to another worker: no heartbeat from this one" in err
    check(place, postgres_tables_url, undisturbed, requeued=True)
    assert sorted(place.begun()) == ([0, 0, 0, 2] if resume else [0, 0, 0])


def reported(url):
    """How many epochs all trials have reported."""
    with psycopg.connect(url) as database:
        return database.execute("select count(*) from trial_intermediate_values").fetchone()[0]


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_ctrl_c_queues_the_trial_again_and_its_script_is_gone(tmp_path, undisturbed, sqlite_url, twice):
    """Once, it waits for the end of the epoch; twice, it does not."""
    place = Place(tmp_path / "place")
    run = place.words(sqlite_url, "--trials", 2, slots=1)
    place.hold(0, 1)
    with start(*run, cwd=tmp_path) as process:
        until(lambda: reported_in_file(sqlite_url) == 1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.readline()
        while "once more to stop at once" not in said:
            said = process.stderr.readline()
            assert said
        if twice:
            process.send_signal(signal.SIGINT)
        else:
            place.hold(0, 2)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "what was running is queued again" in err
    attrs, trials = study_of(sqlite_url)
    assert [trial.state.name for trial in trials] == ["FAIL", "WAITING"]
    # Once: the epoch that trains, or the first if it is told at this very moment.
    assert len(trials[0].intermediate_values) in ([1] if twice else [1, 2])
    assert running_of(attrs["id"]) == []  # at once: the program waits for the script
    place.release(0)
    rest = call(*run, cwd=tmp_path)
    assert rest.code == 0, rest.err
    assert place.begun() in ([0, 1, 0], [0, 1 if twice else 2, 0])  # an epoch is told before its checkpoint is written
    check(place, sqlite_url, undisturbed, requeued=True)


def test_two_studies_on_one_machine_leave_each_others_trials_alone(tmp_path, undisturbed, sqlite_url):
    """Both have a trial 0 in training; the second one sweeps as it begins, and is killed, and begins again."""
    first, second = Place(tmp_path / "a"), Place(tmp_path / "b", name="other")
    first.hold(0, 1)
    with start(*first.words(sqlite_url, "--trials", 2, slots=1), cwd=tmp_path) as process:
        until(lambda: first.ended() == [1])
        url = f"sqlite:///{tmp_path / 'others.db'}"
        run = second.words(url, "--trials", 2, slots=1)
        assert doomed.run(*run, moment="its first epoch was heard", trial=0) == -9
        assert call(*run, cwd=tmp_path).code == 0
        check_nothing_left(study_of(url, "other")[0]["id"])
        first.release(0)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert first.begun() == [0, 0]
    check(first, sqlite_url, undisturbed, requeued=False)
    assert found(study_of(url, "other")[1]) == undisturbed


def reported_in_file(url):
    """How many epochs all trials in an SQLite file have reported."""
    with contextlib.suppress(sqlite3.OperationalError):  # no file or no table yet
        path = f"file:{url.removeprefix('sqlite:///')}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as database:
            return database.execute("select count(*) from trial_intermediate_values").fetchone()[0]
    return 0
