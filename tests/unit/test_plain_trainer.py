"""The plain trainer against a second statement of trainer contract §4, and every promise it makes beside it."""

import io
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from fake_data import with_more_fronts, write_data
from reference_model import ReferenceModel, reference_forward
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

import face3d_tune
from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.data import face_data
from face3d_tune.errors import ConfigError, NonFiniteError
from face3d_tune.training import base
from face3d_tune.training import plain as trainer_module
from face3d_tune.training.base import Evaluation, PairTensors
from face3d_tune.training.dropout import MaskStream
from face3d_tune.training.plain import Trainer
from face3d_tune.training.recognition import Gallery

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = TrialConfig(
    d_model=16, dim_feedforward=32, nhead=2, num_layers=1, batch_size=8, epochs=2, lr=1e-3, mse_weight=0.3
)
TRAINING_PAIRS, VALIDATION_PAIRS = 42, 18  # 7 and 3 of 12 people, 6 views each


def make(data, config=SMALL, *, seed=1, precision="off"):
    return Trainer(config, data, seed=seed, device=CPU, precision=precision)


def train(data, config=SMALL, *, seed=1, precision="off"):
    trainer = make(data, config, seed=seed, precision=precision)
    while trainer.stop_reason is None:
        trainer.train_epoch()
    return trainer


def reference_of(config, data, state):
    """The users' model with the weights in `state`."""
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout")
    flags = ("layout", "use_spatial_attention", "use_pose_attention")
    model = ReferenceModel(
        feature_size=data.feature_size, **{name: getattr(config, name) for name in (*names, *flags)}
    ).to(next(iter(state.values())).dtype)
    model.load_state_dict(state, strict=True)
    return model


def arrays(data, part, pose_unit):
    """src, landmarks, poses and target of a part, float64."""
    front, video = data.parts[part].T
    poses = data.poses[video] * (math.pi / 180 if pose_unit == "radians" else 1)
    inputs = (data.video_features[video], data.landmarks[video], poses.astype(np.float32), data.front_features[front])
    return tuple(array.astype(np.float64) for array in inputs)


def numbers(trainer):
    """Everything that a training gave, but for the time it took."""
    return [replace(result, seconds=0.0) for result in trainer.history]


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# A whole training, stated a second time


def in_double(data, config, seed):
    """The same training in float64, where rounding cannot hide a mistake."""
    return Trainer(config, data, seed=seed, device=CPU, dtype=torch.float64)


def restate(config, data, seed, state, *, optimizer_state=None, first_epoch=1, epochs=None, spoil=None):
    """Train the reference model from `state`: rows of epoch numbers and the final state.

    `spoil` names one thing to do wrongly.
    """
    model = reference_of(config, data, state)
    dtype = next(model.parameters()).dtype
    training, validation = (
        [torch.from_numpy(array).to(dtype) for array in arrays(data, part, config.pose_unit)]
        for part in ("train", "validation")
    )
    kind = torch.optim.Adam if (spoil == "Adam") != (config.optimizer == "adam") else torch.optim.AdamW
    optimizer = kind(
        model.parameters(),
        lr=config.lr,
        betas=(0.9, 0.99 if spoil == "betas" else 0.999),
        weight_decay=0.0 if spoil == "weight decay" else config.weight_decay,
    )
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    scheduler = ReduceLROnPlateau(
        optimizer,
        mode="min",
        factor=config.scheduler_factor,
        patience=config.scheduler_patience,
        min_lr=0.0 if spoil == "min_lr" else config.scheduler_min_lr,
    )
    if config.scheduler_type == "cosine":
        scheduler = CosineAnnealingLR(optimizer, T_max=config.epochs, eta_min=config.scheduler_min_lr)
    pairs, size, rows = len(training[0]), config.batch_size, []
    column = ("first", "second", "third").index(data.turn_angle)
    yaw = torch.from_numpy(np.abs(data.poses[data.parts["train"][:, 1], column])).to(dtype)

    names = [data.front_names[row] for row in data.parts["train"][:, 0]]
    rows_of = {
        name: [row for row, each in enumerate(data.front_names) if each == name] for name in dict.fromkeys(names)
    }
    person = torch.tensor([list(rows_of).index(name) for name in names])
    fronts = torch.from_numpy(data.front_features).to(dtype)

    def entropies(prediction, chosen):  # the identity term of each pair
        away = prediction.unsqueeze(1) / (prediction**2).sum(1).sqrt()[:, None, None]
        away = (away * fronts / (fronts**2).sum(1, keepdim=True).sqrt()).sum(2) / config.identity_temperature
        scores = torch.stack([away[:, rows].max(1)[0] for rows in rows_of.values()], 1)
        return scores.exp().sum(1).log() - scores[torch.arange(len(chosen)), person[chosen]]

    def minimised(combined, weights, prediction, chosen):
        share = 0.0 if spoil == "identity" else config.identity_weight
        return combined * (1 - share) + share * (weights * entropies(prediction, chosen)).mean() if share else combined

    def weighted_loss(batch, degrees, chosen):
        src, landmarks, poses, target = batch
        prediction = model(src, landmarks, poses)
        lengths = (prediction**2).sum(1).sqrt() * (target**2).sum(1).sqrt()
        far = 1 - (prediction * target).sum(1) / lengths
        weights = (1 + config.angle_weight * degrees / 90) * torch.exp(config.focal_gamma * torch.log(far.detach()))
        weights = weights * len(weights) / weights.sum()
        each = config.mse_weight * ((prediction - target) ** 2).sum(1) / target.shape[1] + config.cosine_weight * far
        combined = (weights * each).sum() / len(weights)
        return minimised(combined, weights, prediction, chosen), combined

    def loss_and_cosine(batch):
        src, landmarks, poses, target = batch
        prediction = model(src, landmarks, poses)
        mse = ((prediction - target) ** 2).sum() / target.numel()
        lengths = (prediction**2).sum(1).sqrt() * (target**2).sum(1).sqrt()
        cosine = ((prediction * target).sum(1) / lengths).sum() / len(target)
        weights = (config.cosine_weight, config.mse_weight) if spoil == "weights" else None
        mse_weight, cosine_weight = weights or (config.mse_weight, config.cosine_weight)
        combined = mse_weight * mse + cosine_weight * (1 - cosine)
        loss = {"mse": mse, "cosine": 1 - cosine, "combined": combined}[config.loss_type]
        return loss, cosine.item(), prediction

    for epoch in range(first_epoch, first_epoch + (epochs or config.epochs)):
        order = torch.randperm(pairs, generator=seeds.generator(seed, "order", 1 if spoil == "order" else epoch))
        if config.oversampling:
            odds = torch.where(yaw.double() >= 45, 1 + config.oversampling, 1.0)
            order = torch.multinomial(odds, pairs, True, generator=seeds.generator(seed, "oversampling", epoch))
        lr, batch_losses = optimizer.param_groups[0]["lr"], []
        model.train()
        for start in range(0, pairs, size):
            chosen = order[start : start + size]
            if len(chosen) < size and spoil != "partial batch":
                continue
            batch = [tensor[chosen] for tensor in training]
            weighs = config.focal_gamma or config.angle_weight
            if weighs:
                loss, shown = weighted_loss(batch, yaw[chosen], chosen)
            else:
                shown, _, prediction = loss_and_cosine(batch)
                loss = minimised(shown, 1, prediction, chosen)
            optimizer.zero_grad()
            loss.backward()
            if spoil != "clipping":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.1 if spoil == "clip norm" else 1.0)
            optimizer.step()
            batch_losses.append(shown.item())
        model.train(spoil == "training mode")
        with torch.no_grad():
            kept = len(validation[0]) // size * size if spoil == "validation batch" else None
            val_loss, val_cosine, _ = loss_and_cosine([tensor[:kept] for tensor in validation])
        if config.scheduler_type == "cosine":
            scheduler.step()
        elif spoil != "scheduler":
            scheduler.step(sum(batch_losses) if spoil == "metric" else val_loss.item())
        rows.append((sum(batch_losses) / len(batch_losses), val_loss.item(), val_cosine, lr))
    return rows, model.state_dict()


def compare(trainer, rows, state):
    assert len(trainer.history) == len(rows)
    for result, (train_loss, val_loss, val_cosine, lr) in zip(trainer.history, rows, strict=True):
        assert result.lr == pytest.approx(lr, rel=1e-12)
        assert result.train_loss == pytest.approx(train_loss, rel=1e-9)
        assert result.val_loss == pytest.approx(val_loss, rel=1e-9)
        assert result.val_cosine == pytest.approx(val_cosine, rel=1e-9)
    for name, value in trainer.model.state_dict().items():
        expected = state[name]
        if name.endswith("in_proj_bias"):
            # Query and key biases start at 0 and change nothing. Their gradient is 0 but for rounding. Adam divides it
            # by its own size, so the processor decides how far they move.
            value, expected = value[-len(value) // 3 :], expected[-len(expected) // 3 :]
        # Not 1e-9, for the same reason: a gradient near 0 moves a weight by more than its own rounding.
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


# Learning so fast that gradients are clipped and the learning rate decays to its minimum within a few epochs.
HARD = replace(
    SMALL,
    batch_size=16,  # two batches an epoch, and ten pairs are left
    dropout=0.0,
    epochs=4,
    lr=0.2,
    weight_decay=0.01,
    scheduler_factor=0.1,
    scheduler_patience=0,
    scheduler_min_lr=0.05,
)
VARIANTS = {
    "degrees, combined": {},
    "degrees, mse": {"loss_type": "mse"},
    "degrees, cosine": {"loss_type": "cosine"},
    "radians, combined": {"pose_unit": "radians"},
    "radians, mse": {"pose_unit": "radians", "loss_type": "mse"},
    "radians, cosine": {"pose_unit": "radians", "loss_type": "cosine"},
    "pose layout, F ≠ d": {"layout": "pose", "d_model": 24, "use_pose_attention": True, "num_layers": 2},
    "Adam": {"optimizer": "adam", "scheduler_min_lr": 0.0, "lr": 0.02, "use_pose_attention": True},
    "cosine": {"scheduler_type": "cosine"},
    "pair weights": {"focal_gamma": 1.5, "angle_weight": 2.0, "pose_unit": "radians"},
    "identity": {"identity_weight": 0.3},
    "identity, pair weights": {"identity_weight": 0.8, "identity_temperature": 0.4, "focal_gamma": 1.5},
    "oversampling": {"oversampling": 2.0},
    "all attention, F ≠ d": {"use_spatial_attention": True, "use_pose_attention": True, "d_model": 12},
}


def start_and_train(trainer):
    """The initial state and the finished trainer."""
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    while trainer.stop_reason is None:
        trainer.train_epoch()
    return state, trainer


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_training_equals_its_second_statement(data, variant):
    config = replace(HARD, **VARIANTS[variant])
    state, trainer = start_and_train(in_double(data, config, 7))
    compare(trainer, *restate(config, data, 7, state))


def test_with_several_front_rows_the_identity_term_counts_the_nearest(data):
    config, several = replace(HARD, identity_weight=0.3), with_more_fronts(data)
    state, trainer = start_and_train(in_double(several, config, 5))
    compare(trainer, *restate(config, several, 5, state))
    with pytest.raises(AssertionError):
        compare(trainer, *restate(config, several, 5, state, spoil="identity"))
    with pytest.raises(AssertionError):
        compare(trainer, *restate(replace(config, identity_temperature=0.101), several, 5, state))


@pytest.mark.parametrize("what", [{"angle_weight": 2.0}, {"oversampling": 2.0}], ids=str)
def test_weights_and_oversampling_follow_the_angle_that_is_the_head_turn(data, what):
    config = replace(HARD, **what)
    turned = replace(data, poses=data.poses[:, [2, 0, 1]], turn_angle="second")  # the large angle stands second
    state, trainer = start_and_train(in_double(turned, config, 5))
    compare(trainer, *restate(config, turned, 5, state))
    with pytest.raises(AssertionError):
        compare(trainer, *restate(config, replace(turned, turn_angle="first"), 5, state))


SPOILS = [
    *("clipping", "clip norm", "weight decay", "Adam", "betas", "scheduler", "metric", "min_lr", "partial batch"),
    *("order", "weights", "validation batch", "training mode"),
]


@pytest.fixture(scope="module")
def hard_training(data):
    state, trainer = start_and_train(in_double(data, HARD, 7))
    assert trainer.history[-1].lr == HARD.scheduler_min_lr  # or the comparison would not see the scheduler
    compare(trainer, *restate(HARD, data, 7, state))
    return state, trainer


@pytest.mark.parametrize("spoil", SPOILS)
def test_that_comparison_objects_when_the_second_statement_is_spoiled(data, hard_training, spoil):
    state, trainer = hard_training  # which is content without a spoil
    with pytest.raises(AssertionError):
        compare(trainer, *restate(HARD, data, 7, state, spoil=spoil))


def test_float32_training_equals_its_second_statement_as_far_as_float32_goes(data):
    config = replace(SMALL, dropout=0.0, epochs=1, lr=1e-4)
    state, trainer = start_and_train(make(data, config))
    rows, final = restate(config, data, 1, state)
    tolerance = 1e-5  # Adam turns the rounding of gradients near 0 into steps of up to lr
    result, (train_loss, val_loss, val_cosine, _) = trainer.history[0], rows[0]
    assert result.train_loss == pytest.approx(train_loss, rel=tolerance)
    assert result.val_loss == pytest.approx(val_loss, rel=tolerance)
    assert result.val_cosine == pytest.approx(val_cosine, rel=tolerance)
    assert final["output_projection.weight"].dtype == torch.float32
    torch.testing.assert_close(
        trainer.model.output_projection.weight, final["output_projection.weight"], rtol=0, atol=tolerance
    )


# Repeatable, and alone in the world


def test_the_same_config_and_seed_give_the_same_training_bit_for_bit(data):
    config = replace(SMALL, dropout=0.3, use_pose_attention=True)
    once, again = train(data, config), train(data, config)
    assert numbers(once) == numbers(again)
    assert_same_state(once.model.state_dict(), again.model.state_dict())
    other = train(data, config, seed=2)
    assert numbers(other) != numbers(once)
    assert not torch.equal(other.model.output_projection.weight, once.model.output_projection.weight)


def test_a_training_does_not_depend_on_what_else_draws_random_numbers(data):
    config = replace(SMALL, dropout=0.3)
    alone = train(data, config)
    torch.manual_seed(99)
    among, neighbour = make(data, config), make(data, config, seed=2)
    while among.stop_reason is None:
        torch.rand(3)
        among.train_epoch()
        neighbour.train_epoch()
    assert numbers(among) == numbers(alone)
    assert_same_state(among.model.state_dict(), alone.model.state_dict())


def test_batch_order_and_dropout_of_every_epoch_have_their_own_seed(data, monkeypatch):
    trainer, firsts, streams = make(data, replace(SMALL, dropout=0.5, lr=1e-30, epochs=3)), [], []
    monkeypatch.setattr(trainer_module, "MaskStream", lambda *args: streams.append(args) or MaskStream(*args))
    trainer.model.register_forward_pre_hook(
        lambda model, inputs: firsts.append(inputs[0][0].tolist()) if model.training else None
    )
    for epoch in (1, 2, 3):
        trainer.train_epoch()
        order = torch.randperm(TRAINING_PAIRS, generator=seeds.generator(1, "order", epoch))
        assert firsts[5 * (epoch - 1)] == trainer.train.src[order[0]].tolist()
        assert streams == [(1, each, CPU) for each in range(1, epoch + 1)]
    assert len({result.train_loss for result in trainer.history}) == 3


def stir():
    """Put every global generator where nobody else would put it."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(20_260_731)


def world():
    """What a training could change behind everyone's back."""
    numpy_state = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
    }


def test_training_leaves_the_world_as_it_was(data):
    stir()
    before, content = world(), data.fingerprint()
    trainer = train(data, replace(SMALL, dropout=0.3, use_mixed_precision=True), precision="bf16")
    trainer.evaluate(PairTensors(data, "test", trainer.config.pose_unit, CPU))
    trainer.checkpoint({})
    assert world() == before
    assert data.fingerprint() == content


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("torch", lambda _: torch.rand(1)),
        ("numpy", lambda _: np.random.rand()),
        ("random", lambda _: random.random()),
        ("environment", lambda monkeypatch: monkeypatch.setenv("OMP_NUM_THREADS", "77")),
    ],
)
def test_that_look_at_the_world_sees_a_change(monkeypatch, name, change):
    before = world()
    change(monkeypatch)
    after = world()
    assert [key for key in before if before[key] != after[key]] == [name]


IMPORT_EVERYTHING = """
import importlib, os, pkgutil, random, sys
import numpy as np
import rich.style  # draws a number from Python's generator when it is imported, which is none of ours
import torch

def world():
    state = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(), "numpy": (state[1].tolist(), *state[2:]), "random": random.getstate(),
        "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(), "environment": dict(os.environ),
    }

for seed in (torch.manual_seed, np.random.seed, random.seed):
    seed(20_260_731)
before = world()
import face3d_tune
names = [module.name for module in pkgutil.walk_packages(face3d_tune.__path__, "face3d_tune.")]
for name in names:
    importlib.import_module(name)
after = world()
print(len(names), [key for key in before if before[key] != after[key]])
"""


def test_importing_every_module_leaves_the_world_as_it_was():
    root = Path(face3d_tune.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, changed = done.stdout.split(maxsplit=1)
    assert changed.strip() == "[]"
    assert int(count) >= len(list((root / "face3d_tune").glob("[a-z]*.py")))


# Batches


def test_the_last_partial_batch_is_dropped_in_training_and_kept_in_validation(data):
    trainer, seen = make(data), {True: [], False: []}
    trainer.model.register_forward_pre_hook(lambda model, inputs: seen[model.training].append(inputs[0].clone()))
    trainer.train_epoch()
    assert [len(batch) for batch in seen[True]] == [8] * 5  # 42 = 5 · 8 + 2
    assert [len(batch) for batch in seen[False]] == [VALIDATION_PAIRS]
    rows = {tuple(row) for row in torch.cat(seen[True]).tolist()}
    assert len(rows) == 40  # none twice
    assert rows <= {tuple(row) for row in trainer.train.src.tolist()}
    np.testing.assert_array_equal(seen[False][0].numpy(), data.video_features[data.parts["validation"][:, 1]])


def test_how_many_pairs_are_evaluated_at_a_time_changes_nothing(data, monkeypatch):
    trainer = train(data)
    whole, sizes = trainer.evaluate(trainer.validation), []
    monkeypatch.setattr(base, "EVALUATION_BATCH", 5)
    trainer.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    cut = trainer.evaluate(trainer.validation)
    assert sizes == [5, 5, 5, 3]
    assert (cut.mse, cut.cosine) == pytest.approx((whole.mse, whole.cosine), rel=1e-6)


def test_a_batch_larger_than_the_training_pairs_is_refused(data):
    assert len(train(data, replace(SMALL, batch_size=TRAINING_PAIRS, epochs=1)).history) == 1
    with pytest.raises(ConfigError, match="batch_size = 43 is more than the 42 training pairs") as caught:
        make(data, replace(SMALL, batch_size=TRAINING_PAIRS + 1))
    assert "smaller batch_size" in caught.value.hint


def test_without_a_split_the_training_pairs_are_also_validated_on(data_folder):
    trainer = make(face_data.load(data_folder, split="none"))
    assert len(trainer.train) == len(trainer.validation) == 72
    assert torch.equal(trainer.train.src, trainer.validation.src)


# Metrics


def predicted_with_numpy(trainer, part="validation"):
    """The prediction for each pair from the trainer's weights and data by numpy alone, and its target."""
    config, data = trainer.config, trainer.data
    src, landmarks, poses, target = arrays(data, part, config.pose_unit)
    state = {name: value.numpy() for name, value in trainer.model.state_dict().items()}
    flags = {name: getattr(config, name) for name in ("nhead", "layout", "use_spatial_attention", "use_pose_attention")}
    return reference_forward(state, src, landmarks, poses, **flags), target


def judged_with_numpy(trainer, part="validation"):
    """MSE, cosine of each pair, yaw of each pair, from the trainer's weights and data by numpy alone."""
    data = trainer.data
    prediction, target = predicted_with_numpy(trainer, part)
    lengths = np.sqrt(np.square(prediction).sum(1) * np.square(target).sum(1))
    return (
        np.square(prediction - target).mean(),
        (prediction * target).sum(1) / lengths,
        data.poses[data.parts[part][:, 1], 0],
    )


@pytest.fixture(scope="module")
def frontal_data(tmp_path_factory):
    """Seven views per person: 0, ±25, ±50, ±75 degrees, so that every yaw band has pairs."""
    return face_data.load(write_data(tmp_path_factory.mktemp("frontal"), views=7))


def test_metrics_of_an_epoch_equal_those_computed_from_its_weights_with_numpy(frontal_data):
    trainer = make(frontal_data, replace(SMALL, pose_unit="radians", mse_weight=0.1, cosine_weight=0.7))
    for _ in range(2):
        result = trainer.train_epoch()
        mse, cosines, yaw = judged_with_numpy(trainer)
        assert result.val_cosine == pytest.approx(cosines.mean(), abs=1e-6)
        assert result.val_loss == pytest.approx(0.1 * mse + 0.7 * (1 - cosines.mean()), abs=1e-6)
        assert result.val_loss_equal == pytest.approx((mse + 1 - cosines.mean()) / 2, abs=1e-6)
        bands = {"0-15": np.abs(yaw) < 15, "15-45": (np.abs(yaw) > 15) & (np.abs(yaw) < 45), "45-90": np.abs(yaw) > 45}
        assert result.cosine_by_yaw == {
            name: pytest.approx(cosines[held].mean(), abs=1e-6) for name, held in bands.items()
        }
        assert len({round(value, 4) for value in result.cosine_by_yaw.values()}) == 3


def test_recognition_of_an_epoch_is_that_of_what_its_weights_predict(frontal_data):
    """Of validation people in an epoch, of others on request; test_recognition.py says what it is."""
    trainer = make(frontal_data)
    for _ in range(2):
        found = trainer.train_epoch().recognition
    test = trainer.evaluate(PairTensors(frontal_data, "test", "degrees", CPU)).recognition
    for part, given in (("validation", found), ("test", test)):
        expected = Gallery(frontal_data, part).scores(predicted_with_numpy(trainer, part)[0]).summary()
        assert (given.judged, given.enrolled) == (len(frontal_data.people[part]), 12)
        for ours, theirs in zip(rates_of(given), rates_of(expected), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)
    assert 0 < found.all.rank1_enrolled < 1


def rates_of(recognition):
    return [each.to_dict() for each in (recognition.all, *recognition.by_yaw.values(), recognition.pooled)]


def test_the_equally_weighted_loss_does_not_depend_on_weights_or_loss_type(data):
    configs = [replace(SMALL, lr=1e-30, **{"mse_weight": 9.0, "loss_type": kind}) for kind in ("mse", "combined")]
    one, other = (make(data, config).train_epoch() for config in configs)
    assert one.val_loss_equal == pytest.approx(other.val_loss_equal, rel=1e-6)
    assert one.val_loss != pytest.approx(other.val_loss, rel=0.1)


def test_a_yaw_band_without_pairs_is_none(data_folder):
    result = make(face_data.load(data_folder, min_yaw=40), replace(SMALL, batch_size=4)).train_epoch()
    assert result.cosine_by_yaw == {"0-15": None, "15-45": None, "45-90": pytest.approx(result.val_cosine)}


def test_other_people_are_judged_like_the_validation_people_pair_by_pair(data):
    trainer = train(data)
    mse, cosines, yaw = judged_with_numpy(trainer, "test")
    others = PairTensors(data, "test", trainer.config.pose_unit, CPU)
    np.testing.assert_allclose(trainer.pair_scores(others)[1].numpy(), cosines, atol=1e-6)
    test = trainer.evaluate(others)
    assert (test.mse, test.cosine) == pytest.approx((mse, cosines.mean()), abs=1e-6)
    assert test.cosine_by_yaw["45-90"] == pytest.approx(cosines[np.abs(yaw) >= 45].mean(), abs=1e-6)
    assert test.cosine != pytest.approx(trainer.history[-1].val_cosine, abs=1e-3)


def test_evaluation_is_without_dropout_and_moves_nothing(data):
    trainer = make(data, replace(SMALL, dropout=0.5))
    trainer.train_epoch()
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    first = trainer.evaluate(trainer.validation)
    assert trainer.evaluate(trainer.validation) == first
    assert first.cosine == trainer.history[-1].val_cosine
    assert_same_state(trainer.model.state_dict(), state)  # batch normalisation's running means, too


def test_poses_enter_in_the_unit_of_the_config(data):
    """Radians equal degrees on data whose poses are radians already; only the yaw bands differ then."""
    converted = replace(data, poses=np.deg2rad(data.poses))
    radians, copy = train(data, replace(SMALL, pose_unit="radians")), train(converted, SMALL)
    assert_same_state(radians.model.state_dict(), copy.model.state_dict())
    unbanded = [
        [
            replace(result, cosine_by_yaw={}, recognition=replace(result.recognition, by_yaw={}))
            for result in numbers(trainer)
        ]
        for trainer in (radians, copy)
    ]
    assert unbanded[0] == unbanded[1]
    assert numbers(radians)[0].cosine_by_yaw["45-90"] is not None
    assert numbers(train(data)) != numbers(radians)


# How a training goes on and ends: validation losses by a table


@pytest.fixture
def scripted(data, monkeypatch):
    """Train with validation losses from a list, one per epoch, until they or the training end."""

    def run(val_losses, **values):
        trainer = make(data, replace(SMALL, loss_type="mse", batch_size=TRAINING_PAIRS, **values))
        script = iter(val_losses)
        monkeypatch.setattr(trainer, "evaluate", lambda pairs: Evaluation(next(script), 0.5, MappingProxyType({})))
        for _ in val_losses:
            trainer.train_epoch()
            if trainer.stop_reason is not None:
                break
        return trainer

    return run


def test_the_best_epoch_is_the_first_with_the_lowest_validation_loss(scripted):
    trainer = scripted([4, 2, 2, 3, 1, 1, 5], epochs=100)
    assert [result.is_best for result in trainer.history] == [True, True, False, False, True, False, False]
    assert (trainer.best.epoch, trainer.best.val_loss) == (5, 1)
    assert trainer.stop_reason is None
    assert [result.epoch for result in trainer.history] == [1, 2, 3, 4, 5, 6, 7]


def test_the_best_epoch_of_a_real_training_has_its_lowest_validation_loss_not_its_last(data):
    trainer = make(data, replace(SMALL, epochs=4))
    for epoch in range(4):
        if epoch == 2:
            trainer.optimizer.param_groups[0]["lr"] = 10.0  # wreck it
        trainer.train_epoch()
    assert trainer.best == min(trainer.history, key=lambda result: result.val_loss)
    assert trainer.best.epoch <= 2


def test_the_learning_rate_decays_when_validation_loss_does_not_fall(scripted):
    settings = {"lr": 1.0, "scheduler_factor": 0.5, "scheduler_patience": 1, "scheduler_min_lr": 0.2, "epochs": 100}
    # A decay follows the second epoch in a row without a fall: after epochs 3, 6, 8 (to min_lr, not 0.125).
    trainer = scripted([4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3], **settings)
    assert [result.lr for result in trainer.history] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]
    assert [result.next_lr for result in trainer.history] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]
    assert trainer.lr == 0.2
    assert [result.next_lr for result in scripted([4, 3, 2, 1], **settings).history] == [1, 1, 1, 1]


def test_the_learning_rate_of_an_epoch_is_the_one_it_trained_with(scripted):
    trainer = scripted([1, 1], lr=0.1, scheduler_patience=0, scheduler_factor=0.5)
    assert [result.lr for result in trainer.history] == [0.1, 0.1]
    assert [result.next_lr for result in trainer.history] == [0.1, pytest.approx(0.05)]
    assert trainer.lr == trainer.history[-1].next_lr


def test_early_stopping_ends_a_training_and_says_so(scripted):
    trainer = scripted([4, 3, 3.5, 3, 3], epochs=100, early_stopping_patience=3, early_stopping_min_delta=0.0)
    assert trainer.stop_reason == "early_stopping"
    assert [result.stop_reason for result in trainer.history] == [None] * 4 + ["early_stopping"]
    assert (len(trainer.history), trainer.best.epoch) == (5, 2)


def test_a_training_that_reaches_its_last_epoch_is_finished(scripted):
    assert scripted([4, 3, 2], epochs=3).stop_reason == "finished"
    assert scripted([4, 4, 4], epochs=3).stop_reason == "finished"  # early stopping is off by default


def test_min_delta_decides_what_early_stopping_takes_for_progress_but_not_which_epoch_is_best(scripted):
    falls = [1, 0.99, 0.98, 0.97]
    stopped = scripted(falls, epochs=100, early_stopping_patience=2, early_stopping_min_delta=0.05)
    assert (stopped.stop_reason, len(stopped.history), stopped.best.epoch) == ("early_stopping", 3, 3)
    assert scripted(falls, epochs=100, early_stopping_patience=2, early_stopping_min_delta=0.005).stop_reason is None


# Numbers that are none


def spoil_features(data, part, factor):
    features = data.video_features.copy()
    features[data.parts[part][:, 1]] *= np.float32(factor)
    return replace(data, video_features=features)


@pytest.mark.parametrize(("part", "what"), [("train", "training loss"), ("validation", "validation loss")])
def test_an_overflow_is_named_with_what_and_when(data, part, what):
    trainer = make(spoil_features(data, part, 1e30))
    with pytest.raises(NonFiniteError, match=f"^{what} is (nan|inf) in epoch 1$"):
        trainer.train_epoch()
    assert trainer.history == []
    assert trainer.best is None


def test_a_training_that_diverges_is_ended_in_the_epoch_in_which_it_does(data):
    trainer = make(data, replace(SMALL, lr=1e20, epochs=50))
    with pytest.raises(NonFiniteError, match=r" is (nan|inf) in epoch \d+$") as caught:
        start_and_train(trainer)
    assert caught.value.message.endswith(f"epoch {len(trainer.history) + 1}")
    assert all(math.isfinite(result.val_loss) for result in trainer.history)


@pytest.mark.parametrize(
    ("loss_type", "mse", "cosine", "what"),
    [
        ("mse", math.nan, 0.5, "validation loss is nan"),
        ("mse", math.inf, 0.5, "validation loss is inf"),
        ("mse", 1.0, math.nan, "cosine is nan"),
        ("cosine", 1.0, math.nan, "validation loss is nan"),
        ("cosine", math.inf, 0.0, "MSE is inf"),  # it is half of val_loss_equal
        ("combined", math.inf, 0.5, "validation loss is inf"),
    ],
)
def test_whichever_metric_is_no_number_the_training_ends(data, monkeypatch, loss_type, mse, cosine, what):
    trainer = make(data, replace(SMALL, loss_type=loss_type))
    trainer.train_epoch()
    monkeypatch.setattr(trainer, "evaluate", lambda pairs: Evaluation(mse, cosine, {}))
    with pytest.raises(NonFiniteError, match=f"^{what} in epoch 2$"):
        trainer.train_epoch()
    assert len(trainer.history) == 1


# Mixed precision

MIXED = replace(SMALL, use_mixed_precision=True, dropout=0.0, pose_unit="radians")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_gives_about_what_float32_gives_but_not_exactly(data, precision):
    exact, mixed = train(data, MIXED), train(data, MIXED, precision=precision)
    assert mixed.precision == precision
    for one, other in zip(exact.history, mixed.history, strict=True):
        assert (other.train_loss, other.val_loss) == pytest.approx((one.train_loss, one.val_loss), rel=0.02)
        assert other.val_cosine == pytest.approx(one.val_cosine, abs=0.01)
        assert other.val_loss != one.val_loss
    assert {value.dtype for value in mixed.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_only_the_network_itself_runs_in_mixed_precision(data, precision):
    trainer, seen = make(data, MIXED, precision=precision), set()
    trainer.model.output_projection.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    trainer.train_epoch()
    assert seen == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert trainer._predict(trainer.validation, slice(0, 3)).dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_config_without_mixed_precision_trains_in_float32_whatever_the_machine_can(data, precision):
    config = replace(MIXED, use_mixed_precision=False)
    plain, other = train(data, config), train(data, config, precision=precision)
    assert other.precision == "off"
    assert not other.scaler.is_enabled()
    assert numbers(plain) == numbers(other)


def test_only_fp16_scales_its_loss(data):
    assert [make(data, MIXED, precision=p).scaler.is_enabled() for p in ("fp16", "bf16", "off")] == [True, False, False]


def test_gradients_are_clipped_at_their_true_size_in_fp16_too(data, monkeypatch):
    clip, norms = torch.nn.utils.clip_grad_norm_, {"off": [], "fp16": []}
    for precision in norms:

        def recording(parameters, max_norm, precision=precision):
            assert max_norm == 1.0
            norm = clip(parameters, max_norm)
            norms[precision].append(norm.item())
            return norm

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", recording)
        make(data, replace(MIXED, lr=1e-6), precision=precision).train_epoch()
    assert len(norms["fp16"]) == 5
    assert norms["fp16"] == pytest.approx(norms["off"], rel=0.02)  # the scale is 65536


def test_a_step_whose_gradients_overflow_in_fp16_is_skipped_and_the_next_scale_is_smaller(data):
    trainer = make(data, MIXED, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = trainer.model.output_projection.weight.clone()
    result = trainer.train_epoch()
    assert torch.equal(trainer.model.output_projection.weight, before)
    assert trainer.scaler.get_scale() == 2.0**55  # halved at each of 5 steps
    assert math.isfinite(result.train_loss)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trainer.train_epoch()
    assert not torch.equal(trainer.model.output_projection.weight, before)
    assert trainer.scaler.get_scale() == 2.0**10


# The checkpoint

ARGS = {"lr": 1e-3, "data_dir": "somewhere", "max_yaw_angle": None}


@pytest.fixture(scope="module")
def saved(data):
    """A trainer after two epochs, and its checkpoint as it comes back from a file."""
    trainer = make(data, replace(SMALL, use_spatial_attention=True, use_pose_attention=True))
    for _ in range(2):
        trainer.train_epoch()
    file = io.BytesIO()
    torch.save(trainer.checkpoint(ARGS), file)
    file.seek(0)
    return trainer, torch.load(file, weights_only=True)


def test_a_checkpoint_has_exactly_the_keys_and_types_of_the_users_own(saved):
    trainer, checkpoint = saved
    types = {
        "epoch": int,
        "model_state_dict": dict,
        "optimizer_state_dict": dict,
        "best_val_loss": float,
        "args": dict,
        "train_loss_history": list,
        "val_loss_history": list,
        "val_cosine_sim_history": list,
    }
    assert checkpoint.keys() == types.keys()
    assert [key for key, kind in types.items() if not isinstance(checkpoint[key], kind)] == []
    assert checkpoint["epoch"] == 1  # from 0
    assert checkpoint["args"] == ARGS
    assert checkpoint["best_val_loss"] == min(result.val_loss for result in trainer.history)
    for key, name in (
        ("train_loss_history", "train_loss"),
        ("val_loss_history", "val_loss"),
        ("val_cosine_sim_history", "val_cosine"),
    ):
        assert checkpoint[key] == [getattr(result, name) for result in trainer.history]
        assert {type(value) for value in checkpoint[key]} == {float}


def test_the_users_model_predicts_the_same_from_a_checkpoint(saved, data):
    trainer, checkpoint = saved
    model = reference_of(trainer.config, data, checkpoint["model_state_dict"]).eval()
    src, landmarks, poses, target = (torch.from_numpy(a).float() for a in arrays(data, "validation", "degrees"))
    with torch.no_grad():
        prediction = model(src, landmarks, poses)
    torch.testing.assert_close(prediction, trainer.model.eval()(src, landmarks, poses))
    cosine = torch.nn.functional.cosine_similarity(prediction, target).mean().item()
    assert cosine == pytest.approx(checkpoint["val_cosine_sim_history"][-1], abs=1e-6)
    with torch.no_grad():
        model.output_projection.weight *= 1.1
        assert not torch.allclose(model(src, landmarks, poses), prediction, atol=1e-3)


def test_the_optimizer_of_a_checkpoint_goes_on_in_the_users_script(data):
    """Its state is stored by position, so the parameters must be in the order of the users' model."""
    config = replace(HARD, use_spatial_attention=True, use_pose_attention=True, scheduler_patience=9)
    trainer = in_double(data, config, 5)
    for _ in range(2):
        trainer.train_epoch()
    file = io.BytesIO()
    torch.save(trainer.checkpoint({}), file)
    trainer.train_epoch()
    checkpoints = []
    for _ in range(2):
        file.seek(0)
        checkpoints.append(torch.load(file, weights_only=True))
    resumed, spoiled = checkpoints
    settings = {"first_epoch": resumed["epoch"] + 2, "epochs": 1}
    rows, state = restate(
        config, data, 5, resumed["model_state_dict"], optimizer_state=resumed["optimizer_state_dict"], **settings
    )
    trainer.history = trainer.history[2:]
    compare(trainer, rows, state)
    rows, state = restate(config, data, 5, spoiled["model_state_dict"], **settings)  # from a fresh optimizer
    with pytest.raises(AssertionError):
        compare(trainer, rows, state)


def test_a_checkpoint_before_the_first_epoch_is_refused(data):
    with pytest.raises(ValueError, match="no epoch has been trained yet"):
        make(data).checkpoint({})
