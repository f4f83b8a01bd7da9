"""The queue of a study's trials, which owns the budget."""

import optuna
import pytest

from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.trial_run import Outcome


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
