"""What a trial of several folds is in all, by hand; and that its folds are told apart."""

import pytest

from face3d_tune.seeds import derive
from face3d_tune.study.folds import in_all, key_of, mean_by_band, seed_of


def facts(cosine, epochs, best, **more):
    losses = {"val_loss": 1 - cosine, "val_loss_equal": (1 - cosine) / 2, "train_loss": 0.25, "gap": 0.75 - cosine}
    bands = {"0-15": cosine, "15-45": None, "45-90": None} | more.pop("bands", {})
    held = {"stop_reason": "finished", "epochs_run": epochs, "lr_decays": 1, "lr_final": 1e-4 * epochs, "amp": "off"}
    held |= {"retried_without_amp": False, "best_epoch": best, "val_cosine": cosine, "cosine_by_yaw": bands}
    return held | losses | more


def test_the_first_fold_has_the_trials_own_seed_and_key_and_every_other_its_own():
    assert (seed_of(7, 1), key_of("trial-4", 1)) == (7, "trial-4")
    assert seed_of(7, 2) == derive(7, "fold", 2) != seed_of(7, 3)
    assert key_of("trial-4", 2) == "trial-4-fold-2"


def test_a_trial_is_the_mean_of_its_folds_and_the_sum_of_their_epochs():
    attrs = in_all([facts(0.5, 10, 7), facts(0.25, 4, 4, bands={"15-45": 0.125}), facts(0.75, 6, 1, lr_decays=2)])
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
    attrs = in_all([facts(0.5, 10, 7), failed])
    assert (attrs["val_cosine"], attrs["epochs_run"], len(attrs["folds"])) == (0.5, 10, 1)
    assert in_all([failed]).keys() == {"epochs_run", "lr_decays", "lr_final", "amp", "retried_without_amp"}


def test_one_fold_is_itself():
    one = {"0-15": 0.1 + 0.2, "15-45": None}
    assert mean_by_band([one]) == one
