"""The race between folds, with numbers worked out by hand."""

from math import sqrt

import numpy as np
import optuna
import pytest

from face3d_tune.search.racing import is_lost, noise

# Trials of 0.6, 0.7, 0.5, folds of -0.1, 0, 0.1, and a rest whose rows and columns add up to nothing: six
# times a hundredth, so that s² = 6e-4 / ((3 - 1)(3 - 1)).
LEFT = np.array([[1, -1, 0], [-1, 0, 1], [0, 1, -1]]) / 100
VALUES = np.array([[0.6], [0.7], [0.5]]) + np.array([[-0.1, 0.0, 0.1]]) + LEFT


def test_the_noise_is_what_is_left_without_the_main_effects():
    assert noise(VALUES.tolist()) == pytest.approx(sqrt(6e-4 / 4), rel=1e-9)
    harder = VALUES + np.array([[-0.3, 0.2, 0.0]])  # other folds change nothing
    assert noise(harder.tolist()) == pytest.approx(sqrt(6e-4 / 4), rel=1e-9)


def test_values_that_are_a_sum_of_trial_and_fold_have_no_noise():
    assert noise((VALUES - LEFT).tolist()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("folds", [1, 2])
def test_a_trial_is_lost_more_than_two_standard_errors_below_the_best_on_the_same_folds(folds):
    best = VALUES[1, :folds]  # 0.7 is the best mean
    limit = 2 * sqrt(1.5e-4) * sqrt(2 / folds)
    assert is_lost((best - limit - 1e-6).tolist(), VALUES.tolist())
    assert not is_lost((best - limit + 1e-6).tolist(), VALUES.tolist())


def test_how_hard_a_fold_is_does_not_count():
    """In the first fold everybody is low: a value that would be hopeless in another is none there."""
    assert VALUES[1, 0] == pytest.approx(0.59)
    assert not is_lost([0.58], VALUES.tolist())
    assert is_lost([0.58], (VALUES + np.array([[0.2, 0.0, 0.0]])).tolist())


def test_of_fewer_than_three_completed_trials_nothing_follows():
    assert not is_lost([-1.0], VALUES[:2].tolist())
    assert is_lost([-1.0], VALUES.tolist())
    assert not is_lost([-1.0], [])


def test_the_best_is_the_one_with_the_best_mean_over_all_folds():
    first_looks_best = [*(VALUES - LEFT).tolist(), [0.8, 0.1, 0.1]]
    spread = noise(first_looks_best) * sqrt(2) * 2
    best_in_fold_1 = 0.6  # of the trial with the best mean; another had 0.8 there
    assert not is_lost([best_in_fold_1 - 0.9 * spread], first_looks_best)
    assert is_lost([best_in_fold_1 - 1.1 * spread], first_looks_best)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("folds", "asked"), [(3, [False] * 3), (4, [False] * 3 + [True])])
def test_wilcoxons_pruner_stops_no_trial_that_is_worse_on_every_one_of_so_few_folds(folds, asked):
    """Of n signs the clearest answer there is has a chance of 2 to the -n: below 0.1 from four folds on, the last."""
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.WilcoxonPruner())
    best = study.ask()
    for fold in range(folds):
        best.report(0.9 + 0.01 * fold, fold)
    study.tell(best, 0.9)
    trial, answers = study.ask(), []
    for fold in range(folds):
        trial.report(0.1 + 0.02 * fold, fold)
        answers.append(trial.should_prune())

    assert answers == asked
    values = [[0.9 + 0.01 * fold + level for fold in range(folds)] for level in (0, -0.1, -0.2)]
    assert is_lost([0.1], values)
