"""The engine gives the plain trainer's results: in float64 to 1e-9, and the same bits wherever a training stands."""

from dataclasses import replace

import pytest
import torch
from fake_data import with_more_fronts
from reference_model import STRUCTURES
from trained import trained

from face3d_tune.config import TrialConfig
from face3d_tune.data import face_data
from face3d_tune.errors import NonFiniteError
from face3d_tune.training.batched import batch as batch_module
from face3d_tune.training.batched.batch import Batch, Data
from face3d_tune.training.batched.dropout_sites import sites

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BASE = TrialConfig(
    d_model=16,
    dim_feedforward=32,
    nhead=2,
    num_layers=2,
    batch_size=12,  # two batches an epoch, and a pair is left
    epochs=3,
    lr=1e-3,
    mse_weight=0.3,
    weight_decay=0.01,
    scheduler_patience=0,
    pose_unit="radians",
)
FOUR = [  # what may differ inside a batch, all of it at once; the second is clipped, the last ends early
    {},
    {"lr": 3e-3, "pose_unit": "degrees", "weight_decay": 0.5, "scheduler_factor": 0.1},
    {"loss_type": "cosine", "cosine_weight": 0.9, "lr": 5e-4, "scheduler_min_lr": 4e-4},
    {"loss_type": "mse", "lr": 2e-3, "early_stopping_patience": 1, "early_stopping_min_delta": 1.0},
]
DEFAULTS = TrialConfig(d_model=16, dim_feedforward=32)
everything = pytest.mark.parametrize("flags", STRUCTURES, ids=str)
with_and_without = pytest.mark.parametrize("dropout", [(0.0,) * 4, (0.1, 0.5, 0.0, 0.3)], ids=["no dropout", "dropout"])


@pytest.fixture(scope="module")
def data(few_people):
    return few_people


def plain(data, config, seed):
    return trained(data, config, seed, torch.float64)


def four(flags, dropout):
    return [replace(BASE, **flags, **other, dropout=p) for other, p in zip(FOUR, dropout, strict=True)]


def mixed(flags, optimizer):
    """Four trainings that differ in everything that may differ inside a batch; one layer shows all of it."""
    pairs = zip(four(flags, (0.1, 0.5, 0.0, 0.3)), MIXED, strict=True)
    return [replace(config, **other, optimizer=optimizer, num_layers=1) for config, other in pairs]


def train(batch):
    """Train all to their ends, each leaving when it has ended; their final states, taken when they leave."""
    states = {}
    while batch.members:
        assert not [given for given in batch.train_epoch() if isinstance(given, NonFiniteError)]
        for member in [member for member in batch.members if member.stop_reason]:
            states[member] = member.model_state()
            batch.remove(member)
    return states


def compare(member, state, trainer):
    """Raise AssertionError unless every number of every epoch and every weight agrees to 1e-9."""
    assert [result.epoch for result in member.history] == [result.epoch for result in trainer.history]
    for ours, theirs in zip(member.history, trainer.history, strict=True):
        for name in ("lr", "train_loss", "val_loss", "val_loss_equal", "val_cosine", "next_lr"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=0, abs=1e-9), name
        assert ours.cosine_by_yaw.keys() == theirs.cosine_by_yaw.keys()
        for band, cosine in theirs.cosine_by_yaw.items():
            assert ours.cosine_by_yaw[band] == (cosine and pytest.approx(cosine, rel=0, abs=1e-9))
        compare_recognition(ours.recognition, theirs.recognition)
        assert (ours.is_best, ours.stop_reason) == (theirs.is_best, theirs.stop_reason)
    expected = trainer.model_state()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        other = expected[name]
        if (value.shape, value.dtype) != (other.shape, other.dtype) or not torch.allclose(value, other, 0, 1e-9):
            raise AssertionError(f"{name}: {value} is not {other}")


def compare_recognition(ours, theirs):
    """Raise AssertionError unless the shares are equal and the other numbers agree to 1e-9."""
    assert (ours.judged, ours.enrolled, ours.views) == (theirs.judged, theirs.enrolled, theirs.views)
    assert ours.by_yaw.keys() == theirs.by_yaw.keys()
    pairs = [(ours.all, theirs.all), (ours.pooled, theirs.pooled)]
    for one, other in pairs + [(ours.by_yaw[band], theirs.by_yaw[band]) for band in theirs.by_yaw]:
        for name, value in other.to_dict().items():
            expected = value if name.startswith(("rank1", "tar")) or value is None else pytest.approx(value, abs=1e-9)
            assert getattr(one, name) == expected, name


@everything
@with_and_without
def test_one_training_alone_is_the_plain_trainers(data, flags, dropout):
    config = replace(BASE, **flags, dropout=dropout[0])
    batch = Batch(config, Data(data, CPU, torch.float64), "off")
    member = batch.add(config, 0, "off")
    compare(member, train(batch)[member], plain(data, config, 0))


@everything
@with_and_without
def test_four_different_trainings_at_once_are_the_plain_trainers(data, flags, dropout):
    configs = four(flags, dropout)
    batch = Batch(configs[0], Data(data, CPU, torch.float64), "off")
    members = [batch.add(config, seed, "off") for seed, config in enumerate(configs)]
    states = train(batch)
    for seed, (config, member) in enumerate(zip(configs, members, strict=True)):
        compare(member, states[member], plain(data, config, seed))
    assert [member.stop_reason for member in members] == ["finished"] * 3 + ["early_stopping"]


@everything
def test_a_slot_refilled_midway_trains_as_if_it_were_fresh_and_its_neighbours_go_on(data, flags):
    configs = four(flags, (0.1, 0.5, 0.0, 0.3))
    batch = Batch(configs[0], Data(data, CPU, torch.float64), "off")
    first, left, right = (batch.add(configs[place], seed, "off") for place, seed in ((0, 0), (1, 9), (2, 2)))
    batch.train_epoch()
    refilled = batch.replace(left, configs[3], 3, "off")
    batch.train_epoch()
    late = batch.add(configs[1], 1, "off")
    states = train(batch)
    for seed, (config, member) in enumerate(zip(configs, (first, late, right, refilled), strict=True)):
        compare(member, states[member], plain(data, config, seed))  # trained for the test above


@pytest.mark.parametrize(
    "sizes",
    [
        {"d_model": 24, "dim_feedforward": 40, "nhead": 3, "num_layers": 3, "batch_size": 7},
        {"d_model": 12, "dim_feedforward": 20, "nhead": 4, "num_layers": 1, "batch_size": 5},
    ],
    ids=["wider than the embedding", "narrower"],
)
def test_sizes_that_fill_no_vector_make_no_difference(data_folder, sizes):
    data = face_data.load(data_folder)  # the sums of fewer pairs round to more than 1e-9 here
    configs = [replace(config, **sizes, epochs=2) for config in four(STRUCTURES[3], (0.1, 0.5, 0.0, 0.3))]
    batch = Batch(configs[0], Data(data, CPU, torch.float64), "off")
    members = [batch.add(config, seed, "off") for seed, config in enumerate(configs)]
    states = train(batch)
    for seed, (config, member) in enumerate(zip(configs, members, strict=True)):
        compare(member, states[member], plain(data, config, seed))


# The parameters beyond the documented script's: each alone, then all that may differ, at once

BEYOND = {
    "Adam": {"optimizer": "adam", "weight_decay": 0.1},
    "Adam with attention": {"optimizer": "adam", "use_pose_attention": True, "use_spatial_attention": True},
    "Adam without decay": {"optimizer": "adam", "weight_decay": 0.0},
    "cosine": {"scheduler_type": "cosine", "scheduler_min_lr": 1e-4, "epochs": 3},
    "warm-up, plateau": {"warmup_epochs": 2, "epochs": 3},
    "warm-up, cosine": {"warmup_epochs": 1, "scheduler_type": "cosine", "epochs": 3},
    "warm-up to the end": {"warmup_epochs": 9, "scheduler_type": "cosine"},
    "focal": {"focal_gamma": 1.5},
    "focal, mse": {"focal_gamma": 0.7, "loss_type": "mse"},
    "angle": {"angle_weight": 2.0},
    "angle, cosine loss": {"angle_weight": 1.0, "focal_gamma": 2.0, "loss_type": "cosine"},
    "identity": {"identity_weight": 0.3},
    "identity, mse": {"identity_weight": 0.6, "identity_temperature": 0.3, "loss_type": "mse"},
    "identity alone, weighed pairs": {"identity_weight": 1.0, "focal_gamma": 1.5, "angle_weight": 1.0},
    "identity, views changed": {"identity_weight": 0.3, "oversampling": 2.0, "view_mixing": 0.5},
    "oversampling": {"oversampling": 2.0},
    "view mixing": {"view_mixing": 0.7},
    "feature noise": {"feature_noise": 0.5},
    "pose jitter": {"pose_jitter": 8.0},
    "pose jitter in degrees": {"pose_jitter": 8.0, "pose_unit": "degrees"},
    "landmark noise": {"landmark_noise": 0.3},
}
MIXED = [
    {"scheduler_type": "cosine", "warmup_epochs": 1, "focal_gamma": 1.0, "feature_noise": 0.4, "oversampling": 1.0},
    {},
    {"angle_weight": 1.5, "view_mixing": 1.0, "pose_jitter": 5.0, "warmup_epochs": 2, "identity_weight": 0.4},
    {"landmark_noise": 0.2, "oversampling": 3.0, "focal_gamma": 0.5, "angle_weight": 0.5}
    | {"identity_weight": 0.9, "identity_temperature": 0.3},
]


BEFORE = replace(BASE, dropout=0.2, epochs=2)


@pytest.mark.parametrize("what", BEYOND)
def test_every_further_parameter_alone_acts_as_in_the_plain_trainer_and_differs_from_its_default(data, what):
    config = replace(BEFORE, **BEYOND[what])
    batch = Batch(config, Data(data, CPU, torch.float64), "off")
    member = batch.add(config, 3, "off")
    trainer = plain(data, config, 3)
    compare(member, train(batch)[member], trainer)
    changed = BEYOND[what].keys() - {"epochs"}
    without = plain(data, replace(config, **{name: getattr(DEFAULTS, name) for name in changed}), 3)
    with pytest.raises(AssertionError):
        compare(member, trainer.model_state(), without)


@pytest.mark.parametrize("what", ["identity", "identity alone, weighed pairs"])
def test_the_identity_term_with_several_front_rows_is_the_plain_trainers(data, what):
    several = with_more_fronts(data)
    configs = [replace(BEFORE, **BEYOND[what]), replace(BASE, lr=2e-3, epochs=2)]
    batch = Batch(configs[0], Data(several, CPU, torch.float64), "off")
    members = [batch.add(config, 3, "off") for config in configs]
    states = train(batch)
    for config, member in zip(configs, members, strict=True):
        compare(member, states[member], plain(several, config, 3))


def test_not_a_bit_of_a_training_without_the_term_depends_on_one_with_it_or_on_its_temperature(data):
    config, other = replace(BASE, dropout=0.3), replace(BASE, identity_weight=0.5)
    expected = alone(data, config, 1)
    batch = Batch(config, Data(data, CPU), "off")
    cold = replace(config, identity_temperature=0.01)
    members = [batch.add(each, seed, "off") for each, seed in ((other, 0), (config, 1), (cold, 1), (other, 2))]
    states = train(batch)
    for member in members[1:3]:
        same_bits(expected, (member, states[member]))


@pytest.mark.parametrize("what", ["angle", "oversampling", "view mixing", "pose jitter"])
def test_with_another_angle_as_the_head_turn_it_is_still_the_plain_trainer(data, what):
    turned = replace(data, poses=data.poses[:, [2, 0, 1]], turn_angle="second")  # the large angle stands second
    config = replace(BEFORE, **BEYOND[what])
    batch = Batch(config, Data(turned, CPU, torch.float64), "off")
    member = batch.add(config, 3, "off")
    trainer = plain(turned, config, 3)
    compare(member, train(batch)[member], trainer)
    with pytest.raises(AssertionError):
        compare(member, trainer.model_state(), plain(replace(turned, turn_angle="first"), config, 3))


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
@everything
def test_four_that_differ_in_all_further_parameters_at_once_are_the_plain_trainers(data, flags, optimizer):
    configs = mixed(flags, optimizer)
    batch = Batch(configs[0], Data(data, CPU, torch.float64), "off")
    members = [batch.add(config, seed, "off") for seed, config in enumerate(configs)]
    states = train(batch)
    for seed, (config, member) in enumerate(zip(configs, members, strict=True)):
        compare(member, states[member], plain(data, config, seed))


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_not_a_bit_of_them_depends_on_the_neighbours(data, optimizer):
    configs = mixed(STRUCTURES[3], optimizer)
    expected = [alone(data, config, seed) for seed, config in enumerate(configs)]
    for order in ([3, 1, 0, 2], [1, 2]):
        batch = Batch(configs[0], Data(data, CPU), "off")
        members = {seed: batch.add(configs[seed], seed, "off") for seed in order}
        states = train(batch)
        for seed, member in members.items():
            same_bits(expected[seed], (member, states[member]))


@pytest.mark.parametrize("layers", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("width", [0.5, 0.75, 1.0, 1.25, 1.5])
def test_depth_and_width_of_a_search_make_no_difference(data, layers, width):
    shape = {"num_layers": layers, "d_model": int(16 * width), "dim_feedforward": int(64 * width), "epochs": 1}
    config = replace(BASE, dropout=0.2, focal_gamma=1.0, view_mixing=0.5, **shape)
    batch = Batch(config, Data(data, CPU, torch.float64), "off")
    member = batch.add(config, 1, "off")
    compare(member, train(batch)[member], plain(data, config, 1))


# What the comparisons would notice

SPOILED = replace(BASE, epochs=2, dropout=0.3, use_spatial_attention=True, use_pose_attention=True)


@pytest.fixture(scope="module")
def right(data):
    return plain(data, SPOILED, 1)


def spoiled(data, spoil, monkeypatch):
    """Train SPOILED beside a neighbour; `spoil` is called with the batch and the member after the first epoch."""
    batch = Batch(SPOILED, Data(data, CPU, torch.float64), "off")
    member = batch.add(SPOILED, 1, "off")
    batch.add(replace(SPOILED, lr=2e-3, weight_decay=0.3, cosine_weight=0.9), 2, "off")
    batch.train_epoch()
    with torch.inference_mode():
        spoil(batch, member, monkeypatch)
    return member, train(batch)[member]


def block(name):
    def spoil(batch, member, _):
        view = batch._live.views(batch.state.weights[0])[name]
        view += torch.linspace(1e-4, 2e-4, view.numel(), dtype=view.dtype).view_as(view)

    return spoil


def mask(name):
    def spoil(batch, member, monkeypatch):
        step = batch._step

        def ones(pairs, rates):
            batch._mask_views[name][0] = 1.0
            return step(pairs, rates)

        monkeypatch.setattr(batch, "_step", ones)

    return spoil


def number(name, value):
    def spoil(batch, member, _):
        getattr(batch.state, name)[0] = value

    return spoil


def hyperparameter(**values):
    """What the program uses, not what scheduler and early stopping use."""

    def spoil(batch, member, _):
        kept, member.config = member.config, replace(member.config, **values)
        batch._hyperparameters()
        member.config = kept

    return spoil


def scheduler_step(batch, member, _):
    member.scheduler.step(1e9)


def no_clipping(batch, member, monkeypatch):
    monkeypatch.setattr("face3d_tune.training.batched.state.MAX_NORM", 0.05)


def stale_order(batch, member, monkeypatch):
    kept = batch_module.seeds.generator
    monkeypatch.setattr(batch_module.seeds, "generator", lambda seed, *purpose, **where: kept(seed, purpose[0], 1))


def other_dead_weights(batch, member, _):
    batch.state.dead[0] *= 1.001


BLOCKS = ["input.weight", "pose.weight", "cross_value.weight", "cross_value.bias", "memory.weight", "memory.bias"]
BLOCKS += ["0.self_value.weight", "1.self_out.bias", "1.cross_out.weight", "0.linear1.weight", "1.linear2.bias"]
BLOCKS += ["0.norm2.weight", "angle_norm.bias", "angle_scale", "fusion_weights", "batch_norm.weight", "output.bias"]
BLOCKS += ["spatial_gate1.weight", "spatial_code0.bias", "keypoints1.weight", "scale.weight", "shift.bias"]
SPOILS = {
    **{f"weight {name}": block(name) for name in BLOCKS},
    **{f"mask {name}": mask(name) for name in sites(SPOILED)},
    "step count": number("steps", 1),
    "first moment": number("first", 0),
    "second moment": number("second", 1e-3),
    "running mean": number("mean", 0.5),
    "running variance": number("variance", 2),
    "loss weight": hyperparameter(cosine_weight=0.6),
    "weight decay": hyperparameter(weight_decay=0.02),
    "identity weight": hyperparameter(identity_weight=0.1),
    "pose unit": hyperparameter(pose_unit="degrees"),
    "scheduler": scheduler_step,
    "clipping": no_clipping,
    "order": stale_order,
    "dead weights": other_dead_weights,
}


@pytest.mark.parametrize("what", SPOILS)
def test_the_comparison_objects_when_something_is_spoiled(data, right, what, monkeypatch):
    member, state = spoiled(data, SPOILS[what], monkeypatch)
    with pytest.raises(AssertionError):
        compare(member, state, right)


def test_without_a_spoil_that_comparison_is_content(data, right, monkeypatch):
    compare(*spoiled(data, lambda *_: None, monkeypatch), right)


# Where a training stands


def numbers(member):
    return [replace(result, seconds=0.0) for result in member.history]


def same_bits(one, other):
    assert numbers(one[0]) == numbers(other[0])
    assert [name for name in one[1] if not torch.equal(one[1][name], other[1][name])] == []


def alone(data, config, seed):
    batch = Batch(config, Data(data, CPU), "off")
    member = batch.add(config, seed, "off")
    return member, train(batch)[member]


@pytest.mark.parametrize("flags", STRUCTURES, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"d_model": 24, "dim_feedforward": 40, "nhead": 3, "batch_size": 7, "epochs": 2},
        # Some tiny products.
        {"d_model": 24, "dim_feedforward": 40, "nhead": 3, "num_layers": 1, "batch_size": 4, "epochs": 2},
    ],
    ids=str,
)
def test_not_a_bit_depends_on_the_number_of_models_the_slot_or_the_neighbours(data, flags, sizes):
    configs = [replace(config, **sizes) for config in four(flags, (0.1, 0.5, 0.0, 0.3))]
    expected = [alone(data, config, seed) for seed, config in enumerate(configs)]
    for order in ([3, 1, 0, 2], [2, 0]):
        batch = Batch(configs[0], Data(data, CPU), "off")
        members = {seed: batch.add(configs[seed], seed, "off") for seed in order}
        states = train(batch)
        for seed, member in members.items():
            same_bits(expected[seed], (member, states[member]))


def test_a_neighbour_that_goes_nan_changes_not_a_bit_and_its_slot_can_be_refilled(data):
    config = replace(BASE, dropout=0.3)
    expected = [alone(data, config, seed) for seed in (0, 1, 2)]
    batch = Batch(config, Data(data, CPU), "off")
    left, wild = batch.add(config, 0, "off"), batch.add(replace(config, lr=1e20), 5, "off")
    right = batch.add(config, 1, "off")
    given = batch.train_epoch()
    assert [isinstance(result, NonFiniteError) for result in given] == [False, True, False]
    refilled = batch.replace(wild, config, 2, "off")
    states = train(batch)
    for expectation, member in zip(expected, (left, right, refilled), strict=True):
        same_bits(expectation, (member, states[member]))
