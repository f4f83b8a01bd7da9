"""Workers whose database has its clock set back: no negative times, and the dead are noticed as soon as ever."""

import optuna
import pytest

from face3d_tune.storage import workers
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.storage.workers import Worker, read_workers

SILENCE = 60.0


@pytest.fixture
def clock(monkeypatch):
    """The database's clock, ahead by `clock["ahead"]` seconds."""
    held, now = {"ahead": 0.0}, workers._now
    monkeypatch.setattr(workers, "_now", lambda database: f"({now(database)} + {held['ahead']})")
    return held


@pytest.fixture
def study(storage):
    return optuna.create_study(storage=storage, study_name="s")


def join(storage, study):
    worker = Worker(storage.engine, study._study_id, silence=SILENCE, alone=False)
    worker.beat()
    return worker


def test_nobody_is_silent_for_less_than_no_time(storage, study, clock):
    join(storage, study)
    clock["ahead"] = -3600.0
    (row,) = read_workers(storage.engine, study._study_id)
    assert (row.age, row.silent, row.alive) == (0.0, 0.0, True)


@pytest.mark.parametrize("joined", ["before", "after"])
def test_a_dead_worker_is_noticed_in_its_time_although_the_clock_was_set_back(storage, study, clock, joined):
    dead = join(storage, study)
    with one_at_a_time(storage.engine) as lock:
        dead.take(lock, None, {})
    living = join(storage, study) if joined == "before" else None
    clock["ahead"] = -3600.0
    living = living or join(storage, study)
    living.beat()
    for _ in range(5):
        clock["ahead"] += SILENCE / 6
        living.beat()
    assert living.orphans() == []  # it may be silent for as long as it said
    clock["ahead"] += SILENCE / 6 + 1
    living.beat()
    assert [orphan.number for orphan in living.orphans()] == [0]
    rows = read_workers(storage.engine, study._study_id)
    assert sorted(row.alive for row in rows) == [False, True]


def test_a_worker_that_is_back_presumes_nobody_dead_before_the_others_had_time_for_a_heartbeat(storage, study, clock):
    """After an absence of the database its search may ask for a trial before it sends a heartbeat itself."""
    other, first = join(storage, study), join(storage, study)
    with one_at_a_time(storage.engine) as lock:
        other.take(lock, None, {})
    clock["ahead"] += 2 * SILENCE
    assert first.orphans() == []
    first.beat()
    assert first.orphans() == []
    for _ in range(7):
        clock["ahead"] += SILENCE / 6
        first.beat()
    assert [orphan.number for orphan in first.orphans()] == [0]
