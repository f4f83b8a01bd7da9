"""The learning rate of every epoch, worked out by hand and by torch."""

from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from face3d_tune.config import TrialConfig
from face3d_tune.training.schedules import Schedule

CONFIG = TrialConfig(
    d_model=8, dim_feedforward=8, epochs=10, lr=0.1, scheduler_factor=0.5, scheduler_patience=1, scheduler_min_lr=0.01
)
STANDING = [1.0, 0.9, *[0.95] * 20]  # falls once, then never again


def started(config):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.lr)
    return Schedule(config, optimizer), optimizer


def rates(config, losses=STANDING):
    """That each epoch trains with, and the one after the last."""
    schedule, optimizer = started(config)
    found = [optimizer.param_groups[0]["lr"]]
    for loss in losses[: config.epochs]:
        schedule.step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def torchs(make, step=lambda scheduler, loss: scheduler.step()):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=CONFIG.lr)
    scheduler = make(optimizer)
    found = [CONFIG.lr]
    for loss in STANDING[: CONFIG.epochs]:
        optimizer.step()
        step(scheduler, loss)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def plateau(optimizer):
    return ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=1, min_lr=0.01)


def test_by_default_every_rate_is_torchs_plateau():
    expected = torchs(plateau, lambda scheduler, loss: scheduler.step(loss))
    assert rates(CONFIG) == expected
    assert expected == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.01]


def test_cosine_is_torchs_annealing_over_all_epochs():
    found = rates(replace(CONFIG, scheduler_type="cosine"))
    expected = torchs(lambda optimizer: CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01))
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[0] == 0.1
    assert found[5] == pytest.approx((0.1 + 0.01) / 2)  # half-way
    assert 0.01 < found[9] < 0.0125  # the last epoch: 0.01 + 0.09 (1 + cos(0.9 pi)) / 2 = 0.0122
    assert found[9] == pytest.approx(0.012202, abs=1e-6)


@pytest.mark.parametrize("warm", [1, 4])
def test_cosine_after_a_warm_up_anneals_over_the_epochs_that_are_left(warm):
    found = rates(replace(CONFIG, scheduler_type="cosine", warmup_epochs=warm))
    expected = torchs(lambda optimizer: CosineAnnealingLR(optimizer, T_max=10 - warm, eta_min=0.01))
    assert found[:warm] == pytest.approx([0.1 * epoch / (warm + 1) for epoch in range(1, warm + 1)], rel=1e-15)
    assert found[warm:] == pytest.approx(expected[: 11 - warm], rel=1e-12)


def test_a_warm_up_rises_in_a_line_from_the_first_epoch_on():
    assert rates(replace(CONFIG, warmup_epochs=3))[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1], rel=1e-15)


def test_the_plateau_sees_no_loss_of_the_warm_up():
    config = replace(CONFIG, warmup_epochs=4)
    low_at_first = [0.1, 0.1, 0.1, 0.1]  # lower than anything later: a plateau that saw it would wait for no more
    found = rates(config, low_at_first + STANDING)
    assert found[4:] == rates(CONFIG, STANDING)[:7]
    assert rates(CONFIG, low_at_first + STANDING)[4:] != found[4:]


def test_a_warm_up_as_long_as_the_training_is_all_there_is():
    for kind in ("plateau", "cosine"):
        found = rates(replace(CONFIG, warmup_epochs=10, scheduler_type=kind))
        assert found[:10] == pytest.approx([0.1 * epoch / 11 for epoch in range(1, 11)], rel=1e-15)
        assert found[10] == 0.1


def test_a_rate_never_rises_to_a_minimum_above_it():
    for kind in ("plateau", "cosine"):
        assert set(rates(replace(CONFIG, scheduler_min_lr=0.5, scheduler_type=kind))) == {0.1}


@pytest.mark.parametrize(
    "changes", [{}, {"warmup_epochs": 3}, {"scheduler_type": "cosine", "warmup_epochs": 2}], ids=str
)
def test_a_schedule_goes_on_from_its_state(changes):
    config = replace(CONFIG, **changes)
    expected = rates(config)
    for epochs in range(10):
        schedule, optimizer = started(config)
        for loss in STANDING[:epochs]:
            schedule.step(loss)
        again, other = started(config)
        again.load_state_dict(schedule.state_dict())
        other.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]  # which the optimiser's state has
        again.step(STANDING[epochs])
        assert other.param_groups[0]["lr"] == expected[epochs + 1]


def test_a_state_from_before_there_were_other_schedules_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=CONFIG.lr)
    older = plateau(optimizer)
    for loss in STANDING[:4]:
        older.step(loss)
    schedule, held = started(CONFIG)
    schedule.load_state_dict(older.state_dict())
    held.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
    schedule.step(0.95)
    schedule.step(0.95)
    assert held.param_groups[0]["lr"] == rates(CONFIG)[6]
    assert schedule.state_dict()["epochs"] == 6
    with pytest.raises(KeyError):
        schedule.load_state_dict({})
