"""What the benchmarks of searching are built on: curves as they were, early stopping replayed, people invented."""

import json
import random

import numpy as np
import optuna
import pytest
from command_line import call

from benchmarks import curves, other_people
from benchmarks.priors import AroundSampler
from benchmarks.surrogate import Ended
from face3d_tune import study_file
from face3d_tune.config import resolve
from face3d_tune.stopping import EarlyStopping


def test_a_packed_curve_is_the_recorded_one_to_a_millionth(tmp_path):
    rng = random.Random(0)
    cosine = [rng.uniform(-0.2, 0.7) for _ in range(100)]
    equal = [0.5 * rng.uniform(0, 0.5) + 0.5 * (1 - c) for c in cosine]
    whole = {"id": "sobol-0", "params": {"lr": 1e-4}, "seed": 3, "fold": 0, "error": None}
    diverged = {"id": "sobol-1", "params": {}, "seed": 4, "fold": 2, "error": "NaN"}
    records = [
        {**whole, "cosine": cosine, "equal": equal},
        {**diverged, "cosine": cosine[:7], "equal": equal[:7]},
    ]

    curves.pack(records, tmp_path / "curves.npz")
    read = curves.read(tmp_path / "curves.npz")

    assert np.abs(read.cosine[0] - cosine).max() <= 1e-6
    assert np.abs(read.mse[0] - (2 * np.array(equal) - (1 - np.array(cosine)))).max() <= 1e-8
    assert np.isnan(read.cosine[1, 7:]).all()
    assert not np.isnan(read.cosine[1, :7]).any()
    assert (read.ids, read.seeds, read.folds, read.errors) == (["sobol-0", "sobol-1"], [3, 4], [1, 2], [None, "NaN"])


def test_points_follow_from_the_file_alone():
    first, again = (curves.points("default", []) for _ in range(2))

    assert first == again
    assert [p.id for p in first[:3]] == ["sobol-0", "random-0", "sobol-1"]
    assert len({tuple(p.params.values()) for p in first}) == len(first)


@pytest.mark.parametrize("patience", [0, 3, 15])
def test_early_stopping_is_replayed_as_a_training_does_it(patience):
    rng = np.random.default_rng(patience)
    cosine = (0.6 + np.cumsum(rng.normal(0, 0.01, 100))).tolist()
    mse = rng.uniform(0.005, 0.006, 100).tolist()
    config = resolve(
        {"cosine_weight": 0.7, "early_stopping_patience": patience, "early_stopping_min_delta": 1e-3},
        feature_size=128,
        epochs=100,
        layout="keypoint",
    )

    losses = [config.mse_weight * m + 0.7 * (1 - c) for c, m in zip(cosine, mse, strict=True)]
    stopping = EarlyStopping(patience, 1e-3)
    stopped = next((epoch for epoch, loss in enumerate(losses, start=1) if stopping.update(loss)), 100)

    assert Ended.of(config, cosine, mse) == Ended(stopped, losses.index(min(losses[:stopped])))


def test_a_sampler_round_the_presets_stays_in_the_space_and_near_them():
    file = study_file.read("default")
    centre = dict(file.seed_trials()[1].params)
    study = optuna.create_study(direction="maximize")
    study.sampler = AroundSampler(optuna.samplers.RandomSampler(0), file.space, 0, [centre], share=1.0, width=0.01)

    trial = study.ask(dict(file.space))

    assert all(file.space[name]._contains(file.space[name].to_internal_repr(v)) for name, v in trial.params.items())
    assert trial.params["lr"] == pytest.approx(centre["lr"], rel=0.3)
    assert trial.params["pose_unit"] == centre["pose_unit"]


def test_invented_people_are_data_that_the_program_accepts(tmp_path):
    other_people.write(tmp_path / "people", other_people.make(7, people=12, views=4, size=16))

    answer = call("data", "check", "people", cwd=tmp_path)

    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "people/video_metadata.json").read_text())["poses"][0] != [0, 0, 0]


def test_invented_people_follow_from_their_seed():
    one, same, other = (other_people.make(seed, people=6, views=3, size=16) for seed in (7, 7, 8))

    assert np.array_equal(one["video_feature.npy"], same["video_feature.npy"])
    assert not np.array_equal(one["video_feature.npy"], other["video_feature.npy"])
