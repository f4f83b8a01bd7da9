"""What the engine promises beside equality: its masks, mixed precision, what it hands out, and whom it takes together.

That it gives the plain trainer's numbers is in `test_batched_equality`.
"""

import io
import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from reference_model import STRUCTURES, ReferenceModel
from trained import trained

from face3d_tune.config import TrialConfig
from face3d_tune.errors import ConfigError, NonFiniteError
from face3d_tune.training import dropout as masks_module
from face3d_tune.training.batched import batch as batch_module
from face3d_tune.training.batched import state as state_module
from face3d_tune.training.batched.batch import Batch, Data, alone, structure
from face3d_tune.training.batched.dropout_sites import mask_length, sites
from face3d_tune.training.dropout import MaskStream
from face3d_tune.training.plain import Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = TrialConfig(
    d_model=16,
    dim_feedforward=32,
    nhead=2,
    num_layers=2,
    batch_size=13,
    epochs=3,
    lr=1e-3,
    mse_weight=0.3,
    weight_decay=0.1,
    dropout=0.2,
    pose_unit="radians",
)
ALL = replace(SMALL, use_spatial_attention=True, use_pose_attention=True)
STEPS = 3  # an epoch: 42 training pairs, 13 a batch, the last partial one dropped
everything = pytest.mark.parametrize("flags", STRUCTURES, ids=str)


def together(data, configs, *, precision="off", dtype=torch.float32, seeds=None):
    """A batch, and its members in the order of `configs`."""
    batch = Batch(configs[0], Data(data, CPU, dtype), precision)
    seeds = seeds or range(len(configs))
    return batch, [batch.add(config, seed, precision) for seed, config in zip(seeds, configs, strict=True)]


def train(batch):
    """All trainings to their last epoch; they must have it in common."""
    while batch.members[0].stop_reason is None:
        assert not [given for given in batch.train_epoch() if isinstance(given, NonFiniteError)]


def plain(data, config, seed, *, precision="off", dtype=torch.float32):
    trainer = Trainer(config, data, seed=seed, device=CPU, precision=precision, dtype=dtype)
    while trainer.stop_reason is None:
        trainer.train_epoch()
    return trainer


def numbers(training):
    return [replace(result, seconds=0.0) for result in training.history]


def tensors(training):
    """Every tensor that a training hands out, by name."""
    moments = training.optimizer_state()["state"]
    return training.model_state() | {f"{i} {name}": value for i, of in moments.items() for name, value in of.items()}


def assert_same_bits(one, other):
    assert numbers(one) == numbers(other)
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def assert_equal(one, other):
    """To 1e-9, in every number of the last epoch and in every tensor."""
    for name in ("epoch", "lr", "train_loss", "val_loss", "val_cosine", "next_lr"):
        expected = pytest.approx(getattr(other.history[-1], name), rel=0, abs=1e-9)
        assert getattr(one.history[-1], name) == expected, name
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


# Dropout


@pytest.fixture
def drawn(monkeypatch):
    """Every mask that a plain model draws, in its order."""
    kept, draw = [], MaskStream.draw

    def recording(self, shape, p, like):
        kept.append(draw(self, shape, p, like))
        return kept[-1]

    monkeypatch.setattr(masks_module.MaskStream, "draw", recording)
    return kept


@everything
@pytest.mark.parametrize("models", [1, 3])
def test_every_dropout_of_the_plain_model_is_a_site_of_the_engine_with_the_same_mask(data, drawn, flags, models):
    config = replace(SMALL, **flags, epochs=1, batch_size=7, nhead=4)
    batch, _ = together(data, [config] * models)
    batch.train_epoch()
    for place in range(models):
        drawn.clear()
        plain(data, config, place)
        last = drawn[-len(sites(config)) :]
        assert len(drawn) == 6 * len(last)  # 42 pairs, 7 a batch
        for (name, shape), mask in zip(sites(config).items(), last, strict=True):
            held = batch._mask_views[name] if models == 1 else batch._mask_views[name][place]
            assert mask.squeeze((1, 2)).shape[:2] == shape[:2] if mask.dim() > 2 else mask.shape == shape, name
            assert torch.equal(held.flatten(), mask.flatten()), name


@pytest.mark.parametrize("models", [1, 2])
def test_each_site_keeps_one_minus_p_of_its_numbers_those_of_the_heads_too(data, models):
    """Within 5 standard deviations: right code fails here once in 10**5 choices of seeds, for these 28 rates."""
    rates = (0.3, 0.1)[:models]
    batch, members = together(data, [replace(ALL, dropout=p) for p in rates])
    draws, kept, count = 100, {}, {}
    streams = [MaskStream(member.seed, 1, CPU) for member in members]
    with torch.inference_mode():
        for _, (place, p) in product(range(draws), enumerate(rates)):
            streams[place].fill(batch._masks[place], p)
            for name in sites(ALL):
                mask = batch._mask_views[name] if models == 1 else batch._mask_views[name][place]
                assert ((mask == 0) | ((mask - 1 / (1 - p)).abs() < 1e-6)).all()
                kept[place, name] = kept.get((place, name), 0) + (mask > 0).sum().item()
                count[place, name] = count.get((place, name), 0) + mask.numel()
    assert len(kept) == models * (2 + 6 * ALL.num_layers)
    for (place, name), n in count.items():
        p = rates[place]
        assert abs(kept[place, name] / n - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / n), (place, name)


def test_masks_of_different_sites_and_models_are_different_numbers(data):
    batch, _ = together(data, [replace(ALL, dropout=0.5)] * 2)
    batch.train_epoch()
    assert mask_length(ALL) == batch._masks.shape[1]
    views = [view[place].flatten() for view in batch._mask_views.values() for place in range(2)]
    starts = {view.data_ptr() + offset for view in views for offset in range(0, 4 * view.numel(), 4)}
    assert len(starts) == sum(view.numel() for view in views)
    assert len({tuple(view.tolist()) for view in views}) == len(views)


# The result as a whole: what a user sees of all this


def t_of(differences):
    """The paired t statistic (Student, 1908)."""
    spread = differences.std().item() / math.sqrt(len(differences))
    return differences.mean().item() / spread if spread else math.copysign(math.inf, differences.sum().item())


LEARNING = replace(SMALL, dropout=0.4, epochs=5, lr=1e-2, num_layers=1, batch_size=14)
SEEDS = range(20)
OWN = 1000  # added to the seed of the engine's masks, so that it draws others, as it does on an accelerator


@pytest.fixture(scope="module")
def cosines(data):
    """Final validation cosine of the plain trainer, by seed."""
    return torch.tensor([plain(data, LEARNING, seed).history[-1].val_cosine for seed in SEEDS], dtype=torch.float64)


@pytest.fixture
def final_cosines(data, monkeypatch):
    """The same of the engine, with masks of seeds so much higher, changed by `spoil`."""

    def run(apart, spoil=lambda masks, p: None):
        def fill(self, masks, p):
            original(self, masks, p)
            spoil(masks, p)

        original = MaskStream.fill
        monkeypatch.setattr(MaskStream, "fill", fill)
        monkeypatch.setattr(batch_module, "MaskStream", lambda seed, *rest: MaskStream(seed + apart, *rest))
        batch, members = together(data, [LEARNING] * len(SEEDS))
        train(batch)
        return torch.tensor([member.history[-1].val_cosine for member in members], dtype=torch.float64)

    return run


@pytest.mark.parametrize(("apart", "found"), [(0, 0.001), (OWN, 0.06)], ids=["the same masks", "masks of their own"])
def test_twenty_trainings_end_no_better_and_no_worse_than_the_plain_ones(cosines, final_cosines, apart, found):
    """A paired t test over 20 seeds in float32, which share weights and order: it objects beyond 3 standard errors.

    With 19 degrees of freedom right code is refused for 0.7 % of choices of seeds. A shift of 3.9 standard errors,
    0.87 standard deviations of one difference, is found with a power of 80 %; the last line bounds what that is in
    validation cosine. With the same masks the two differ by rounding alone, so that a thousandth would be found.
    """
    differences = final_cosines(apart) - cosines
    assert differences.abs().max() > 0
    assert abs(t_of(differences)) <= 3, t_of(differences)
    assert 3.9 * differences.std().item() / math.sqrt(len(SEEDS)) < found


DROPOUT_SPOILS = {
    "none at all": lambda masks, p: masks.fill_(1),
    "without its scale": lambda masks, p: masks.mul_(1 - p),
    "twice": lambda masks, p: masks.mul_(torch.rand(masks.shape, generator=torch.Generator().manual_seed(0)) > p),
}


@pytest.mark.parametrize(("apart", "spoil"), [*((0, spoil) for spoil in DROPOUT_SPOILS), (OWN, "none at all")], ids=str)
def test_that_test_objects_to_wrong_dropout(cosines, final_cosines, apart, spoil):
    assert abs(t_of(final_cosines(apart, DROPOUT_SPOILS[spoil]) - cosines)) > 3


# Places


NEIGHBOUR = replace(ALL, mse_weight=0.01, cosine_weight=0.01, epochs=2)  # never clipped
REFILL = replace(ALL, lr=2e-3, weight_decay=0.4, mse_weight=2.0, epochs=2)  # always clipped


def refilled(data, spoil=lambda batch, member: None):
    """A place refilled after an epoch, trained to its end beside a neighbour; `spoil` gets it before its first step."""
    batch, (old, _) = together(data, [replace(ALL, lr=3e-2), NEIGHBOUR], dtype=torch.float64)
    batch.train_epoch()
    member = batch.replace(old, REFILL, 9, "off")
    with torch.inference_mode():
        spoil(batch, member)
    train(batch)
    return member, trained(data, REFILL, 9, torch.float64)


def set_state(name, value):
    def spoil(batch, member):
        getattr(batch.state, name)[0] = value

    return spoil


def swap(name):
    def spoil(batch, member):
        held = getattr(batch, name)
        setattr(batch, name, held.flip(0) if isinstance(held, torch.Tensor) else held[::-1])

    return spoil


def rate_of_the_neighbour(batch, member):
    member.optimizer.param_groups[0]["lr"] = batch.members[1].lr


def no_decay_of_the_dead(batch, member):
    dead, fresh = batch.state.dead, batch.state.dead.clone()
    inner = batch._evaluate

    def without():
        dead.copy_(fresh)
        return inner()

    batch._evaluate = without


REFILL_SPOILS = {
    "step count kept": set_state("steps", STEPS),
    "first moment kept": set_state("first", 1e-6),
    "second moment kept": set_state("second", 1e-6),
    "running mean kept": set_state("mean", 1e-6),
    "running variance kept": set_state("variance", 1 + 1e-6),
    "decays swapped": swap("_decays"),
    "MSE weights swapped": swap("_mse_weight"),
    "rate of the neighbour": rate_of_the_neighbour,
    "no decay of the dead": no_decay_of_the_dead,
}


def test_a_refilled_place_hands_out_what_a_fresh_training_does(data):
    assert_equal(*refilled(data))


@pytest.mark.parametrize("spoil", REFILL_SPOILS)
def test_that_comparison_objects_to_what_a_refill_can_do_wrong(data, spoil):
    member, trainer = refilled(data, REFILL_SPOILS[spoil])
    with pytest.raises(AssertionError):
        assert_equal(member, trainer)


def test_beside_a_training_that_is_clipped_one_that_is_not_is_not(data, monkeypatch):
    clip, norms = torch.nn.utils.clip_grad_norm_, []
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda *args, **kw: norms.append(clip(*args, **kw).item()) or norms[-1]
    )
    batch, members = together(data, [REFILL, NEIGHBOUR], dtype=torch.float64)
    train(batch)
    for seed, member in enumerate(members):
        assert_equal(member, plain(data, member.config, seed, dtype=torch.float64))
    assert max(norms[2 * STEPS :]) < 1 < min(norms[: 2 * STEPS])


def test_places_close_up_and_no_bit_of_anything_handed_out_changes(data):
    configs = [replace(ALL, dropout=p, lr=lr) for p, lr in ((0.2, 1e-3), (0.0, 3e-3), (0.5, 2e-3))]
    batch, members = together(data, configs)
    batch.train_epoch()
    before = [tensors(member) for member in members]
    batch.remove(members[1])
    assert batch.members == [members[0], members[2]]
    for member, held in ((members[0], before[0]), (members[2], before[2])):
        assert [name for name, value in tensors(member).items() if not torch.equal(value, held[name])] == []
    batch.add(configs[1], 7, "off")
    train(batch)
    for member, config, seed in ((members[0], configs[0], 0), (members[2], configs[2], 2)):
        single, (expected,) = together(data, [config], seeds=[seed])
        train(single)
        assert_same_bits(member, expected)
    batch.remove(*batch.members)
    assert batch.members == []
    again = batch.add(configs[0], 0, "off")
    train(batch)
    assert_same_bits(again, by_itself(data, configs[0], 0))


def by_itself(data, config, seed, precision="off"):
    member = alone(config, data, seed=seed, device=CPU, precision=precision)
    while member.stop_reason is None:
        member.train_epoch()
    return member


@pytest.mark.parametrize("leave", ["stays", "removed", "refilled"])
def test_a_neighbour_that_diverges_is_named_and_changes_no_bit(data, leave):
    batch, (left, wild, right) = together(data, [ALL, replace(ALL, lr=1e20), ALL])
    given = batch.train_epoch()
    assert [type(result) is NonFiniteError for result in given] == [False, True, False]
    assert str(given[1]).endswith("in epoch 1")
    assert wild.history == []
    if leave == "removed":
        batch.remove(wild)
    elif leave == "refilled":
        batch.replace(wild, replace(ALL, epochs=9), 5, "off")
    while left.stop_reason is None:
        batch.train_epoch()
    for member in (left, right):
        assert_same_bits(member, by_itself(data, ALL, member.seed))


def test_a_training_alone_that_diverges_says_so(data):
    member = alone(replace(SMALL, lr=1e20), data, seed=1, device=CPU, precision="off")
    with pytest.raises(NonFiniteError, match=r" in epoch 1$"):
        member.train_epoch()


# Mixed precision

MIXED = replace(ALL, use_mixed_precision=True, epochs=2)
lower = pytest.mark.parametrize("precision", ["bf16", "fp16"])


@lower
@pytest.mark.parametrize(("models", "flags"), [(1, STRUCTURES[3]), (3, STRUCTURES[3]), (2, STRUCTURES[4])], ids=str)
def test_mixed_precision_gives_about_what_the_plain_trainer_gives_in_it(data, precision, models, flags):
    configs = [replace(MIXED, **flags, lr=lr, dropout=p) for lr, p in ((1e-3, 0.2), (2e-3, 0.0), (5e-4, 0.4))][:models]
    batch, members = together(data, configs, precision=precision)
    train(batch)
    for seed, (config, member) in enumerate(zip(configs, members, strict=True)):
        assert member.precision == precision
        mixed = plain(data, config, seed, precision=precision)
        for ours, theirs in zip(member.history, mixed.history, strict=True):
            assert (ours.train_loss, ours.val_loss) == pytest.approx((theirs.train_loss, theirs.val_loss), rel=0.02)
            assert ours.val_cosine == pytest.approx(theirs.val_cosine, abs=0.01)
        assert {value.dtype for value in member.model_state().values() if value.is_floating_point()} == {torch.float32}
    assert numbers(members[0]) != numbers(by_itself(data, configs[0], 0))


@lower
def test_in_mixed_precision_no_bit_depends_on_the_number_of_models_either(data, precision):
    # 16 pairs a batch: a processor with instructions for fp16 computes products of 16³ multiplications and fewer with
    # another routine, and those of all models count together.
    configs = [replace(MIXED, lr=lr, d_model=24, nhead=3, batch_size=16, epochs=2) for lr in (1e-3, 3e-3, 2e-3)]
    batch, members = together(data, configs, precision=precision)
    train(batch)
    for seed, (config, member) in enumerate(zip(configs, members, strict=True)):
        assert_same_bits(member, by_itself(data, config, seed, precision))


@lower
def test_a_config_without_mixed_precision_trains_in_float32_whatever_the_machine_can(data, precision):
    config = replace(MIXED, use_mixed_precision=False)
    batch, (member,) = together(data, [config], precision=precision)
    assert (batch.precision, member.precision) == ("off", "off")
    train(batch)
    assert_same_bits(member, by_itself(data, config, 0))


def test_each_model_has_a_loss_scale_of_its_own_and_the_neighbours_do_not_notice(data):
    (calm, _), (wild, _) = runs = [together(data, [MIXED] * 3, precision="fp16") for _ in range(2)]
    with torch.inference_mode():
        wild.state.scales[1] = 2.0**60
    before = tensors(wild.members[1])
    for batch, _ in runs:
        batch.train_epoch()
    assert calm.state.scales.tolist() == [2.0**16] * 3
    assert wild.state.scales.tolist() == [2.0**16, 2.0 ** (60 - STEPS), 2.0**16]
    assert wild.state.steps.tolist() == [STEPS, 0, STEPS]
    for place in (0, 2):
        assert_same_bits(calm.members[place], wild.members[place])
    after = tensors(wild.members[1])
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {f"keypoint_encoder.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert math.isfinite(wild.members[1].history[0].train_loss)


@pytest.mark.parametrize("models", [1, 2])
def test_after_an_overflow_the_training_goes_on_with_a_scale_that_fits(data, models):
    batch, (member, *_) = together(data, [MIXED] * models, precision="fp16")
    with torch.inference_mode():
        batch.state.scales[0] = 2.0**60
    batch.train_epoch()
    with torch.inference_mode():
        batch.state.scales[0] = 2.0**10
    before = member.model_state()["output_projection.weight"]
    batch.train_epoch()
    assert batch.state.steps[0] == STEPS
    assert batch.state.scales[0] == 2.0**10
    assert not torch.equal(member.model_state()["output_projection.weight"], before)


def test_a_scale_grows_after_a_long_time_without_overflow(data, monkeypatch):
    monkeypatch.setattr(state_module, "GROWTH_INTERVAL", 2)
    batch, _ = together(data, [MIXED] * 2, precision="fp16")
    with torch.inference_mode():
        batch.state.scales.copy_(torch.tensor([2.0**8, 2.0**60]))
    batch.train_epoch()
    assert batch.state.scales.tolist() == [2.0**9, 2.0**57]  # once in 3 steps; never
    assert batch.state.since_overflow.tolist() == [1, 0]


# What is handed out


@everything
@pytest.mark.parametrize("models", [1, 2])
def test_a_checkpoint_loads_strictly_and_the_plain_trainer_goes_on_from_it(data, flags, models):
    config = replace(SMALL, **flags, epochs=3, d_model=12, mse_weight=2.0)
    configs = [config, replace(config, lr=3e-3, dropout=0.0)][:models]
    batch, members = together(data, configs, dtype=torch.float64)
    for _ in range(2):
        batch.train_epoch()
    trainers = []
    for seed, (each, member) in enumerate(zip(configs, members, strict=True)):
        file = io.BytesIO()
        torch.save(member.checkpoint({"lr": each.lr}), file)
        file.seek(0)
        checkpoint = torch.load(file, weights_only=True)
        assert (checkpoint["epoch"], checkpoint["args"]) == (1, {"lr": each.lr})
        assert checkpoint["best_val_loss"] == min(checkpoint["val_loss_history"])
        trainer = Trainer(each, data, seed=seed, device=CPU, dtype=torch.float64)
        trainer.model.load_state_dict(checkpoint["model_state_dict"], strict=True)
        trainer.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        trainer.history = list(member.history)  # so that it knows which epoch is next
        trainers.append(trainer)
        names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", *flags)
        theirs = ReferenceModel(feature_size=data.feature_size, **{name: getattr(each, name) for name in names})
        theirs.load_state_dict(checkpoint["model_state_dict"], strict=True)
    batch.train_epoch()
    for member, trainer in zip(members, trainers, strict=True):
        trainer.train_epoch()
        assert_equal(member, trainer)
        with torch.no_grad():
            trainer.model.output_projection.weight[0, 0] += 1e-6
        with pytest.raises(AssertionError):
            assert_equal(member, trainer)


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_an_optimizer_state_is_the_plain_trainers_in_every_setting(data, optimizer):
    config = replace(ALL, scheduler_patience=0, scheduler_factor=0.1, lr=0.3, epochs=5, optimizer=optimizer)
    batch, (_, member) = together(data, [replace(config, lr=1e-3), config], dtype=torch.float64)
    train(batch)
    ours, theirs = member.optimizer_state(), plain(data, config, 1, dtype=torch.float64).optimizer_state()
    assert ours["state"].keys() == theirs["state"].keys()
    assert {name: type(value) for name, value in ours["state"][0].items()} == {
        name: type(value) for name, value in theirs["state"][0].items()
    }
    assert [group | {"lr": 0} for group in ours["param_groups"]] == [
        {name: value for name, value in group.items() if name != "initial_lr"} | {"lr": 0}
        for group in theirs["param_groups"]
    ]
    assert ours["param_groups"][0]["lr"] == theirs["param_groups"][0]["lr"]


def test_what_is_handed_out_is_a_copy_and_can_be_trained(data):
    batch, (member, _) = together(data, [ALL] * 2)
    batch.train_epoch()
    state, moments = member.model_state(), member.optimizer_state()["state"]
    kept = {name: value.clone() for name, value in tensors(member).items()}
    for value in (*state.values(), *(moment for each in moments.values() for moment in each.values())):
        assert not value.is_inference()
        value.add_(1)
    assert [name for name, value in tensors(member).items() if not torch.equal(value, kept[name])] == []
    batch.train_epoch()
    assert torch.equal(state["output_projection.bias"], kept["output_projection.bias"] + 1)


def test_there_is_no_checkpoint_before_the_first_epoch(data):
    _, (member,) = together(data, [SMALL])
    with pytest.raises(ValueError, match="no epoch has been trained yet"):
        member.checkpoint({})


# Whom it takes, and how it stops


@pytest.mark.parametrize("steps", range(STEPS + 1))
def test_stop_is_asked_before_every_step_and_ends_the_epoch(data, steps):
    batch, (member, _) = together(data, [SMALL] * 2)
    asked = []

    def stop():
        asked.append(True)
        return len(asked) > steps

    given = batch.train_epoch(stop)
    assert batch.state.steps.tolist() == [steps] * 2
    if steps < STEPS:
        assert (given, len(asked), member.history) == (None, steps + 1, [])
    else:
        assert (len(given), len(asked), len(member.history)) == (2, STEPS, 1)


def test_a_batch_larger_than_the_training_pairs_is_refused(data):
    together(data, [replace(SMALL, batch_size=42)])[0].train_epoch()
    with pytest.raises(ConfigError, match="batch_size = 43 is more than the 42 training pairs"):
        together(data, [replace(SMALL, batch_size=43)])


MAY_DIFFER = {
    **{"epochs": 9, "lr": 1.0, "weight_decay": 0.9, "dropout": 0.0, "pose_unit": "degrees", "loss_type": "mse"},
    **{"mse_weight": 0.9, "cosine_weight": 0.9, "scheduler_factor": 0.9, "scheduler_patience": 9},
    **{"scheduler_min_lr": 1e-9, "early_stopping_patience": 9, "early_stopping_min_delta": 0.9},
    **{"scheduler_type": "cosine", "warmup_epochs": 3, "focal_gamma": 1.0, "angle_weight": 1.0, "oversampling": 1.0},
    **{"view_mixing": 0.5, "feature_noise": 0.5, "pose_jitter": 5.0, "landmark_noise": 0.1},
    **{"identity_weight": 0.5, "identity_temperature": 0.2},
}
MUST_AGREE = {
    **{"layout": "pose", "d_model": 32, "dim_feedforward": 64, "nhead": 4, "num_layers": 3, "batch_size": 9},
    **{"use_spatial_attention": True, "use_pose_attention": True, "optimizer": "adam"},
    **{"inputs": "ridge"},
}


@pytest.mark.parametrize("name", MAY_DIFFER)
def test_trainings_that_differ_in_numbers_only_share_a_batch(name):
    assert structure(replace(SMALL, **{name: MAY_DIFFER[name]}), "bf16") == structure(SMALL, "bf16")


@pytest.mark.parametrize("name", MUST_AGREE)
def test_trainings_that_differ_in_a_shape_or_in_the_optimizer_do_not(name):
    assert structure(replace(SMALL, **{name: MUST_AGREE[name]}), "off") != structure(SMALL, "off")


def test_only_the_precision_that_a_training_uses_counts():
    assert {*MAY_DIFFER, *MUST_AGREE, "use_mixed_precision"} == SMALL.to_dict().keys()  # nothing forgotten above
    kinds = {structure(replace(SMALL, use_mixed_precision=True), precision) for precision in ("off", "bf16", "fp16")}
    assert len(kinds) == 3
    assert {structure(SMALL, precision) for precision in ("off", "bf16", "fp16")} < kinds
    assert len({structure(SMALL, precision) for precision in ("off", "bf16", "fp16")}) == 1
