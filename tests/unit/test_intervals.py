"""The difference of two methods: intervals by hand and by another formula, and each verdict once."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import covered, covered_by_percentiles, differences, shares
from face3d_tune.refit.intervals import (
    compare,
    compare_blocks,
    mean_over_people,
    over_seeds,
    people_needed,
    person_means,
    t_quantile,
    table,
)


def test_every_person_counts_the_same_however_many_pairs_they_have():
    values, persons = np.array([0.1, 0.3, 0.8]), np.array([0, 0, 1])
    every = np.ones(3, dtype=bool)
    assert person_means(values, persons, every) == [pytest.approx(0.2), pytest.approx(0.8)]
    assert person_means(values, persons, np.array([True, False, False])) == [0.1, None]
    assert mean_over_people(table([[0.2, 0.8], [0.4, 0.6]])) == pytest.approx(0.5)
    assert mean_over_people(table([[0.2, None]])) == pytest.approx(0.2)
    assert mean_over_people(table([[None, None]])) is None


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (8, 2.306), (15, 2.131), (30, 2.042), (120, 1.980)]
)
def test_the_quantiles_are_those_of_printed_tables(freedom, expected):
    assert t_quantile(freedom) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("freedom", [1.01, 1.5, 3.7, 11.2, 79.9, 4321.0])
def test_between_whole_degrees_of_freedom_the_quantile_is_scipys(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-10)


def test_with_one_seed_it_is_the_t_interval_over_people():
    """Gains 0, 1, 2, 3, 4: mean 2, variance 2.5, so 2.7764 · sqrt(2.5 / 5) to each side.

    To come down to 0.01 takes 1.96² · 2.5 / 0.01² = 96,037 people and a little more.
    """
    found = compare(np.arange(5.0)[None], np.zeros((1, 5)))
    assert found == {
        **{"difference": 2.0, "people": 5, "verdict": "better", "method": "t"},
        **{"low": pytest.approx(2 - 1.96324, abs=1e-5), "high": pytest.approx(2 + 1.96324, abs=1e-5)},
        **{"half_width": pytest.approx(1.96324, abs=1e-5), "people_needed": pytest.approx(96_037, abs=5)},
    }


def test_with_people_alike_it_is_the_t_interval_over_seeds():
    """Three seeds at 0.1, 0.2, 0.3 for everyone: variance 0.01, so 4.3027 · sqrt(0.01 / 3) (2 degrees of freedom)."""
    found = compare(np.repeat([[0.1], [0.2], [0.3]], 40, axis=1), np.zeros((1, 40)))
    assert (found["low"], found["high"]) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-5)


def two_way(difference):
    """The interval from the mean squares of a two-way analysis of variance, summed cell by cell."""
    seeds, people = difference.shape
    grand = difference.mean()
    of_people = seeds * sum((difference[:, p].mean() - grand) ** 2 for p in range(people)) / (people - 1)
    of_seeds = people * sum((difference[s].mean() - grand) ** 2 for s in range(seeds)) / (seeds - 1)
    freedom = (of_people + of_seeds) ** 2 / (of_people**2 / (people - 1) + of_seeds**2 / (seeds - 1))
    error = np.sqrt((of_people + of_seeds) / (people * seeds))
    return stats.t.interval(0.95, min(freedom, people - 1), grand, error)


@pytest.mark.parametrize("of_seeds", [0.0, 0.005, 0.05])
@pytest.mark.parametrize("people", [2, 5, 16])
def test_people_and_seeds_both_widen_it_as_in_a_two_way_analysis_of_variance(people, of_seeds):
    random = np.random.default_rng(people)
    one = random.normal(0.7, 0.05, (5, people)) + of_seeds * random.normal(size=(5, 1))
    other = random.normal(0.65, 0.05, (5, people))
    found = compare(one, other)
    assert (found["low"], found["high"]) == pytest.approx(two_way(one - other))
    assert found["difference"] == pytest.approx((one - other).mean())


def test_a_method_without_seeds_is_compared_with_every_seed_of_the_other():
    one, other = np.random.default_rng(0).normal(size=(3, 7)), np.linspace(0, 1, 7)[None]
    assert compare(one, other) == compare(one, np.repeat(other, 3, axis=0))


def test_equal_gains_of_all_leave_no_doubt():
    found = compare(np.full((4, 8), 0.5), np.zeros((1, 8)))
    assert (found["low"], found["high"], found["verdict"]) == (0.5, 0.5, "better")
    assert (found["half_width"], found["people_needed"]) == (0, 5)  # fewer get no verdict


@pytest.mark.parametrize(("of_people", "of_seeds"), [(0.04, 0.0), (0.04, 0.005), (0.02, 0.005), (0.1, 0.001)])
def test_so_many_people_narrow_the_interval_to_0_01_and_one_fewer_does_not(of_people, of_seeds):
    """Seeds' means have this deviation, and people's means theirs; the same interval with scipy, person by person."""

    def half_width(people):
        parts = of_people**2 / people, of_seeds**2 / 5
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (people - 1) + parts[1] ** 2 / 4)
        return stats.t.ppf(0.975, min(people - 1, freedom)) * sum(parts) ** 0.5

    needed = people_needed(of_people**2, of_seeds**2, 5)
    assert needed == next(people for people in range(5, 1000) if half_width(people) <= 0.01)


def test_no_number_of_people_makes_up_for_seeds_that_differ():
    """Five seeds that deviate by 0.01 leave 2.776 · 0.01 / sqrt(5) = 0.0124, however many people judge."""
    assert people_needed(0.04**2, 0.01**2, 5) is None
    assert people_needed(0.04**2, 0.01**2, 5, wanted=0.0125) is not None


def test_people_needed_for_half_the_difference_are_four_times_as_many():
    drawn = np.random.default_rng(3).normal(0, 0.04, (1, 16))
    assert compare(drawn / 2, 0 * drawn)["people_needed"] == pytest.approx(
        compare(drawn, 0 * drawn)["people_needed"] / 4, abs=3
    )


def test_one_person_gives_a_difference_without_an_interval():
    assert compare(np.array([[0.5], [0.7]]), np.array([[0.1]])) == {
        **{"difference": pytest.approx(0.5), "low": None, "high": None},
        **{"people": 1, "verdict": "uncertain", "method": "t", "half_width": None, "people_needed": None},
    }


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
    one[0, 1] = np.nan  # diverged on one person only
    assert compare(one, other)["people"] == 4
    one[0, 1] = 0.5
    assert compare(one, other) == compare(one[:, 1:], other[:, 1:])
    without = compare(one * np.nan, other)
    assert (without["difference"], without["low"], without["people"]) == (None, None, 0)
    assert without["verdict"] == "uncertain"


def test_95_per_cent_of_the_intervals_cover_the_true_difference():
    """Five people and seeds: one standard error of 800 confirmations is 0.008."""
    random = np.random.default_rng(0)
    assert covered(differences("normal", random, 800, 5, 5), 0.0) == pytest.approx(0.955, abs=0.02)
    assert covered(shares(random, 800, 5, 5), 0.0) >= 0.93


def test_an_interval_that_is_too_narrow_would_be_noticed():
    random = np.random.default_rng(0)
    drawn = differences("normal", random, 400, 5, 5)
    assert covered_by_percentiles(drawn, 0.0, random) < 0.9


@pytest.mark.parametrize("shape", ["normal", "bounded", "exponential", "log-normal"])
def test_simulated_people_deviate_by_0_04_and_not_on_average(shape):
    drawn = differences(shape, np.random.default_rng(0), 4000, 1, 50, of_seeds=0.0)
    assert drawn.mean() == pytest.approx(0, abs=5e-4)
    assert drawn.std() == pytest.approx(np.hypot(0.04, 0.01), rel=0.02)


def test_over_blocks_of_one_size_it_is_the_t_interval_over_their_means():
    drawn = np.random.default_rng(5).normal(0.02, 0.04, (2, 12))
    found = compare_blocks(drawn, np.zeros((1, 12)), np.repeat(np.arange(4), 3))
    means = drawn.mean(axis=0).reshape(4, 3).mean(axis=1)
    low, high = stats.t.interval(0.95, 3, means.mean(), means.std(ddof=1) / 2)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert (found["difference"], found["people"], found["method"]) == (pytest.approx(drawn.mean()), 12, "t-blocks")


def test_blocks_without_anyone_in_a_band_are_left_out_and_one_block_gives_no_interval():
    drawn = np.random.default_rng(5).normal(0.02, 0.04, (2, 9))
    blocks, none = np.repeat(np.arange(3), 3), np.zeros((1, 9))
    without = np.where(blocks == 1, np.nan, drawn)
    assert compare_blocks(without, none, blocks) == compare_blocks(
        drawn[:, blocks != 1], none[:, blocks != 1], blocks[blocks != 1]
    )
    alone = compare_blocks(np.where(blocks > 0, np.nan, drawn), none, blocks)
    assert (alone["low"], alone["people"], alone["verdict"]) == (None, 3, "uncertain")
    assert compare_blocks(drawn * np.nan, none, blocks)["difference"] is None


def test_people_needed_with_as_many_blocks_narrow_the_interval_to_0_01():
    """Twice the people halve the variance of a block's mean: half the width falls with the root of their number."""
    found = compare_blocks(np.array([[0.0, 0.02, 0.04, 0.06]]), np.zeros((1, 4)), np.arange(4))
    assert found["half_width"] == pytest.approx(stats.t.ppf(0.975, 3) * np.std([0, 2, 4, 6], ddof=1) / 100 / 2)
    assert found["people_needed"] == int(np.ceil(4 * (found["half_width"] / 0.01) ** 2))
    assert found["verdict"] == "uncertain"  # four people


def test_seeds_that_differ_by_block_are_covered_by_the_interval_over_blocks_and_not_by_that_over_people():
    """People deviate by 0.02, the one training of each of ten blocks by 0.04; the true difference is 0."""
    random, blocks = np.random.default_rng(0), np.repeat(np.arange(10), 5)
    inside = []
    for _ in range(400):
        drawn = 0.02 * random.normal(size=(1, 50)) + 0.04 * random.normal(size=10)[None, blocks]
        found = compare_blocks(drawn, 0 * drawn, blocks), compare(drawn, 0 * drawn)
        inside.append([each["low"] <= 0 <= each["high"] for each in found])
    over_blocks, over_people = np.mean(inside, axis=0)
    assert over_blocks == pytest.approx(0.95, abs=0.025)
    assert over_people < 0.75


def test_the_interval_over_seeds_is_that_of_the_paired_t_test():
    one, other = [0.5, 0.7, 0.6, 0.8], [0.4, 0.5, 0.5, 0.6]
    found, expected = over_seeds(one, other), stats.ttest_rel(one, other).confidence_interval(0.95)
    assert found["difference"] == pytest.approx(0.15)
    assert (found["low"], found["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (found["seeds"], found["verdict"]) == (4, "better")
    assert over_seeds(other, one)["verdict"] == "worse"
    assert over_seeds([0.5, 0.7], [0.6, 0.5])["verdict"] == "same"


@pytest.mark.parametrize("values", [([0.5], [0.4]), ([0.3, 0.4, 0.5], [0.1, 0.2, 0.3])])
def test_one_seed_or_equal_differences_show_no_noise_and_give_no_interval(values):
    found = over_seeds(*values)
    assert (found["low"], found["high"], found["verdict"]) == (None, None, "uncertain")
