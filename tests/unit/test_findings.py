"""What a study shows, with numbers worked out by hand."""

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis.findings import Improvement, Pruning, find, searched
from face3d_tune.config import TrialConfig

START = datetime(2026, 1, 1)
CONFIG = TrialConfig(d_model=16, dim_feedforward=64)


def at(minutes):
    return START + timedelta(minutes=minutes)


def trial(state, value, begin, end, *, lr=None, **attrs):
    """That ran from one minute to another."""
    finished = TrialState[state] in (TrialState.COMPLETE, TrialState.PRUNED)
    params = {} if lr is None else {"lr": lr}
    return FrozenTrial(
        number=0,
        trial_id=0,
        state=TrialState[state],
        value=value,
        datetime_start=None if begin is None else at(begin),
        datetime_complete=None if end is None else at(end),
        params=params,
        distributions={name: FloatDistribution(1e-5, 1e-1) for name in params},
        user_attrs=({"config": CONFIG.to_dict(), "val_cosine": value} if finished else {})
        | ({"stop_reason": "finished"} if TrialState[state].is_finished() else {})
        | attrs,
        system_attrs={},
        intermediate_values={},
    )


def study_of(*trials, space=("lr",), **attrs):
    study = optuna.create_study(direction="maximize", study_name="faces")
    space = {name: {} for name in space}
    for key, value in ({"settings": {"space": space}, "no_model_cosine": 0.5} | attrs).items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return study


def test_the_best_so_far_is_followed_by_trials_and_by_time_without_pauses():
    found = find(
        study_of(
            trial("COMPLETE", 0.5, 0, 10),
            trial("FAIL", None, 1, 2),
            trial("PRUNED", 0.9, 2, 12),
            trial("COMPLETE", 0.4, 12, 20),
            trial("COMPLETE", 0.6, 120, 130),  # after a pause of a hundred minutes
            trial("RUNNING", None, 125, None),
        )
    )
    assert found.improvements == (Improvement(0, 1, 600.0, 0.5), Improvement(4, 4, 1800.0, 0.6))
    assert found.seconds == 30 * 60
    assert (found.finished, found.best.number, found.no_model) == (4, 4, 0.5)


def test_a_clock_that_was_set_back_gives_no_negative_time():
    backwards = study_of(trial("COMPLETE", 0.6, 100, 40), trial("COMPLETE", 0.7, 40, 50), trial("PRUNED", 0.1, 60, 30))
    found = find(backwards)
    assert found.seconds == 10 * 60
    assert [step.seconds for step in found.improvements] == [0, 10 * 60]


def test_improvements_follow_the_order_in_which_trials_ended():
    found = find(study_of(trial("COMPLETE", 0.6, 0, 20), trial("COMPLETE", 0.5, 0, 10)))
    assert [(step.trial, step.finished) for step in found.improvements] == [(1, 1), (0, 2)]


def test_pruning_saved_what_completed_trials_trained_longer():
    completed = [trial("COMPLETE", 0.5, 0, 1, epochs_run=epochs) for epochs in (40, 50, 90)]
    pruned = [
        trial("PRUNED", 0.2, 0, 1, epochs_run=10, seconds=20.0),  # 40 epochs saved, 2 s each
        trial("PRUNED", 0.3, 0, 1, epochs_run=30, seconds=30.0),  # 20 epochs, 1 s each
        trial("PRUNED", 0.4, 0, 1, epochs_run=60, seconds=60.0),  # trained longer than most: nothing
    ]
    found = find(study_of(*completed, *pruned))
    assert found.pruning == Pruning(trials=3, epochs=100, saved_epochs=60, saved_seconds=100.0)
    assert found.epochs == 280


def test_a_trial_that_lost_the_race_between_folds_saved_its_other_folds():
    completed = [trial("COMPLETE", 0.5, 0, 1, epochs_run=90)]
    raced = trial("PRUNED", 0.2, 0, 1, epochs_run=30, seconds=60.0, raced_out_after_fold=1)
    pruned = trial("PRUNED", 0.2, 0, 1, epochs_run=10, seconds=10.0)
    found = find(study_of(*completed, raced, pruned))
    assert found.pruning == Pruning(trials=2, raced=1, epochs=40, saved_epochs=140, saved_seconds=120.0 + 80.0)


def test_the_notable_trials_are_the_best_the_presets_and_the_next_best_each_once():
    presets = [trial("COMPLETE", 0.60, 0, 1, preset="baseline"), trial("PRUNED", 0.1, 0, 1, preset="recommended")]
    others = [trial("COMPLETE", value, 0, 1, preset=None) for value in (0.3, 0.4, 0.62, 0.61, 0.59, 0.58)]
    found = find(study_of(*presets, *others, preset_aliases={"quickstart": "recommended"}))
    assert [trial.number for trial in found.notable] == [4, 0, 1, 5, 6, 7, 3]
    assert [trial.value for trial in found.runners_up] == [0.61, 0.59, 0.58, 0.4]
    assert [row.name for row in found.presets] == ["baseline", "recommended", "quickstart"]


def test_the_preset_to_beat_is_the_best_completed_one():
    presets = [
        trial("COMPLETE", 0.58, 0, 1, preset="baseline"),
        trial("COMPLETE", 0.59, 0, 1, preset="conservative"),
        trial("PRUNED", 0.7, 0, 1, preset="aggressive"),
    ]
    assert find(study_of(*presets)).best_preset.name == "conservative"
    assert find(study_of(presets[2])).best_preset is None


def test_a_study_without_trials_shows_nothing():
    found = find(study_of())
    assert (found.best, found.best_preset, found.notable, found.improvements) == (None, None, [], ())
    assert (found.seconds, found.epochs, found.finished, found.importances) == (0, 0, 0, [])
    assert found.pruning == Pruning(0, 0, 0, 0)


def test_a_trial_counts_with_what_it_trained_with_be_it_sampled_fixed_or_outside_the_space():
    trials = [
        trial("COMPLETE", 0.6, 0, 1, lr=1e-3),
        trial("COMPLETE", 0.5, 0, 1, overrides={"lr": 0.0}),
        trial("COMPLETE", 0.4, 0, 1),
    ]
    assert searched(trials, {"space": {"lr": {}}}) == ({"lr": [1e-3, 0.0, CONFIG.lr]}, [0.6, 0.5, 0.4])
    assert searched(trials, {"space": {"lr": {}, "width": {}}}) == ({"lr": [], "width": []}, [])


def test_importances_are_those_of_completed_trials():
    completed = [trial("COMPLETE", 0.4 + lr, 0, 1, lr=lr) for lr in [0.01 * step for step in range(1, 10)] * 2]
    pruned = [trial("PRUNED", 0.9, 0, 1, lr=0.001)] * 20
    (importance,) = find(study_of(*completed, *pruned)).importances
    assert sum(group.trials for group in importance.groups) == 18
    assert importance.sure
    assert max(group.mean for group in importance.groups) < 0.5


@pytest.mark.parametrize("states", [("WAITING",), ("RUNNING",), ("FAIL", "FAIL")])
def test_a_study_without_a_finished_trial_is_read_too(states):
    times = {"WAITING": (None, None), "RUNNING": (0, None), "FAIL": (0, 1)}
    found = find(study_of(*(trial(state, None, *times[state]) for state in states)))
    assert (found.best, found.finished) == (None, 0)


def test_imported_trials_are_no_work_of_the_search_and_unconfirmed_ones_decide_nothing():
    run = {"epochs_run": 10, "seconds": 100.0}
    found = find(
        study_of(
            trial("COMPLETE", 0.5, 0, 0, origin="imported", confirmed=True, epochs_run=99),
            trial("COMPLETE", 0.9, 0, 0, origin="imported", confirmed=False, epochs_run=99),
            trial("COMPLETE", 0.6, 0, 10, **run),
            trial("PRUNED", 0.4, 10, 14, epochs_run=4, seconds=40.0),
        )
    )
    assert (found.best.number, found.finished, found.epochs) == (2, 2, 14)
    assert [step.trial for step in found.improvements] == [0, 2]
    assert found.pruning == Pruning(trials=1, epochs=4, saved_epochs=6, saved_seconds=60.0)
