"""A database that loses its last seconds while workers search in it: a failover, or a backup that is put back."""

import shutil

import pytest
from changes import broken_ends
from optuna.trial import TrialState
from searches import SAMPLED_ONLY, Scripted, Watch, file_of
from sqlalchemy import text
from test_workers import PATIENCE, at_work, worker_of

from face3d_tune.search.trial_run import Outcome
from face3d_tune.storage.claims import TrialGone, TrialLost
from face3d_tune.storage.database import Storage

RANDOM = SAMPLED_ONLY.replace('"tpe"', '"random"').replace("n_startup_trials = 2", "")
GONE = "the storage does not have it any more, as after a failover; its checkpoints are kept"


class OnPostgres:
    """A database on a server."""

    def __init__(self, server):
        self.server, self.url = server, server.new_database()

    def keep(self):
        self.snapshot = self.server.snapshot(self.url)

    def lose(self):
        """Everything since it was kept."""
        self.server.put_back(self.url, self.snapshot)


class OnSqlite:
    """A file."""

    def __init__(self, path):
        self.path, self.url = path, f"sqlite:///{path.as_posix()}"

    def keep(self):
        shutil.copyfile(self.path, self.path.with_suffix(".kept"))

    def lose(self):
        shutil.copyfile(self.path.with_suffix(".kept"), self.path)


@pytest.fixture(params=["postgres", "sqlite"])
def place(request, tmp_path, monkeypatch):
    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.05, 0.05))
    if request.param == "sqlite":
        return OnSqlite(tmp_path / "studies.db")
    return OnPostgres(request.getfixturevalue("postgres_server"))


@pytest.fixture
def server(postgres_server, monkeypatch):
    monkeypatch.setattr("face3d_tune.storage.retry._PAUSES", (0.05, 0.05))
    return OnPostgres(postgres_server)


@pytest.fixture
def file(tmp_path):
    return file_of(tmp_path, RANDOM)


def once(action, when):
    """Call the action at the first task and epoch for which `when` holds."""
    done = []

    def look(task, number):
        if not done and when(task, number):
            done.append(action())

    return look


def stored_of(url):
    """The trials, as a program reads them that has not seen the database before."""
    with Storage.parse(url).opened() as opened:
        return opened.get_all_trials(opened.get_study_id_from_name("quick"))


def check(url, total):
    assert broken_ends(stored_of(url), total) == []


def test_a_worker_whose_trial_is_gone_says_so_and_goes_on(place, file, data):
    """Trial 0 runs when the database is kept; it has ended, and trial 1 runs, when what came after is lost."""
    keep = once(place.keep, lambda task, number: (task.number, number) == (0, 1))
    lose = once(place.lose, lambda task, number: (task.number, number) == (1, 3))

    def play(task, number):
        keep(task, number)
        lose(task, number)
        return 0.1, "finished" if number == 4 else None

    watch, slots = Watch(), Scripted(1, play)
    with worker_of(place.url, file, data) as search:
        search.run(3, watch, slots=slots)
        assert (watch.lost, watch.reasons) == ([1], [GONE])
        assert slots.dropped[-1] != 0
        (left,) = [line for line in watch.notes if "left running" in line]
        assert left == "trial 0 was left running: the storage lost its end"
    trials = stored_of(place.url)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["retry_of"] == 0  # the number of the lost one, and its id, are given again
    check(place.url, 3)


def test_a_worker_with_two_trials_that_are_gone_drops_both_before_their_numbers_come_again(place, file, data):
    """Trials 0 and 1 run when the database is kept, 2 and 3 when what came after is lost."""
    keep = once(place.keep, lambda task, number: (task.number, number) == (1, 1))
    lose = once(place.lose, lambda task, number: (task.number, number) == (3, 2))

    def play(task, number):
        keep(task, number)
        lose(task, number)
        return 0.1, "finished" if number == 5 else None

    watch = Watch()
    with worker_of(place.url, file, data) as search:
        search.run(4, watch, slots=Scripted(2, play))
    assert sorted(watch.lost) == [2, 3]
    assert set(watch.reasons) == {GONE}
    check(place.url, 4)


def test_a_trial_that_is_gone_when_another_one_has_ended_is_dropped_before_the_next_begins(place, file, data):
    watch = Watch()

    def lose(trial):
        if trial.number == 0:
            with search.queue.engine.begin() as database:
                (lost,) = database.execute(text("select trial_id from trials where number = 1")).scalars()
                for table in ("params", "user_attributes", "system_attributes", "intermediate_values"):
                    database.execute(text(f"delete from trial_{table} where trial_id = {lost}"))
                database.execute(text(f"delete from trials where trial_id = {lost}"))

    watch.trial_ended = lose
    slots = Scripted(2, lambda task, number: (0.1, "finished" if number == (1 if task.number == 0 else 5) else None))
    with worker_of(place.url, file, data) as search:
        search.run(2, watch, slots=slots)
    assert (watch.lost, watch.reasons) == ([1], [GONE])
    assert [trial.state.name for trial in stored_of(place.url)] == ["COMPLETE", "COMPLETE"]


def test_what_a_failover_takes_of_a_trial_is_stored_again_at_its_end(place, file, data):
    """The trial is kept when it has been claimed, and has no config yet."""
    lose = once(place.lose, lambda task, number: number == 3)

    def play(task, number):
        lose(task, number)
        return 0.1, "finished" if number == 4 else None

    watch = Watch()
    with worker_of(place.url, file, data) as search:
        begin, kept = search._begin, []

        def kept_and_begun(*arguments):
            kept or kept.append(place.keep())
            return begin(*arguments)

        search._begin = kept_and_begun
        search.run(1, watch, slots=Scripted(1, play))
    (trial,) = stored_of(place.url)
    assert (watch.lost, trial.state) == ([], TrialState.COMPLETE)
    assert trial.user_attrs["config"].keys() >= {"lr", "use_pose_attention"}
    assert trial.params == {name: trial.user_attrs["config"][name] for name in ("lr", "use_pose_attention")}
    check(place.url, 1)


def test_no_curve_has_two_authors(server, file, data):
    """The second worker gets id and number of the trial that the first one still trains."""
    with worker_of(server.url, file, data) as first, worker_of(server.url, file, data) as second:
        for search in (first, second):
            search.worker.beat()
            search.queue.budget = 2
        server.keep()
        lost = first.queue.ask()
        first.queue.report(lost, 0.9, 1, {})
        server.lose()
        again(first.queue.requeue_orphans)  # a heartbeat; the first question finds its connection ended
        theirs = again(second.queue.ask)
        assert (theirs.number, theirs._trial_id) == (lost.number, lost._trial_id)
        second.queue.store(theirs, {"config": {}})
        second.queue.report(theirs, 0.1, 1, {})
        for vain in (
            lambda: again(lambda: first.queue.report(lost, 0.9, 2, {"lr_now": 1.0})),
            lambda: first.queue.store(lost, {"config": {"lr": 1.0}}),
            lambda: first.queue.requeue(lost, "interrupted"),
            lambda: first.queue.tell(lost, Outcome("finished", 0.9, {"stop_reason": "finished"})),
        ):
            with pytest.raises(TrialGone):
                vain()
        second.queue.tell(theirs, Outcome("finished", 0.1, {"stop_reason": "finished", "epochs_run": 1}))
    (trial,) = stored_of(server.url)
    assert (trial.value, trial.intermediate_values) == (0.1, {1: 0.1})
    assert "lr_now" not in trial.user_attrs


def again(action):
    """Call it until its connections are new."""
    for _ in range(3):
        try:
            return action()
        except TrialLost:
            raise
        except Exception:
            pass
    return action()


def test_a_survivor_does_not_wait_for_a_trial_that_only_its_own_cache_holds_as_ended(server, file, data):
    watch = Watch()
    with worker_of(server.url, file, data, silence=0.5) as dead:
        dead.worker.beat()
        dead.queue.budget = 1
        trial = dead.queue.ask()
        dead.queue.store(trial, {"config": {}})
        server.keep()
        dead.queue.report(trial, 0.1, 1, {})
        dead.queue.tell(trial, Outcome("finished", 0.1, {"stop_reason": "finished"}))
        with worker_of(server.url, file, data, silence=0.5) as survivor:
            assert [known.state for known in survivor.study.trials] == [TrialState.COMPLETE]
            server.lose()
            slots = Scripted(1, lambda task, number: (0.1, "finished" if number == 2 else None))
            with at_work(survivor, 1, slots, watch) as thread:
                thread.join(PATIENCE)
    assert "the storage lost trials that it held, as after a failover: they are read again" in watch.notes
    assert [trial.state.name for trial in stored_of(server.url)] == ["FAIL", "COMPLETE"]
