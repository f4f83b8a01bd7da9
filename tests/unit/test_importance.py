"""Which parameters the differences between trials go with, beside what chance gives."""

import random

import pytest

from face3d_tune.analysis.importance import FEWEST, ValueGroup, importances


def named(found):
    return {importance.name: importance for importance in found}


def test_the_share_is_the_variance_between_groups_over_all_variance():
    # Means 1 and 3 of two groups of six around 2: between = 12 * 1; all = 12 * 1 + 12 * 0.25.
    cosines = [0.5, 1.5] * 3 + [2.5, 3.5] * 3
    (found,) = importances({"unit": ["a"] * 6 + ["b"] * 6}, cosines)
    assert found.share == pytest.approx(12 / 15)
    assert found.groups == (ValueGroup("a", "a", 6, 1.0), ValueGroup("b", "b", 6, 3.0))


def test_a_number_is_cut_into_four_groups_of_equal_size():
    cosines = [float(value % 5) for value in range(20)]
    (found,) = importances({"lr": [10.0**-value for value in range(20)]}, cosines)
    assert [group.trials for group in found.groups] == [5, 5, 5, 5]
    assert (found.groups[0].low, found.groups[0].high) == (1e-19, 1e-15)
    assert [group.mean for group in found.groups] == [2.0] * 4
    assert found.share == 0


def test_a_number_with_few_values_is_cut_between_them():
    (found,) = importances({"layers": [2, 4, 6] * 4}, [0.2, 0.4, 0.6] * 4)
    assert [(group.low, group.high, group.trials) for group in found.groups] == [(2, 2, 4), (4, 4, 4), (6, 6, 4)]
    assert found.share == pytest.approx(1.0)


def test_equal_numbers_are_in_one_group():
    (found,) = importances({"min_lr": [0.0] * 10 + [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3]}, list(range(16)))
    assert sum(group.low <= 0.0 <= group.high for group in found.groups) == 1
    assert sum(group.trials for group in found.groups) == 16


def test_truth_values_are_choices():
    (found,) = importances({"flag": [False, True] * 8}, [0.1, 0.2] * 8)
    assert [(group.low, group.mean) for group in found.groups] == [
        (False, pytest.approx(0.1)),
        (True, pytest.approx(0.2)),
    ]


def test_what_matters_is_above_chance_and_what_does_not_is_below():
    rng = random.Random(1)
    lr, dropout = ([rng.random() for _ in range(60)] for _ in range(2))
    unit = [rng.choice(["degrees", "radians"]) for _ in lr]
    cosines = [(rate > 0.5) + 0.3 * rng.random() for rate in lr]
    found = named(importances({"dropout": dropout, "lr": lr, "unit": unit}, cosines))
    assert next(iter(found)) == "lr"
    assert [name for name, importance in found.items() if importance.sure] == ["lr"]


def test_chance_alone_is_taken_for_an_effect_in_about_five_of_a_hundred_studies():
    rng = random.Random(7)
    fooled = 0
    for _ in range(100):
        columns = {f"p{number}": [rng.random() for _ in range(30)] for number in range(5)}
        fooled += any(importance.sure for importance in importances(columns, [rng.gauss(0, 1) for _ in range(30)]))
    assert fooled <= 12  # P(more than 12 of 100 at 5 %) is 0.0015


def test_a_parameter_that_never_changed_is_not_named():
    assert importances({"lr": [0.1] * 20}, list(range(20))) == []


def test_few_trials_say_nothing_about_parameters():
    enough = list(range(FEWEST))
    assert importances({"lr": enough}, enough)
    assert importances({"lr": enough[1:]}, enough[1:]) == []


def test_trials_that_are_all_alike_say_nothing_about_parameters():
    assert importances({"lr": list(range(20))}, [0.5] * 20) == []
