"""What training minimises, worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_data import unit

from face3d_tune.config import TrialConfig
from face3d_tune.training.losses import combine, cosines, pair_weights, squared_errors, weighs

CONFIG = TrialConfig(d_model=8, dim_feedforward=8, mse_weight=0.25, cosine_weight=0.5)


def test_the_squared_error_of_a_pair_is_the_mean_over_its_numbers():
    prediction = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 4.0]])
    target = torch.tensor([[1.0, 4.0], [1.0, 2.0], [3.0, 4.0]])
    assert squared_errors(prediction, target).tolist() == [2.0, 5.0, 0.0]  # (0+4)/2, (1+9)/2, 0


def test_the_cosine_of_a_pair_does_not_depend_on_length():
    prediction = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 1.0], [-5.0, 0.0], [7.0, 0.0]])
    target = torch.tensor([[4.0, 3.0], [0.0, 0.1], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert cosines(prediction, target).tolist() == pytest.approx([24 / 25, 1, math.sqrt(0.5), -1, 0], abs=1e-7)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("mse", 0.8),
        ("cosine", 0.4),  # 1 − 0.6
        ("combined", 0.4),  # 0.25 · 0.8 + 0.5 · 0.4
    ],
)
def test_the_loss_type_says_which_terms_count(loss_type, expected):
    config = replace(CONFIG, loss_type=loss_type)
    assert combine(config, 0.8, 0.6) == pytest.approx(expected)
    assert combine(config, torch.tensor(0.8), torch.tensor(0.6)).item() == pytest.approx(expected)


def test_each_weight_belongs_to_its_own_term():
    assert combine(replace(CONFIG, mse_weight=1.0), 0.8, 0.6) == pytest.approx(1.0)  # 0.8 + 0.5 · 0.4
    assert combine(replace(CONFIG, cosine_weight=1.0), 0.8, 0.6) == pytest.approx(0.6)  # 0.25 · 0.8 + 0.4
    for loss_type in ("mse", "cosine"):
        only = replace(CONFIG, loss_type=loss_type)
        assert combine(only, 0.8, 0.6) == combine(replace(only, mse_weight=9.0, cosine_weight=9.0), 0.8, 0.6)


def test_the_mean_squared_error_of_unit_vectors_follows_from_their_cosine():
    random = np.random.default_rng(0)
    for size in (3, 16, 512):
        one, other = (torch.from_numpy(unit(random.normal(size=(20, size)))) for _ in range(2))
        torch.testing.assert_close(squared_errors(one, other), 2 * (1 - cosines(one, other)) / size)
        doubled = 2 * one  # no unit vector: the identity must fail
        assert not torch.allclose(squared_errors(doubled, other), 2 * (1 - cosines(doubled, other)) / size)


@pytest.mark.parametrize("loss_type", ["mse", "cosine", "combined"])
def test_gradients_flow_to_the_prediction_as_the_formula_says(loss_type):
    config = replace(CONFIG, loss_type=loss_type)
    random = np.random.default_rng(1)
    start, target = random.normal(size=(4, 6)), random.normal(size=(4, 6))

    def loss(values):  # the same in numpy
        cosine = (values * target).sum(1) / np.linalg.norm(values, axis=1) / np.linalg.norm(target, axis=1)
        mse, one_minus = np.square(values - target).mean(), 1 - cosine.mean()
        return {"mse": mse, "cosine": one_minus, "combined": 0.25 * mse + 0.5 * one_minus}[loss_type]

    prediction = torch.from_numpy(start).requires_grad_()
    goal = torch.from_numpy(target)
    value = combine(config, squared_errors(prediction, goal).mean(), cosines(prediction, goal).mean())
    value.backward()
    assert value.item() == pytest.approx(loss(start), rel=1e-12)
    slopes = np.empty_like(start)
    for place in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-6
        slopes[place] = (loss(start + step) - loss(start - step)) / 2e-6
    np.testing.assert_allclose(prediction.grad.numpy(), slopes, atol=1e-8)
    assert np.abs(slopes).min() > 1e-6  # the comparison would see a gradient that is missing


def test_in_the_combined_loss_the_cosine_term_outweighs_the_other_hundreds_of_times():
    random = np.random.default_rng(2)
    one, other = (torch.from_numpy(unit(random.normal(size=(50, 512)))) for _ in range(2))
    mse, cosine = squared_errors(one, other).mean().item(), cosines(one, other).mean().item()
    assert (1 - cosine) / mse == pytest.approx(256)  # F / 2


# Weights of the pairs of a batch

COSINES = torch.tensor([0.0, 0.5, 0.75], dtype=torch.float64)
YAW = torch.tensor([0.0, 45.0, 90.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"angle_weight": 1.0}, [1, 1.5, 2]),  # 1 + |yaw| / 90
        ({"angle_weight": 0.5}, [1, 1.25, 1.5]),
        ({"focal_gamma": 1.0}, [1, 0.5, 0.25]),  # 1 - cosine
        ({"focal_gamma": 2.0}, [1, 0.25, 0.0625]),
        ({"focal_gamma": 0.5, "angle_weight": 2.0}, [1, 2 * math.sqrt(0.5), 3 * 0.5]),
    ],
)
def test_a_pair_counts_by_its_angle_and_by_how_far_it_is_from_its_target_and_the_mean_is_1(values, expected):
    weights = pair_weights(replace(CONFIG, **values), COSINES, YAW)
    mean = sum(expected) / 3
    assert weights.tolist() == pytest.approx([each / mean for each in expected], rel=1e-12)


def test_by_default_no_pair_is_weighed():
    assert not weighs(CONFIG)
    assert weighs(replace(CONFIG, focal_gamma=0.1))
    assert weighs(replace(CONFIG, angle_weight=0.1))
    assert pair_weights(CONFIG, COSINES, YAW).tolist() == [1.0, 1.0, 1.0]


def test_no_gradient_flows_through_a_weight():
    prediction = torch.tensor([[1.0, 0.2], [0.1, 1.0]], dtype=torch.float64, requires_grad=True)
    cosine = cosines(prediction, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    weights = pair_weights(replace(CONFIG, focal_gamma=2.0), cosine, torch.zeros(2, dtype=torch.float64))
    assert cosine.requires_grad
    assert not weights.requires_grad


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_pairs_that_are_right_but_for_rounding_have_finite_weights(gamma):
    config = replace(CONFIG, focal_gamma=gamma)
    weights = pair_weights(config, torch.tensor([1.0, 1.0000002]), torch.zeros(2))
    assert weights.tolist() == [1.0, 1.0]
    mixed = pair_weights(config, torch.tensor([1.0000002, 0.0]), torch.zeros(2))
    assert mixed.tolist() == pytest.approx([2 * 1e-6**gamma, 2], abs=3e-3)
