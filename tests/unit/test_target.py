"""When a search has what it wants: a cosine, and how many epochs in a row must have it."""

import pytest
from stored_study import add_trial, our_study

from face3d_tune.search.target import is_reached, reached, reached_by_any

CURVE = (0.5, 0.8, 0.9, 0.8, 0.7, 0.9)


@pytest.mark.parametrize(
    ("kept_epoch", "target", "in_a_row"),
    [
        (3, 0.8, 3),  # epochs 2 to 4
        (2, 0.8, 3),
        (3, 0.85, 1),
        (6, 0.8, 1),  # the last, after one below
        (5, 0.7, 5),
        (1, 0.5, 6),
        (1, 0.6, 0),  # the kept one is below
    ],
)
def test_the_target_holds_for_as_many_epochs_as_have_it_in_a_row_round_the_kept_one(kept_epoch, target, in_a_row):
    kept = CURVE[kept_epoch - 1]
    said = [is_reached(CURVE, kept, kept_epoch, target, epochs) for epochs in range(1, 8)]
    assert said == [epochs <= in_a_row for epochs in range(1, 8)]


@pytest.fixture
def study():
    study = our_study(None, "faces")
    add_trial(study, "PRUNED", [0.95, 0.95])
    add_trial(study, "COMPLETE", [0.8, 0.9, 0.8])
    add_trial(study, "COMPLETE", [0.99, 0.99], origin="imported", confirmed=False)
    return study


def test_a_stored_trial_reaches_it_as_it_would_have_in_training(study):
    pruned, completed, unconfirmed = study.trials
    assert [reached(completed, 0.8, epochs) for epochs in (1, 3, 4)] == [True, True, False]
    assert [reached(completed, target, 1) for target in (0.9, 0.91)] == [True, False]
    assert not reached(pruned, 0.5, 1)
    assert not reached(unconfirmed, 0.5, 1)


@pytest.mark.parametrize(
    ("effort", "met"),
    [
        ({}, False),
        ({"target": None}, False),
        ({"target": 0.9}, True),
        ({"target": 0.9, "target_epochs": 2}, False),
        ({"target": 0.8, "target_epochs": 3}, True),
    ],
)
def test_whoever_watches_asks_for_the_target_of_the_last_run(study, effort, met):
    assert reached_by_any(study.trials, effort) is met


def test_an_imported_trial_of_which_no_curve_is_known_reaches_a_target_by_its_value_but_holds_none(study):
    add_trial(study, "COMPLETE", [0.97], origin="imported")
    trial = study.trials[-1]
    trial.system_attrs.clear()
    trial.intermediate_values = {}
    assert [reached(trial, 0.96, epochs) for epochs in (1, 2)] == [True, False]


def test_epochs_are_asked_for_of_trials_alone_whose_value_reaches_the_target_and_only_if_several_must(study):
    asked = []

    def with_epochs(trial):
        asked.append(trial.number)
        return trial

    assert reached_by_any(study.trials, {"target": 0.8, "target_epochs": 3}, with_epochs=with_epochs)
    assert not reached_by_any(study.trials, {"target": 0.91, "target_epochs": 3}, with_epochs=with_epochs)
    assert reached_by_any(study.trials, {"target": 0.8}, with_epochs=with_epochs)
    assert asked == [1]
