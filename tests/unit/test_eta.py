"""How long a search may still take."""

import math
import random

import pytest

from face3d_tune.cli.eta import in_words, time_left


def test_trials_that_all_take_the_same_time_leave_no_doubt():
    assert time_left([60.0] * 5, remaining=10, at_once=2, spent=0.0) == (300.0, 300.0)


def test_what_trials_in_training_have_taken_is_not_taken_again():
    assert time_left([60.0] * 5, remaining=2, at_once=2, spent=40.0) == (40.0, 40.0)
    assert time_left([60.0] * 5, remaining=1, at_once=1, spent=100.0) == (0.0, 0.0)


def test_the_range_holds_the_doubt_of_the_rest_and_of_the_mean():
    # Mean 30, variance 250 of five; four more: deviation sqrt(250 * 4 * (1 + 4 / 5)) = 42.43, times 1.28.
    low, high = time_left([10.0, 20.0, 30.0, 40.0, 50.0], remaining=4, at_once=1, spent=0.0)
    assert (low, high) == (pytest.approx(120 - 1.28 * math.sqrt(1800)), pytest.approx(120 + 1.28 * math.sqrt(1800)))


def test_about_eighty_of_a_hundred_searches_end_within_their_range():
    rng, within = random.Random(3), 0
    for _ in range(400):
        before, rest = ([rng.expovariate(1 / 60) for _ in range(count)] for count in (20, 30))
        low, high = time_left(before, remaining=30, at_once=1, spent=0.0)
        within += low <= sum(rest) <= high
    assert 0.72 < within / 400 < 0.88


def test_few_trials_say_nothing_about_those_to_come():
    assert time_left([60.0] * 4, remaining=10, at_once=1, spent=0.0) is None
    assert time_left([60.0] * 5, remaining=10, at_once=0, spent=0.0) is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 0, "0 s"),
        (20, 80, "20–80 s"),
        (30, 90, "0–2 min"),
        (480, 720, "8–12 min"),
        (600, 605, "10 min"),
        (5000, 9000, "1.4–2.5 h"),
    ],
)
def test_a_range_is_said_in_one_unit(low, high, words):
    assert in_words(low, high) == words
