"""A search of a script whose worker is killed, stopped or interrupted loses nothing and leaves nothing running."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import doomed
import psycopg
import pytest
from command_line import call, start
from doomed import SCRIPT_MOMENTS
from optuna.trial import TrialState
from script_searches import PATIENCE, Place, check_nothing_left, found, study_of, until

from face3d_tune.search.trial_queue import REQUEUED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")

HELD = {"the script has started": 0, "its first epoch was heard": 1, "between two epochs": 2}  # after which epoch
BEGINNING = ("after ask", "after the claim", "its folder is empty")  # no script has started
OWNERSHIP = ("after ask", "after the claim", "between report and tell", "told and not yet released")
TOLD = ("told and not yet released", "after tell", "before its log is kept")


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
    check(place, storage_url, undisturbed, requeued=moment not in TOLD)
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
        with start(*run, cwd=tmp_path) as other:
            until(lambda: len({mark for mark, _, _ in place.told()}) > (moment not in BEGINNING))  # it trains as well
            place.release(0)
            _, err = other.communicate(timeout=PATIENCE)
        assert killed.result() == -9
    assert other.returncode == 0, err
    check(place, storage_url, undisturbed, requeued=moment not in TOLD)


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
        place.hold(0, 2)
        until(lambda: place.ended() == [1, 2])
        with start(*run, cwd=tmp_path) as other:
            until(lambda: len(place.begun()) == 3)
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
