"""The queue of a study's trials, which owns the budget."""

from math import nan

import optuna
import pytest
from optuna.trial import TrialState

from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.trial_run import Outcome
from face3d_tune.storage.claims import TrialLost
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.storage.workers import Orphan


@pytest.fixture
def queue(sqlite):
    study = optuna.create_study(storage=sqlite, direction="maximize")
    study.set_user_attr("id", "only this one")
    return TrialQueue(study, sqlite)


def finish(queue, trial):
    queue.tell(trial, Outcome("finished", 0.5, {"config": {}, "stop_reason": "finished"}))


def test_a_queue_gives_as_many_trials_as_its_budget_allows_with_those_in_training(queue):
    assert queue.ask() is None  # no search has set a budget
    queue.budget = 2
    first, second = queue.ask(), queue.ask()
    assert queue.ask() is None
    finish(queue, first)
    assert (queue.ask(), queue.finished(), queue.budget_spent()) == (None, 1, False)
    finish(queue, second)
    assert (queue.finished(), queue.budget_spent()) == (2, True)
    queue.budget = 3
    assert (queue.ask().number, queue.budget_spent()) == (2, False)


@pytest.fixture
def running(queue):
    queue.budget = 9
    return queue.ask()


def states(queue):
    return [trial.state.name for trial in queue.study.trials]


@pytest.mark.parametrize(
    ("stop_reason", "value", "state"),
    [("pruned", None, "PRUNED"), ("over_time", None, "PRUNED"), ("finished", nan, "FAIL"), ("finished", None, "FAIL")],
)
def test_a_trial_that_ends_without_an_epoch_or_a_number_has_no_value(queue, running, stop_reason, value, state):
    record = queue.tell(running, Outcome(stop_reason, value, {"config": {}, "stop_reason": stop_reason}))
    assert (record.value, states(queue), queue.study.trials[0].value) == (None, [state], None)


def test_a_trial_that_another_worker_has_is_not_queued_again_by_the_one_that_lost_it(queue, running):
    queue.worker.take_away(running._trial_id)
    with pytest.raises(TrialLost):
        queue.requeue(running, "interrupted")
    assert states(queue) == ["RUNNING"]


def test_a_trial_whose_end_was_stored_before_the_interrupt_is_not_queued_again(queue, running):
    queue._tell(running, Outcome("finished", 0.5, {"config": {}, "stop_reason": "finished"}))
    queue.requeue(running, "interrupted")
    assert states(queue) == ["COMPLETE"]


def test_a_trial_that_another_program_has_ended_is_not_queued_again(queue, running):
    queue.study.tell(running.number, state=TrialState.FAIL)
    queue.requeue(running, "interrupted")
    assert states(queue) == ["FAIL"]


def test_a_trial_of_a_worker_that_only_slept_and_then_ended_it_is_not_queued_again(queue, running):
    """Between the look for orphans and the release of its claim."""
    notes = []
    queue.note = notes.append
    orphan = Orphan(running.number, running._trial_id, "its process ended without notice")
    queue._tell(running, Outcome("finished", 0.5, {"config": {}, "stop_reason": "finished"}))
    assert queue._requeue_all([orphan]) == [orphan]
    assert (states(queue), notes) == (["COMPLETE"], [])


def test_a_worker_learns_how_it_lost_a_trial(queue, running):
    assert type(queue.loss(running)) is TrialLost
    queue.worker.take_away(running._trial_id)
    assert queue.why_lost(running, queue.loss(running)) == "reassigned to another worker: no heartbeat from this one"


def test_a_waiting_trial_that_another_program_took_is_not_taken_again(queue, sqlite):
    queue.study.enqueue_trial({})
    (waiting,) = queue.study.trials
    assert queue.study.ask().number == waiting.number
    with one_at_a_time(sqlite.engine) as lock:
        assert queue.worker.take(lock, waiting._trial_id, {}) is None
    assert states(queue) == ["RUNNING"]
