"""What an epoch shows, and what its noises and mixtures are: how often, how much, and from which stream."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.training import augmentation
from face3d_tune.training.augmentation import TrainingViews, augmented, augments, order
from face3d_tune.training.plain import Trainer

CONFIG = TrialConfig(d_model=8, dim_feedforward=8)
PEOPLE, EACH, F = 40, 25, 64  # the last person has one view more: alone with its front row


@pytest.fixture(scope="module")
def views():
    draw = np.random.default_rng(0)
    pairs = PEOPLE * EACH + 1
    front = np.append(np.repeat(np.arange(PEOPLE), EACH), PEOPLE)
    src = torch.from_numpy(draw.normal(size=(pairs, F)))
    degrees = draw.uniform(-90, 90, size=(pairs, 3))
    return TrainingViews(src, torch.from_numpy(draw.normal(size=(pairs, 5, 3)) * 0.3), degrees, front)


def everything(views):
    return torch.arange(len(views.src))


def shown(views, drawn=None, *, seed=1, epoch=1, **values):
    drawn = everything(views) if drawn is None else drawn
    return augmented(replace(CONFIG, **values), views, drawn, seed, epoch)


def lengths(rows):
    return torch.linalg.vector_norm(rows, dim=1)


# Which pairs


def test_without_oversampling_an_epoch_is_the_permutation_that_it_always_was(views):
    drawn = order(CONFIG, views.degrees[:, 0], 7, 3)
    assert torch.equal(drawn, torch.randperm(len(views.src), generator=seeds.generator(7, "order", 3)))


def test_with_oversampling_large_angles_come_as_much_more_often_as_it_says(views):
    extreme = np.abs(views.degrees[:, 0]) >= 45
    config = replace(CONFIG, oversampling=2.0)
    drawn = torch.cat([order(config, views.degrees[:, 0], 7, epoch) for epoch in range(200)]).numpy()
    assert len(drawn) == 200 * len(extreme)  # as many pairs an epoch as before
    counts = np.bincount(drawn, minlength=len(extreme))
    often, seldom = counts[extreme].mean(), counts[~extreme].mean()
    assert often / seldom == pytest.approx(3.0, rel=0.02)
    assert len(np.unique(order(config, views.degrees[:, 0], 7, 1))) < len(extreme)  # with replacement


def test_45_degrees_to_either_side_are_extreme_and_less_is_not():
    drawn = order(replace(CONFIG, oversampling=1e12), np.array([45.0, -45.0, 44.9, 0.0]), 1, 1)
    assert set(drawn.tolist()) <= {0, 1}


# What is changed


@pytest.mark.parametrize("name", ["view_mixing", "feature_noise", "pose_jitter", "landmark_noise"])
def test_each_changes_what_it_is_about_and_nothing_else(views, name):
    assert augments(replace(CONFIG, **{name: 0.5}))
    plain, changed = shown(views), shown(views, **{name: 0.5})
    about = {"feature_noise": ["src"], "pose_jitter": ["degrees"], "landmark_noise": ["landmarks"]}
    differing = [field for field in ("src", "landmarks", "degrees") if not _same(plain, changed, field)]
    assert differing == about.get(name, ["src", "landmarks", "degrees"])


def _same(one, other, field):
    return torch.equal(getattr(one, field), getattr(other, field))


def test_by_default_nothing_is_augmented(views):
    assert not augments(CONFIG)
    drawn = torch.tensor([5, 0, 5])
    same = shown(views, drawn)
    assert torch.equal(same.src, views.src[drawn])
    assert torch.equal(same.landmarks, views.landmarks[drawn])
    assert np.array_equal(same.degrees.numpy(), views.degrees[drawn.numpy()])


@pytest.mark.parametrize("level", [0.1, 0.8])
def test_feature_noise_is_of_that_length_relative_to_the_embeddings_and_leaves_its_length(views, level):
    changed = shown(views, feature_noise=level).src
    torch.testing.assert_close(lengths(changed), lengths(views.src))
    # Before the scaling back, |src + n|² is |src|² (1 + level²) on average, so the cosine is about 1 / √(1 + level²).
    cosine = torch.nn.functional.cosine_similarity(changed, views.src).mean().item()
    assert cosine == pytest.approx(1 / (1 + level**2) ** 0.5, abs=0.006)


def test_the_feature_noise_is_its_stream_scaled(views):
    noise = torch.randn(len(views.src), F, generator=seeds.generator(1, "feature noise", 4)).double()
    moved = views.src + 0.3 / F**0.5 * lengths(views.src)[:, None] * noise
    expected = moved * (lengths(views.src) / lengths(moved))[:, None]
    torch.testing.assert_close(shown(views, feature_noise=0.3, epoch=4).src, expected, rtol=1e-12, atol=1e-12)


def test_pose_jitter_has_that_standard_deviation_in_degrees_on_each_angle(views):
    moved = (shown(views, pose_jitter=5.0).degrees - torch.from_numpy(views.degrees)).numpy()
    assert moved.std(axis=0) == pytest.approx([5.0] * 3, rel=0.06)
    assert moved.mean(axis=0) == pytest.approx([0.0] * 3, abs=0.5)


def test_landmark_noise_is_relative_to_the_root_mean_square_of_all_training_landmarks(views):
    moved = shown(views, torch.arange(500), landmark_noise=0.2).landmarks - views.landmarks[:500]
    rms = np.sqrt(np.mean(views.landmarks.numpy() ** 2))
    assert moved.std().item() == pytest.approx(0.2 * rms, rel=0.03)


def test_views_are_mixed_with_another_of_the_same_front_row_as_often_as_it_says(views):
    drawn = order(CONFIG, views.degrees, 2, 1)
    mixed = shown(views, drawn, view_mixing=0.3)
    own = torch.from_numpy(views.degrees)[drawn]
    moved = (mixed.degrees != own).any(1)
    assert moved.double().mean().item() == pytest.approx(0.3, abs=0.04)
    partners, t = augmentation._partners(0.3, views.front, drawn, 1, 1)
    assert (views.front[partners.numpy()] == views.front[drawn.numpy()]).all()
    chosen = t > 0
    assert torch.equal(chosen, moved)
    assert (partners[chosen] != drawn[chosen]).all()
    assert t[chosen].mean().item() == pytest.approx(0.5, abs=0.06)
    other = torch.from_numpy(views.degrees)[partners]
    torch.testing.assert_close(mixed.degrees, (1 - t[:, None]) * own + t[:, None] * other)
    share = t[:, None, None]
    expected = (1 - share) * views.landmarks[drawn] + share * views.landmarks[partners]
    torch.testing.assert_close(mixed.landmarks, expected)
    torch.testing.assert_close(lengths(mixed.src), lengths(views.src[drawn]))  # as long as its own
    straight = (1 - t[:, None]) * views.src[drawn] + t[:, None] * views.src[partners]
    cosines = torch.nn.functional.cosine_similarity(mixed.src, straight)
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


def test_every_other_view_of_a_person_is_as_likely(views):
    drawn = torch.full((24_000,), 3)  # a view of the first person
    partners, _ = augmentation._partners(1.0, views.front, drawn, 1, 1)
    counts = np.bincount(partners.numpy(), minlength=EACH)
    assert counts[3] == 0
    assert len(counts) == EACH
    assert np.delete(counts, 3) == pytest.approx([1000] * 24, rel=0.15)


def test_the_only_view_of_a_person_stays_as_it_is(views):
    last = torch.tensor([len(views.src) - 1])
    alone = shown(views, last, view_mixing=1.0)
    assert torch.equal(alone.src, views.src[last])
    assert alone.degrees.tolist() == [views.degrees[-1].tolist()]


def test_a_view_without_length_is_no_trouble():
    views = TrainingViews(torch.zeros(4, F), torch.zeros(4, 5, 3), np.zeros((4, 3)), np.zeros(4, dtype=np.int64))
    assert not shown(views, view_mixing=1.0, feature_noise=0.5, landmark_noise=0.5).src.any()


def test_every_purpose_epoch_and_seed_has_its_own_stream(views):
    everything_on = {"view_mixing": 0.5, "feature_noise": 0.5, "pose_jitter": 5.0, "landmark_noise": 0.5}
    first = shown(views, **everything_on)
    assert all(_same(first, shown(views, **everything_on), field) for field in ("src", "landmarks", "degrees"))
    for where in ({"epoch": 2}, {"seed": 2}):
        other = shown(views, **everything_on, **where)
        assert not any(_same(first, other, field) for field in ("src", "landmarks", "degrees"))
    # One noise more moves no other one.
    jitter = shown(views, pose_jitter=5.0)
    assert _same(jitter, shown(views, pose_jitter=5.0, feature_noise=0.5, landmark_noise=0.5), "degrees")


# Where it acts


@pytest.mark.parametrize(
    "values",
    [{"view_mixing": 1.0}, {"feature_noise": 0.5}, {"pose_jitter": 9.0}, {"oversampling": 3.0}, {"focal_gamma": 2.0}],
    ids=str,
)
def test_validation_is_untouched(data, values):
    small = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, num_layers=1, batch_size=8, lr=1e-30, **values)
    given = Trainer(small, data, seed=1, device=torch.device("cpu"))
    plain = Trainer(replace(small, **dict.fromkeys(values, 0.0)), data, seed=1, device=torch.device("cpu"))
    plain.model.load_state_dict(given.model.state_dict())
    assert given.evaluate(given.validation) == plain.evaluate(plain.validation)
    before = plain.evaluate(plain.validation)
    result = given.train_epoch()
    given.model.load_state_dict(plain.model.state_dict())
    assert given.evaluate(given.validation) == before  # nothing was written into the pairs either
    assert result.val_loss == pytest.approx(
        small.mse_weight * before.mse + small.cosine_weight * (1 - before.cosine), abs=0.05
    )


def test_a_mixed_view_weighs_by_its_own_yaw(data):
    config = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, view_mixing=1.0, pose_jitter=20.0)
    pairs = Trainer(config, data, seed=1, device=torch.device("cpu")).train
    drawn = order(config, pairs.yaw, 1, 1)
    changed = pairs.with_views(drawn, augmented(config, pairs.views, drawn, 1, 1), "degrees")
    yaw = data.poses[data.parts["train"][drawn.numpy(), 1], 0]
    assert changed.yaw.tolist() == yaw.tolist()
    assert changed.turn.tolist() == np.abs(yaw).astype(np.float32).tolist()
    assert torch.equal(changed.target, pairs.target[drawn])
    assert not torch.equal(changed.poses[:, 0].abs(), changed.turn)
