"""What follows from an earlier run's file beyond what it says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from face3d_tune import importing
from face3d_tune.conditions import Settings
from face3d_tune.config import resolve
from face3d_tune.data import load
from face3d_tune.earlier_run import EarlierRun, NotExpressible, learning_rates
from face3d_tune.importing import examine
from face3d_tune.losses import combine
from face3d_tune.model import Model
from face3d_tune.trainer import Trainer
from face3d_tune.training import Pairs

SETTINGS = Settings("keypoint", 9, None)
CPU = torch.device("cpu")
ARGS = {"lr": 1e-3, "scheduler_factor": 0.5, "scheduler_patience": 1, "scheduler_min_lr": 2e-4, "epochs": 9}
ARGS |= {"batch_size": 8, "nhead": 2, "num_layers": 1}


def run_of(losses, weights=None, **changes):
    held = {"val_loss": tuple(losses), "train_loss": tuple(losses), "cosine": tuple(losses)}
    held |= {"args": ARGS, "weights": weights or {}, "epoch": None, "lr": None}
    return EarlierRun(path=Path("best_model.pth"), sha256="0", **{**held, **changes})


def config_of(**changes):
    values = {name: value for name, value in {**ARGS, **changes}.items() if name != "epochs"}
    return resolve(values, feature_size=16, epochs=9, layout="keypoint")


def test_learning_rates_follow_from_the_validation_losses():
    # Patience 1: the second epoch in a row without a new best halves the rate, down to the floor.
    run = run_of([0.5, 0.6, 0.6, 0.4, 0.5, 0.5, 0.5, 0.5], epoch=3, lr=5e-4)
    rates = [1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 2e-4]
    assert learning_rates(run, config_of()) == pytest.approx(rates)


@pytest.mark.parametrize("lr", [None, 1e-3])
def test_they_are_unknown_if_the_file_does_not_say_the_same(lr):
    run = run_of([0.5, 0.6, 0.6, 0.4], epoch=3, lr=lr)  # at its end the rate is 5e-4
    assert learning_rates(run, config_of()) == ()


def test_those_of_a_cosine_after_a_warm_up_do_too():
    config = config_of(scheduler_type="cosine", warmup_epochs=1, scheduler_min_lr=0.0)  # of 9 epochs 8 anneal
    run = run_of([0.5] * 5, epoch=4, lr=1e-3 * (1 + math.cos(math.pi * 4 / 8)) / 2)  # the rate of epoch 6
    rates = [5e-4, *(1e-3 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(5))]
    assert learning_rates(run, config) == pytest.approx(rates)


def test_only_a_run_of_this_program_may_have_had_another_schedule():
    weights = Model(config_of(), 16, torch.Generator()).state_dict()
    args = {**ARGS, "scheduler_type": "cosine", "warmup_epochs": 2}
    with pytest.raises(NotExpressible, match=r"scheduler_type = cosine; of a script only .*; warmup_epochs = 2; how"):
        replace(run_of([0.5], weights), args=args).config("degrees")
    ours = replace(run_of([0.5], weights), args={**args, "pose_unit": "radians", "view_mixing": 0.5}).config("radians")
    assert (ours.scheduler_type, ours.warmup_epochs, ours.view_mixing) == ("cosine", 2, 0.5)


@pytest.mark.parametrize(("epoch", "holds"), [(None, True), (1, True), (2, True), (0, False), (3, False)])
def test_weights_are_of_the_best_epoch_counted_from_0_or_from_1(epoch, holds):
    assert run_of([0.5, 0.4, 0.6, 0.6], epoch=epoch).holds_best is holds
    assert run_of([0.5, 0.4], epoch=epoch).holds_best  # it was stored when this was the last epoch


def test_a_claim_between_two_kinds_of_people_is_no_proof_of_either(data_folder, quick, monkeypatch):
    data = load(data_folder)
    model = Trainer(config_of(), data, seed=1, device=CPU)
    train, validation = (model.evaluate(Pairs(data, part, "degrees", CPU)) for part in ("train", "validation"))
    middle = {name: 0.3 * getattr(train, name) + 0.7 * getattr(validation, name) for name in ("mse", "cosine")}
    claimed = {"val_loss": (combine(config_of(), **middle),), "cosine": (middle["cosine"],)}
    run = replace(run_of([0.5], dict(model.model.state_dict())), args={**ARGS, "scheduler_min_lr": 0.0}, **claimed)
    assert "with another split" in examine(run, quick, SETTINGS, data, unconfirmed=False).reason
    monkeypatch.setattr(importing, "_SAME", 1.0)
    examined = examine(run, quick, SETTINGS, data, unconfirmed=False)
    assert "too near to each other to tell" in examined.reason
    assert examined.trial is None


@pytest.mark.parametrize(("of_test", "is_everyones"), [(0.60, True), (0.77, True), (0.84, False), (0.52, False)])
def test_a_claim_is_everyones_if_the_test_people_need_not_be_odd_ones_for_it(data_folder, of_test, is_everyones):
    data = load(data_folder)
    train, validation, test = (len(data.parts[part]) for part in ("train", "validation", "test"))

    def given(*cosines):
        return importing._Scores(torch.zeros(1), torch.cat(cosines), np.zeros((1, 3)))

    on_train, on_validation = torch.full((train,), 0.8), torch.full((validation,), 0.6)
    scores = {
        "train": given(on_train),
        "validation": given(on_validation),
        "both": given(on_train, on_validation),
    }
    claim = (0.8 * train + 0.6 * validation + of_test * test) / (train + validation + test)
    assert importing._is_of_everyone(claim, scores, data) is is_everyones
