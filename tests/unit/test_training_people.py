"""The identity term: the cross-entropy of the right person among the people who train, worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_data import with_more_fronts

from face3d_tune.config import TrialConfig
from face3d_tune.training import losses
from face3d_tune.training.base import PairTensors
from face3d_tune.training.batched.losses import loss_gradient
from face3d_tune.training.batched.network import ViewBatch
from face3d_tune.training.batched.table import Identity, PairBatch
from face3d_tune.training.plain import Trainer
from face3d_tune.training.training_people import TrainingPeople

CPU = torch.device("cpu")
SMALL = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, num_layers=1, batch_size=8, epochs=1, pose_unit="radians")


def people_of(*rows):
    """Training people from (person, front embedding) rows, one pair a row."""
    target = torch.tensor([vector for _, vector in rows], dtype=torch.float64)
    person = torch.tensor([number for number, _ in rows])
    return TrainingPeople(target, np.arange(len(rows)), person)


def entropy(people, prediction, person, temperature):
    vectors = torch.tensor([prediction], dtype=torch.float64)
    return people.cross_entropies(vectors, torch.tensor([person]), temperature).item()


def by_loops(data, predictions, temperature, part="train"):
    """The cross-entropy of each pair of a part from the definition: names, lists and sums."""
    names = data.people[part]
    expected = []
    for (row, _), vector in zip(data.parts[part].tolist(), predictions.tolist(), strict=True):
        scores = {}
        for name, front in zip(data.front_names, data.front_features.astype(float).tolist(), strict=True):
            lengths = math.dist(vector, [0] * len(vector)) * math.dist(front, [0] * len(front))
            cosine = math.fsum(a * b for a, b in zip(vector, front, strict=True)) / lengths
            scores[name] = max(cosine, scores.get(name, -2))
        crowd = math.fsum(math.exp(scores[name] / temperature) for name in names)
        expected.append(math.log(crowd) - scores[data.front_names[row]] / temperature)
    return expected


AXES = (0, (1.0, 0.0)), (1, (0.0, 1.0))


def test_the_cross_entropy_of_a_pair_follows_from_its_cosines_and_the_temperature():
    people = people_of(*AXES)
    # (3, 4) has the cosines 0.6 and 0.8: with τ = 0.2 the logits are 3 and 4, with τ = 1 they are the cosines.
    assert entropy(people, (3.0, 4.0), 0, 0.2) == pytest.approx(math.log(1 + math.e), rel=1e-12)
    assert entropy(people, (3.0, 4.0), 1, 0.2) == pytest.approx(math.log(1 + 1 / math.e), rel=1e-12)
    assert entropy(people, (3.0, 4.0), 0, 1.0) == pytest.approx(math.log(1 + math.exp(0.2)), rel=1e-12)


def test_the_length_of_prediction_and_front_does_not_count():
    long = people_of((0, (7.0, 0.0)), (1, (0.0, 0.1)))
    assert entropy(long, (0.3, 0.4), 0, 0.2) == pytest.approx(entropy(people_of(*AXES), (3.0, 4.0), 0, 0.2), rel=1e-12)


def test_two_people_at_the_same_distance_share_the_probability():
    assert entropy(people_of(*AXES), (1.0, 1.0), 0, 0.1) == pytest.approx(math.log(2), rel=1e-12)


def test_of_several_front_rows_the_nearest_counts_and_a_person_is_one_entry():
    far = people_of((0, (-1.0, 0.0)), *AXES)  # person 0 has two rows, of which (1, 0) is nearer to (3, 4)
    assert len(far) == 2
    assert entropy(far, (3.0, 4.0), 0, 0.2) == pytest.approx(math.log(1 + math.e), rel=1e-12)
    assert entropy(far, (-3.0, 4.0), 0, 0.2) == pytest.approx(math.log(1 + math.e), rel=1e-12)  # now the other row


def test_two_equal_front_rows_are_one_in_value_and_gradient():
    once, twice = people_of(*AXES), people_of((0, (1.0, 0.0)), *AXES)
    gradients = []
    for people in (once, twice):
        prediction = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
        value = people.cross_entropies(prediction, torch.tensor([0]), 0.2).sum()
        value.backward()
        gradients.append((value.item(), prediction.grad.tolist()))
    assert gradients[0] == gradients[1]


def test_rows_in_any_order_belong_to_their_person():
    shuffled = people_of((1, (0.0, 1.0)), (0, (1.0, 0.0)))
    assert entropy(shuffled, (3.0, 4.0), 0, 0.2) == pytest.approx(math.log(1 + math.e), rel=1e-12)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("fold", [1, 2])
def test_the_gallery_is_the_people_who_train_in_this_fold(data, rows, fold):
    folded = (with_more_fronts(data) if rows == 2 else data).fold(fold, of=2)
    tensors = PairTensors(folded, "train", "degrees", CPU, torch.float64)
    assert len(tensors.people) == len(folded.people["train"]) == 5
    random = torch.Generator().manual_seed(1)
    predictions = torch.randn(len(tensors), folded.feature_size, dtype=torch.float64, generator=random)
    found = tensors.people.cross_entropies(predictions, tensors.person, 0.3).tolist()
    assert found == pytest.approx(by_loops(folded, predictions, 0.3), rel=1e-9)
    everyone = replace(folded, people={**folded.people, "train": folded.front_names})
    assert found != pytest.approx(by_loops(everyone, predictions, 0.3), rel=1e-3)  # others would be noticed


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_weight_is_a_share_of_the_whole_loss(weight):
    assert losses.with_identity(replace(SMALL, identity_weight=weight), 0.4, 2.0) == pytest.approx(0.4 + weight * 1.6)


def test_without_a_weight_the_loss_is_the_same_number():
    combined, unread = torch.tensor(0.1), torch.tensor(math.nan)
    assert losses.with_identity(SMALL, combined, unread) is combined


# The gradient by hand


@pytest.mark.parametrize("rows", [1, 2])
def test_the_gradient_by_hand_is_that_of_the_formula(data, rows):
    data = with_more_fronts(data) if rows == 2 else data
    tensors = PairTensors(data, "train", "degrees", CPU, torch.float64)
    random = torch.Generator().manual_seed(2)
    prediction = torch.randn(len(tensors), data.feature_size, dtype=torch.float64, generator=random)
    weight, temperature, zero = (torch.full((1, 1), value, dtype=torch.float64) for value in (0.3, 0.2, 0.0))
    batch = PairBatch(
        ViewBatch(*(tensors.src,) * 4),
        tensors.target,
        torch.linalg.vector_norm(tensors.target, dim=1, keepdim=True),
        identity=Identity(tensors.people, None, tensors.person.unsqueeze(-1), weight, temperature),
    )
    gradient, _, _ = loss_gradient(prediction, batch, zero, zero)
    wanted = prediction.clone().requires_grad_()
    value = tensors.people.cross_entropies(wanted, tensors.person, 0.2).mean()
    (0.3 * value).backward()
    torch.testing.assert_close(gradient, wanted.grad, rtol=0, atol=1e-12)

    step, place = 1e-6, (3, 5)  # and that of autograd is the slope of the loops
    moved = []
    for sign in (1, -1):
        other = prediction.clone()
        other[place] += sign * step
        moved.append(math.fsum(by_loops(data, other, 0.2)) / len(other))
    assert wanted.grad[place].item() == pytest.approx(0.3 * (moved[0] - moved[1]) / (2 * step), abs=1e-8)
    assert abs(wanted.grad[place].item()) > 1e-5


# Mixed precision


def test_in_mixed_precision_the_scores_have_float32(data, monkeypatch):
    seen = []
    original = TrainingPeople.nearest

    def nearest(self, cosines):
        seen.append((cosines.dtype, torch.is_autocast_enabled("cpu")))
        return original(self, cosines)

    monkeypatch.setattr(TrainingPeople, "nearest", nearest)
    config = replace(SMALL, identity_weight=0.3, use_mixed_precision=True)
    Trainer(config, data, seed=1, device=CPU, precision="bf16").train_epoch()
    assert set(seen) == {(torch.float32, False)}
