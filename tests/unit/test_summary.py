"""What is stored about a training, and about a trial of several folds: worked out by hand."""

from dataclasses import replace

import pytest

from face3d_tune.study.summary import mean_by_band, of_folds, of_training
from face3d_tune.training.base import EpochResult
from face3d_tune.training.recognition import Rates, Recognition


def epoch(number, lr, next_lr, train_loss, val_loss, is_best):
    """An epoch whose cosine is a hundredth of its number."""
    cosine = number / 100
    return EpochResult(
        number, lr, train_loss, val_loss, 2 * val_loss, cosine, {"0-15": cosine}, is_best, next_lr, None, 1
    )


def test_a_training_is_summarized_by_the_epoch_whose_weights_it_keeps():
    epochs = [
        epoch(1, 0.4, 0.4, train_loss=1.0, val_loss=1.5, is_best=True),
        epoch(2, 0.4, 0.2, train_loss=0.75, val_loss=1.25, is_best=True),
        epoch(3, 0.2, 0.1, train_loss=0.25, val_loss=1.375, is_best=False),
    ]
    assert of_training(epochs, "pruned", lr=0.4, precision="bf16", retried=True) == {
        "stop_reason": "pruned",
        "epochs_run": 3,
        "lr_decays": 2,
        "lr_final": 0.1,
        "amp": "bf16",
        "retried_without_amp": True,
        "best_epoch": 2,
        "val_cosine": 0.02,
        "val_loss": 1.25,
        "val_loss_equal": 2.5,
        "train_loss": 0.75,
        "gap": 0.5,
        "cosine_by_yaw": {"0-15": 0.02},
    }


def recognition(identity, tar=0.5, judged=3):
    rates = Rates(0.75, 0.5, tar, 0.25, identity, 0.625)
    return Recognition(judged, 12, 3, 18, rates, {"0-15": rates}, rates)


def test_recognition_is_that_of_the_epoch_whose_weights_are_kept():
    losses = [(1, 1.5, True), (2, 1.25, True), (3, 1.375, False)]
    epochs = [
        replace(epoch(number, 0.4, 0.4, 1.0, loss, best), recognition=recognition(-number / 10))
        for number, loss, best in losses
    ]
    stored = of_training(epochs, "finished", lr=0.4, precision="off", retried=False)["recognition"]
    rates = {"rank1_judged": 0.75, "rank1_enrolled": 0.5, "tar_judged": 0.5, "tar_enrolled": 0.25}
    rates |= {"identity": -0.2, "cosine": 0.625}
    assert stored == {
        **{"judged": 3, "enrolled": 12, "people": 3, "views": 18},
        **{"all": rates, "by_yaw": {"0-15": rates}, "pooled": rates},
    }


def test_recognition_of_a_trial_is_the_mean_over_its_folds():
    records = [recognition(-0.25), recognition(-0.5, tar=None, judged=4), recognition(-0.75, tar=0.25)]
    stored = [record.to_dict() for record in records]
    found = of_folds([facts(0.5, 1, 1, recognition=each) for each in stored])
    assert Recognition.of(found["recognition"]) == recognition(-0.5, tar=0.375)
    assert [fold["recognition"] for fold in found["folds"]] == stored
    assert "recognition" not in of_folds([facts(0.5, 1, 1), facts(0.5, 1, 1, recognition=stored[0])])


def test_a_training_without_an_epoch_has_its_configured_learning_rate_and_no_loss():
    assert of_training([], "error", lr=0.4, precision="off", retried=False) == {
        "stop_reason": "error",
        "epochs_run": 0,
        "lr_decays": 0,
        "lr_final": 0.4,
        "amp": "off",
        "retried_without_amp": False,
    }


def facts(cosine, epochs, best, **more):
    losses = {"val_loss": 1 - cosine, "val_loss_equal": (1 - cosine) / 2, "train_loss": 0.25, "gap": 0.75 - cosine}
    bands = {"0-15": cosine, "15-45": None, "45-90": None} | more.pop("bands", {})
    held = {"stop_reason": "finished", "epochs_run": epochs, "lr_decays": 1, "lr_final": 1e-4 * epochs, "amp": "off"}
    held |= {"retried_without_amp": False, "best_epoch": best, "val_cosine": cosine, "cosine_by_yaw": bands}
    return held | losses | more


def test_a_trial_is_the_mean_of_its_folds_and_the_sum_of_their_epochs():
    attrs = of_folds([facts(0.5, 10, 7), facts(0.25, 4, 4, bands={"15-45": 0.125}), facts(0.75, 6, 1, lr_decays=2)])
    assert attrs.pop("folds") == [
        {"fold": 1, "value": 0.5, **without_cosine(facts(0.5, 10, 7))},
        {"fold": 2, "value": 0.25, **without_cosine(facts(0.25, 4, 4, bands={"15-45": 0.125}))},
        {"fold": 3, "value": 0.75, **without_cosine(facts(0.75, 6, 1, lr_decays=2))},
    ]
    assert attrs == {
        "epochs_run": 20,
        "lr_decays": 4,
        "lr_final": pytest.approx(6e-4),
        "amp": "off",
        "retried_without_amp": False,
        "best_epoch": 7,
        "val_cosine": 0.5,
        "val_loss": 0.5,
        "val_loss_equal": 0.25,
        "train_loss": 0.25,
        "gap": 0.25,
        "cosine_by_yaw": {"0-15": 0.5, "15-45": 0.125, "45-90": None},
    }


def without_cosine(held):
    return {key: value for key, value in held.items() if key != "val_cosine"}


def test_a_fold_that_failed_in_its_first_epoch_counts_in_no_mean():
    failed = {"stop_reason": "error", "epochs_run": 0, "lr_decays": 0, "lr_final": 0.1, "amp": "off"}
    failed["retried_without_amp"] = True
    attrs = of_folds([facts(0.5, 10, 7), failed])
    assert (attrs["val_cosine"], attrs["epochs_run"], len(attrs["folds"])) == (0.5, 10, 1)
    assert of_folds([failed]).keys() == {"epochs_run", "lr_decays", "lr_final", "amp", "retried_without_amp"}


def test_one_fold_is_itself():
    one = {"0-15": 0.1 + 0.2, "15-45": None}
    assert mean_by_band([one]) == one
