"""The guide's four things to watch, read from curves made by hand."""

from dataclasses import replace

import pytest

from face3d_tune.analysis.diagnostics import read
from face3d_tune.config import TrialConfig
from face3d_tune.study.history import History

CONFIG = TrialConfig(d_model=16, dim_feedforward=64, scheduler_factor=0.5, scheduler_patience=2, scheduler_min_lr=1e-4)


def readings(**columns):
    return {reading.about: reading for reading in read(History(**({"cosine": ()} | columns)), CONFIG)}


def verdicts(**columns):
    return {about: reading.verdict for about, reading in readings(**columns).items()}


FALLING = tuple(1.0 - 0.05 * epoch for epoch in range(12))  # to 0.45
FLAT = (1.0, 0.5) + (0.505,) * 13  # lowest in epoch 2


def rising_to(end):
    return (1.0,) + (0.5,) * 9 + (end,) * 3


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        (FALLING, "falling"),
        (FLAT, "flat"),
        (rising_to(0.52), "rising"),
        (rising_to(0.51), "flat"),  # exactly 2 % is no rise
        (FALLING[:10], "short"),  # ten epochs say nothing yet
        (FALLING[:2], "unknown"),
        ((1.0,) + (0.99,) * 10, "flat"),  # exactly 1 % in the last ten
        ((1.0,) + (0.98,) * 10, "falling"),
    ],
)
def test_the_trend_of_the_validation_loss(loss, verdict):
    assert verdicts(val_loss=loss)["loss"] == verdict


def test_the_numbers_behind_a_trend():
    numbers = readings(val_loss=FLAT)["loss"].numbers
    assert (numbers["epochs"], numbers["best_epoch"], numbers["lowest"], numbers["since"]) == (15, 2, 0.5, 13)
    assert numbers["rise"] == pytest.approx(0.01)
    assert numbers["recent_fall"] == 0.0


@pytest.mark.parametrize(
    ("cosine", "verdict"),
    [
        ((0.2, 0.85, 0.85, 0.85, 0.85, 0.85), "reached-stable"),
        ((0.2, 0.2, 0.2, 0.80, 0.9), "reached-moving"),
        ((0.625, 0.625, 0.625, 0.6328125), "below-stable"),
        ((0.2, 0.4, 0.6), "below-moving"),
        ((0.2, 0.4), "unknown"),
    ],
)
def test_the_cosine_against_the_goal(cosine, verdict):
    assert verdicts(cosine=cosine)["cosine"] == verdict


def test_the_cosine_that_counts_is_that_of_the_epoch_with_the_lowest_loss():
    reading = readings(cosine=(0.2, 0.84, 0.9), val_loss=(0.9, 0.1, 0.2))["cosine"]
    assert (reading.verdict, reading.numbers["kept"]) == ("below-moving", 0.84)
    assert readings(cosine=(0.2, 0.84, 0.9))["cosine"].numbers["kept"] == 0.9  # nothing better is known


@pytest.mark.parametrize(
    ("lr", "verdict", "decays"),
    [
        ((1e-2,) * 9, "never", []),
        ((8e-3,) * 4 + (4e-3,) * 9 + (2e-3,) * 9, "decayed", [5, 14]),
        ((8e-3,) * 4 + (4e-3,) * 3 + (2e-3,) * 3 + (1e-3,) * 3, "frequent", [5, 8, 11]),  # each after the patience
        ((8e-3,) * 4 + (4e-3,) * 8 + (2e-3,) * 8 + (1e-3,) * 3, "decayed", [5, 13, 21]),
        ((3e-4,) * 4 + (1.5e-4,) * 4 + (1e-4,) * 4, "floor", [5, 9]),
        ((1e-3,) * 2, "unknown", None),
        ((), "unknown", None),  # of an imported training
    ],
)
def test_the_learning_rate(lr, verdict, decays):
    reading = readings(lr=lr)["lr"]
    assert (reading.verdict, reading.numbers.get("decays")) == (verdict, decays)


def test_a_rate_that_began_at_its_floor_was_never_lowered():
    assert verdicts(lr=(1e-4,) * 5)["lr"] == "never"


def test_a_cosine_schedule_is_no_sign_of_anything_and_a_warm_up_no_first_rate():
    cosine = replace(CONFIG, scheduler_type="cosine", warmup_epochs=1)
    row = read(History(cosine=(), lr=(5e-3, 1e-2, 5e-3, 1e-4)), cosine)[2]
    assert (row.verdict, row.numbers["first"], row.numbers["last"]) == ("annealed", 1e-2, 1e-4)
    assert readings(lr=(4e-3, 8e-3, 8e-3, 4e-3))["lr"].numbers["first"] == 8e-3


TRAIN = (1.2, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7)


@pytest.mark.parametrize(
    ("train", "loss", "verdict"),
    [
        (FALLING, FALLING, "together"),  # the lowest at the very end
        ((1.2, 0.8, 0.6, 0.5, 0.4), (1.0, 0.5, 0.55, 0.6, 0.6), "overfitting"),
        ((1.2, 0.8, 0.9, 0.9, 0.9), (1.0, 0.5, 0.55, 0.6, 0.6), "unstable"),
        ((1.2, 0.8, 0.6, 0.5, 0.4), (1.0, 0.5, 0.51, 0.51, 0.51), "saturated"),  # 2 % is no rise
        ((1.2, 1.0, 0.98, 0.98, 0.98), (1.0, 0.5, 0.5, 0.5, 0.5), "together"),  # nor 2 % a fall
        ((1.2, 0.8, 0.7, 0.6), (1.0, 0.5, 0.6, 0.7), "unknown"),  # two epochs after the lowest
        ((), FALLING, "unknown"),
    ],
)
def test_the_gap(train, loss, verdict):
    assert verdicts(train_loss=train, val_loss=loss)["gap"] == verdict


def test_a_gap_that_only_widens_because_dropout_is_on_is_no_overfitting():
    """As in every search: validation begins far below training, and comes to lie above it."""
    train = tuple(0.64 * 0.9**epoch + 0.1 for epoch in range(40))
    loss = tuple(0.40 * 0.9**epoch + 0.12 for epoch in range(40))
    gaps = [validation - training for validation, training in zip(loss, train, strict=True)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0 < gaps[-1]
    assert verdicts(train_loss=train, val_loss=loss)["gap"] == "together"


def test_the_numbers_behind_a_gap():
    numbers = readings(train_loss=(1.2, 0.8, 0.6, 0.5, 0.4), val_loss=(1.0, 0.5, 0.55, 0.6, 0.6))["gap"].numbers
    assert numbers["best_epoch"] == 2
    assert numbers["first"] == pytest.approx(-0.2)
    assert numbers["best"] == pytest.approx(-0.3)
    assert numbers["last"] == pytest.approx(0.2)
    assert numbers["val_change"] == pytest.approx((0.55 + 0.6 + 0.6) / 3 / 0.5 - 1)
    assert numbers["train_change"] == pytest.approx(0.5 / 0.8 - 1)
