"""The pruner that asks where a curve will end."""

import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from face3d_tune.search.extrapolation import ExtrapolationPruner, predict

FINALS = [0.40, 0.45, 0.50, 0.52, 0.55, 0.58, 0.60, 0.62]


def rising(final, epochs):
    return {epoch: final - 0.4 / epoch for epoch in range(1, epochs + 1)}


def study_with(curves, values):
    study = optuna.create_study(direction="maximize")
    for curve, value in zip(curves, values, strict=True):
        study.add_trial(create_trial(value=value, intermediate_values=curve, state=TrialState.COMPLETE))
    return study


@pytest.fixture(scope="module")
def study():
    return study_with([rising(final, 30) for final in FINALS], [final - 0.4 / 30 for final in FINALS])


def asked(study, curve, **options):
    running = create_trial(state=TrialState.RUNNING, intermediate_values=curve)
    return ExtrapolationPruner(**options).prune(study, running)


def test_a_curve_that_heads_below_the_best_is_pruned_and_one_that_heads_above_is_not(study):
    assert asked(study, rising(0.45, 6))
    assert not asked(study, rising(0.65, 6))


def test_a_curve_that_is_behind_now_but_in_the_way_of_the_best_goes_on():
    """Of trials that begin low and end high a median pruner would stop every one."""
    slow = [{epoch: 0.1 + 0.02 * slope * epoch for epoch in range(1, 21)} for slope in (0.8, 1.0, 1.2)]
    fast = [{epoch: 0.3 + 0.001 * slope * epoch for epoch in range(1, 21)} for slope in (0.8, 1.0, 1.2)]
    study = study_with([*slow, *fast], [max(curve.values()) for curve in (*slow, *fast)])
    behind = {epoch: 0.1 + 0.02 * 1.25 * epoch for epoch in range(1, 7)}
    assert behind[6] < sorted(curve[6] for curve in (*slow, *fast))[3]  # below the median of the others
    assert not asked(study, behind)
    assert asked(study, {epoch: 0.3 + 0.001 * epoch for epoch in range(1, 7)})  # ahead, but going nowhere


def test_nothing_is_pruned_in_the_warm_up_or_before_enough_trials_have_completed(study):
    hopeless = rising(0.40, 6)
    assert asked(study, hopeless, n_warmup_steps=6, n_startup_trials=8)
    assert not asked(study, hopeless, n_warmup_steps=7)
    assert not asked(study, hopeless, n_startup_trials=9)


def test_a_higher_chance_that_is_asked_for_stops_more():
    uncertain = [final + (0.03 if number % 2 else -0.03) for number, final in enumerate(FINALS)]
    study = study_with([rising(final, 30) for final in FINALS], uncertain)
    assert not asked(study, rising(0.60, 6), chance=0.01)
    assert asked(study, rising(0.60, 6), chance=0.99)


def test_completed_trials_without_a_curve_and_curves_that_ended_early_do_not_disturb():
    curves = [rising(final, 4) for final in FINALS]  # all shorter than the one in question
    study = study_with([*curves, {}], [*(final - 0.1 for final in FINALS), 0.9])
    assert asked(study, rising(0.42, 6))


def test_later_folds_of_completed_trials_are_not_looked_at(study):
    curves = [rising(final, 30) | {100 + epoch: 0.0 for epoch in range(1, 31)} for final in FINALS]
    over_folds = study_with(curves, [final - 0.4 / 30 for final in FINALS])
    for final in (0.45, 0.60, 0.65):
        assert asked(over_folds, rising(final, 6)) == asked(study, rising(final, 6))


def test_the_prediction_is_ridge_regression_and_its_error_that_of_left_out_trials():
    random = np.random.default_rng(0)
    shown = random.normal(size=(12, 3))
    values = shown @ [0.3, -0.2, 0.1] + 0.05 * random.normal(size=12)
    at = np.array([0.5, 0.1, -0.4])

    def fitted(rows, targets, scaled_by):  # an independent way: least squares with the penalty as further rows
        centre, scale = scaled_by.mean(axis=0), scaled_by.std(axis=0)
        design = np.column_stack((np.ones(len(rows)), (rows - centre) / scale))
        extra = np.column_stack((np.zeros(3), np.eye(3) * math.sqrt(0.1)))
        weights = np.linalg.lstsq(np.vstack((design, extra)), np.concatenate((targets, np.zeros(3))), rcond=None)[0]
        return lambda point: float(weights[0] + ((point - centre) / scale) @ weights[1:])

    predicted, error = predict(shown, values, at)
    assert predicted == pytest.approx(fitted(shown, values, shown)(at), abs=1e-8)
    others = [np.arange(12) != row for row in range(12)]
    left_out = [values[~keep][0] - fitted(shown[keep], values[keep], shown)(shown[~keep][0]) for keep in others]
    design = np.column_stack((np.ones(12), (shown - shown.mean(axis=0)) / shown.std(axis=0)))
    point = np.concatenate(([1.0], (at - shown.mean(axis=0)) / shown.std(axis=0)))
    leverage = point @ np.linalg.inv(design.T @ design + np.diag([0, 0.1, 0.1, 0.1])) @ point
    assert error == pytest.approx(math.sqrt(np.mean(np.square(left_out)) * (1 + leverage)) + 1e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chance": 0.0}, "chance = 0.0 is out of range; expected above 0 and below 1"),
        ({"chance": 1.0}, "chance = 1.0 is out of range"),
        ({"n_startup_trials": 2}, "n_startup_trials = 2 is out of range; expected at least 3"),
        ({"n_warmup_steps": 0}, "n_warmup_steps = 0 is out of range; expected at least 1"),
    ],
)
def test_an_option_out_of_range_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ExtrapolationPruner(**options)
