"""The pruner that knows the shapes of learning curves."""

import math

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from face3d_tune.search import shape_pruner
from face3d_tune.search.shape_pruner import ShapePruner, chance_to_pass, terms

FLAT = [0.30, 0.40, 0.45, 0.48, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50]
RISING = [0.05 + 0.03 * epoch for epoch in range(12)]


def asked(curve, values=(0.62,), **options):
    study = optuna.create_study(direction="maximize")
    for value in values:
        study.add_trial(create_trial(value=value, state=TrialState.COMPLETE))
    running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(curve, start=1)))
    return ShapePruner(**options).prune(study, running)


def test_the_terms_are_logarithms_of_shares_of_the_way_and_of_epochs():
    """By hand: of a way of 0.5 the curve lacks 0.2, or 0.4, and rose 0.1 in epochs 3 and 4, or 0.2, the last in 3."""
    lacks, rose, time, still = math.log(0.404), math.log(0.204), math.log(4), math.log(2)
    products = (lacks * time, rose * time, still * time, time**2, lacks**2)
    assert terms([0.0, 0.2, 0.3, 0.3], 0.5) == pytest.approx((1, lacks, rose, time, still, *products))


def test_the_chance_is_the_logistic_function_of_the_weighted_terms(monkeypatch):
    monkeypatch.setattr(shape_pruner, "_WEIGHTS", (-1.0, *[0.0] * 9))
    assert chance_to_pass([0.0, 0.2], 0.5) == pytest.approx(1 / (1 + math.e))
    monkeypatch.setattr(shape_pruner, "_WEIGHTS", (0.0, 0.0, 0.0, 1.0, *[0.0] * 6))
    assert chance_to_pass([0.0, 0.1, 0.2], 0.5) == pytest.approx(3 / 4)  # odds of 3 after 3 epochs


def test_a_curve_that_is_above_the_best_goes_on():
    assert chance_to_pass([0.1, 0.7, 0.6], 0.65) == 1.0
    assert not asked([*FLAT, 0.63, 0.4, 0.4])


def test_a_flat_curve_is_stopped_and_one_as_far_behind_that_rises_is_not():
    assert asked(FLAT)
    assert RISING[-1] < FLAT[-1]
    assert not asked(RISING)


def test_one_completed_trial_is_enough_and_none_is_too_few():
    assert asked(FLAT, values=[0.62])
    assert not asked(FLAT, values=[])


def test_the_best_completed_trial_decides():
    assert asked(FLAT, values=[0.2, 0.62, 0.3])
    assert not asked(FLAT, values=[0.2, 0.49, 0.3])


def test_nothing_is_stopped_in_the_warm_up():
    assert asked(FLAT, n_warmup_steps=12)
    assert not asked(FLAT, n_warmup_steps=13)


def test_a_higher_chance_that_is_asked_for_stops_more():
    chance = chance_to_pass(FLAT, 0.52)
    assert 0.001 < chance < 0.5
    assert asked(FLAT, values=[0.52], chance=1.01 * chance)
    assert not asked(FLAT, values=[0.52], chance=0.99 * chance)


@pytest.mark.parametrize(("offset", "unit"), [(-1.0, 1.0), (-3.0, 0.5), (0.2, 40.0)])
def test_neither_sign_nor_unit_of_the_objective_matters(offset, unit):
    """Identity is in units of cosine and at most 0."""
    moved = [offset + unit * value for value in RISING]
    assert chance_to_pass(moved, offset + unit * 0.62) == pytest.approx(chance_to_pass(RISING, 0.62))


def test_later_epochs_than_the_stored_trainings_have_count_as_their_last():
    rising = [math.log(epoch) for epoch in range(1, 401)]
    assert terms(rising, 9.0)[3] == math.log(100)


@pytest.mark.parametrize("curve", [FLAT, FLAT[:8], RISING])
def test_on_the_last_half_of_the_way_the_chance_is_the_smaller_the_higher_the_best_is(curve):
    chances = [chance_to_pass(curve, max(curve) + ahead) for ahead in (0.01, 0.02, 0.05, 0.1)]
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chance": 0.0}, "chance = 0.0 is out of range; expected above 0 and below 1"),
        ({"chance": 1.0}, "chance = 1.0 is out of range; expected above 0 and below 1"),
        ({"n_warmup_steps": 0}, "n_warmup_steps = 0 is out of range; expected at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ShapePruner(**options)
