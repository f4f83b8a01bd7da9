"""The mean of unit predictions and its blend with a baseline, against the definitions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_data import unit

from face3d_tune.training import ensemble, ridge


def random_units(seed, rows=5, size=4):
    return unit(np.random.default_rng(seed).normal(size=(rows, size)))


def test_the_mean_of_two_perpendicular_predictions_points_between_them():
    mean = ensemble.average([np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])])
    assert mean == pytest.approx(np.array([[math.sqrt(0.5), math.sqrt(0.5)], [1.0, 0.0]]))


def test_only_the_ratios_of_weights_count():
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert ensemble.average([one, other], [3, 4]) == pytest.approx(np.array([[0.6, 0.8]]))
    assert ensemble.average([one, other], [0.3, 0.4]) == pytest.approx(np.array([[0.6, 0.8]]))


def test_float32_predictions_are_averaged_in_float64():
    members = [random_units(seed).astype(np.float32) for seed in range(3)]
    mean = ensemble.average(members)
    assert mean.dtype == np.float64
    assert np.linalg.norm(mean, axis=1) == pytest.approx(np.ones(5), abs=1e-15)


def test_opposite_predictions_have_no_mean():
    mean = ensemble.average([np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[-1.0, 0.0], [0.0, 1.0]])])
    assert np.isnan(mean).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_blend_is_the_weighted_sum_of_mean_and_baseline_at_length_1(weight):
    members, baseline = [random_units(seed) for seed in range(3)], random_units(9)
    for row, made in enumerate(ensemble.blend(members, baseline, weight)):
        mean = sum(member[row] for member in members) / 3
        expected = (1 - weight) * mean + weight * baseline[row]
        assert made == pytest.approx(expected / math.sqrt(sum(expected**2)))


def test_the_weights_tried_are_every_twentieth():
    tried = list(ensemble.BLEND_WEIGHTS)
    assert [f"{weight:.2f}" for weight in tried] == [f"{step * 0.05:.2f}" for step in range(21)]


# The choice of the weight


@pytest.fixture
def members(data):
    """Predictions for the validation views that go wrong, each its own way."""
    own = unit(data.front_features[data.parts["validation"][:, 0]].astype(np.float64))
    return [unit(own + 0.6 * random_units(seed, *own.shape)) for seed in range(2)]


def identity(data, made):
    """By the definition, one view at a time, without test people; every person has as many views and one front row."""
    fronts, scores = unit(data.front_features.astype(np.float64)), []
    enrolled = [row for row, name in enumerate(data.front_names) if name not in data.people["test"]]
    for own, prediction in zip(data.parts["validation"][:, 0], made, strict=True):
        s = fronts @ prediction
        scores.append(0.1 * math.log(math.exp(s[own] / 0.1) / sum(math.exp(s[each] / 0.1) for each in enrolled)))
    return sum(scores) / len(scores)


def test_the_weight_with_the_highest_identity_is_chosen(data, members):
    baseline = ridge.fit(data).predict(data, "validation")
    reached = {
        step / 20: identity(data, unit((1 - step / 20) * (members[0] + members[1]) / 2 + step / 20 * baseline))
        for step in range(21)
    }
    best = max(reached, key=lambda weight: reached[weight])
    assert 0 < best < 1  # a choice that looks at one end only would find that end
    assert ensemble.choose_weight(members, baseline, data) == best


def test_of_equal_weights_the_smallest_is_chosen(data, members):
    assert ensemble.choose_weight(members[:1], members[0], data) == 0


def test_a_perfect_baseline_gets_all_the_weight_and_a_reversed_one_none(data):
    fronts = np.eye(len(data.front_names), data.feature_size, dtype=np.float32)  # strangers that no blend leans to
    data = replace(data, front_features=fronts)
    perfect = fronts[data.parts["validation"][:, 0]].astype(np.float64)
    wrong = unit(perfect + 0.5 * np.abs(random_units(1, *perfect.shape)))
    assert ensemble.choose_weight([wrong], perfect, data) == 1
    assert ensemble.choose_weight([perfect], -perfect, data) == 0


def test_no_number_of_a_test_person_changes_the_weight(data, members):
    def chosen(data):
        return ensemble.choose_weight(members, ridge.fit(data).predict(data, "validation"), data)

    front, video = data.parts["test"].T
    toward = unit(np.mean(members, axis=0))[0]  # where a stranger would take the most
    fronts, views = data.front_features.copy(), data.video_features.copy()
    fronts[front], views[video] = toward, toward
    assert len(front)
    changed = replace(data, front_features=fronts, video_features=views)
    assert chosen(changed) == chosen(data)
    # A validation person's front does change it, or else the comparison above would show nothing.
    fronts[data.parts["validation"][:, 0]] = -data.front_features[data.parts["validation"][:, 0]]
    assert chosen(replace(data, front_features=fronts)) != chosen(data)
