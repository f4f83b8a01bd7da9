"""User attributes: each stored name stands once, and reads as it is stored."""

import pytest

from face3d_tune.study.attrs import Attr, StudyAttr, TrialAttr

# What studies hold for ever: version 0.1.0 stored these, later versions `recognition`, `rank1_now`, `rotation` and
# what is said of kernel ridge, then what a study of a script of the user's own has: `script`, `numbers`,
# `script_version`, `script_confirmation`, `tried`, `stop`, `excluded`, `timeouts`, `like`. (With a trial, `excluded` is
# a mark in memory.)
STORED = {
    StudyAttr: "id data data_fingerprint settings script versions effort stop excluded preset_aliases from "
    "no_model_cosine no_model_by_yaw no_model_recognition ridge_cosine ridge_by_yaw ridge_penalty ridge_recognition "
    "kernel_ridge_cosine kernel_ridge_by_yaw kernel_ridge_choice kernel_ridge_recognition confirmation "
    "rotation script_confirmation",
    TrialAttr: "preset near tried like overrides origin run_id imported_from sha256 confirmed retry_of lineage deaths "
    "timeouts put_back excluded ordinal seed sampler_seed config worker device engine script_version lr_now rank1_now "
    "stop_reason cause error seconds resumed_epochs resume_note raced_out_after_fold epochs_run lr_decays lr_final amp "
    "retried_without_amp best_epoch val_cosine val_loss val_loss_equal train_loss gap cosine_by_yaw recognition "
    "numbers folds",
}


@pytest.mark.parametrize("kind", STORED)
def test_stored_names_do_not_change(kind):
    keys = [attr.key for attr in vars(kind).values() if isinstance(attr, Attr)]
    assert keys == STORED[kind].split()


def test_an_attribute_is_read_where_it_is_stored():
    attr = Attr[int]("epochs_run")
    assert (attr.of({"epochs_run": 3}), attr.get({"epochs_run": 3}), attr.held_by({"epochs_run": 3})) == (3, 3, True)


def test_an_attribute_that_is_missing_has_a_default_or_raises():
    attr = Attr[int]("epochs_run")
    assert (attr.get({}), attr.get({}, 0), attr.held_by({})) == (None, 0, False)
    with pytest.raises(KeyError, match="epochs_run"):
        attr.of({})
