"""What test people say of a difference: intervals by another way, and each verdict once."""

import numpy as np
import pytest

from face3d_tune.refit import bootstrap
from face3d_tune.refit.bootstrap import compare, mean_over_people, person_means, table


def test_every_person_counts_the_same_however_many_pairs_they_have():
    values, persons = np.array([0.1, 0.3, 0.8]), np.array([0, 0, 1])
    every = np.ones(3, dtype=bool)
    assert person_means(values, persons, every) == [pytest.approx(0.2), pytest.approx(0.8)]
    assert person_means(values, persons, np.array([True, False, False])) == [0.1, None]
    assert mean_over_people(table([[0.2, 0.8], [0.4, 0.6]])) == pytest.approx(0.5)
    assert mean_over_people(table([[0.2, None]])) == pytest.approx(0.2)
    assert mean_over_people(table([[None, None]])) is None


def test_with_one_seed_and_people_of_two_kinds_the_interval_is_the_binomial_distributions():
    """Ten people, half of whom gain 1: a mean of ten draws is k / 10 with the probabilities of ten coins.

    P(k <= 1) = 11 / 1024 = 1.1 % and P(k <= 2) = 56 / 1024 = 5.5 %, so 2.5 % lies at 2; by symmetry 97.5 % at 8.
    """
    found = compare(np.array([[1.0] * 5 + [0.0] * 5]), np.zeros((1, 10)))
    assert (found["difference"], found["people"]) == (0.5, 10)
    assert (found["low"], found["high"]) == pytest.approx((0.2, 0.8))


def test_the_interval_is_that_of_drawing_people_and_seeds_one_by_one():
    """The plain way: lists of drawn indices instead of counts."""
    random = np.random.default_rng(1)
    one, other = random.normal(0.7, 0.1, (5, 16)), random.normal(0.65, 0.1, (5, 16))
    means = []
    for _ in range(20_000):
        seeds, people = random.integers(5, size=5), random.integers(16, size=16)
        means.append((one - other)[np.ix_(seeds, people)].mean())
    found = compare(one, other)
    assert found["difference"] == pytest.approx((one - other).mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.002)


def test_seeds_that_differ_widen_the_interval():
    flat = np.full((4, 8), 0.1)
    seeds = flat + np.array([[-0.1], [0.1], [-0.1], [0.1]])
    assert compare(flat, np.zeros((4, 8)))["low"] == pytest.approx(0.1)
    assert compare(seeds, np.zeros((4, 8)))["low"] == pytest.approx(0.0)  # all of the drawn are the low ones: 1 in 16


def test_the_same_numbers_give_the_same_interval():
    one = np.random.default_rng(0).normal(size=(3, 7))
    assert compare(one, one[::-1]) == compare(one, one[::-1])
    assert bootstrap.RESAMPLES >= 10_000


@pytest.mark.parametrize(
    ("gain", "people", "expected"),
    [
        ([0.1, 0.2], 6, "better"),
        ([-0.1, -0.2], 6, "worse"),
        ([0.1, -0.1], 6, "same"),
        ([0.1, 0.2], 4, "uncertain"),  # fewer than five
    ],
)
def test_each_verdict(gain, people, expected):
    one = np.resize(gain, (2, people))
    found = compare(one, np.zeros((1, people)))
    assert found["verdict"] == expected
    assert found["low"] <= found["difference"] <= found["high"]


def test_people_without_pairs_in_a_band_are_left_out_of_it():
    one, other = np.full((2, 6), 0.5), np.zeros((1, 6))
    one[:, 0] = other[:, 0] = np.nan
    assert compare(one, other) == {"difference": 0.5, "low": 0.5, "high": 0.5, "people": 5, "verdict": "better"}
    nobody = compare(one * np.nan, other)
    assert (nobody["difference"], nobody["people"], nobody["verdict"]) == (None, 0, "uncertain")
