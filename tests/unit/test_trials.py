"""Reading a study: which trial is best, which one is meant, what would train it again."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from face3d_tune.config import TrialConfig
from face3d_tune.errors import StorageError, StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.study.causes import cause, count_causes, in_words
from face3d_tune.study.lookup import find_study, pick_trial, read_trial
from face3d_tune.study.status import summary
from face3d_tune.study.trials import (
    PresetRow,
    best_trial,
    budget_of,
    config_of,
    count_states,
    is_complete,
    is_imported,
    kept_cosine,
    preset_rows,
    repeatable_config,
    trained_here,
)

CONFIG = TrialConfig(d_model=16, dim_feedforward=64, epochs=40, use_mixed_precision=True)


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()


@pytest.fixture
def study(storage):
    return make_study(storage, "faces")


def make_study(storage, name, **attrs):
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    known = {"settings": {"seed": 42}, "data": {}, "data_fingerprint": "0011223344556677", "no_model_cosine": 0.3}
    for key, value in (known | attrs).items():
        study.set_user_attr(key, value)
    return study


def add(study, state=TrialState.COMPLETE, value=None, *, curve=None, **attrs):
    """Add a trial that ended so; returns it as the study holds it."""
    if state in (TrialState.COMPLETE, TrialState.PRUNED):
        attrs = {"config": CONFIG.to_dict(), "stop_reason": "finished"} | attrs
    elif state == TrialState.FAIL:
        attrs = {"stop_reason": "error"} | attrs
    attrs = {key: value for key, value in attrs.items() if key != "stop_reason" or value is not None}
    study.add_trial(create_trial(state=state, value=value, user_attrs=attrs, intermediate_values=curve or {}))
    return study.trials[-1]


# The best trial


def test_the_best_trial_is_the_completed_one_with_the_highest_cosine(study):
    add(study, value=0.5)
    add(study, value=0.7)
    add(study, value=0.6)
    assert best_trial(study).number == 1
    assert best_trial(study).value == 0.7


def test_a_pruned_or_failed_trial_is_never_the_best_whatever_its_curve_reached(study):
    add(study, value=0.5)
    add(study, TrialState.PRUNED, 0.9, curve={1: 0.9})
    add(study, TrialState.FAIL, curve={1: 0.95})
    add(study, TrialState.RUNNING, curve={1: 0.99})
    add(study, TrialState.WAITING)
    assert best_trial(study).number == 0


def test_a_cosine_of_zero_is_better_than_one_below_zero(study):
    add(study, value=-0.1)
    add(study, value=0.0)
    assert best_trial(study).number == 1


def test_of_equal_trials_the_first_is_the_best(study):
    add(study, value=0.5)
    add(study, value=0.5)
    assert best_trial(study).number == 0


def test_a_study_in_which_nothing_has_completed_has_no_best_trial(study):
    assert best_trial(study) is None
    add(study, TrialState.PRUNED, 0.9, curve={1: 0.9})
    assert best_trial(study) is None


# Which trial is meant


def test_without_a_number_the_best_trial_is_meant_and_with_one_that_trial(study):
    add(study, value=0.5)
    add(study, value=0.7)
    add(study, TrialState.PRUNED, 0.1)
    assert pick_trial(study, None).number == 1
    assert [pick_trial(study, number).number for number in (0, 1, 2)] == [0, 1, 2]


@pytest.mark.parametrize("number", [3, 99, -1])
def test_a_number_that_no_trial_has_is_answered_with_those_there_are(study, number):
    for value in (0.5, 0.6, 0.7):
        add(study, value=value)
    with pytest.raises(StudyError) as caught:
        pick_trial(study, number)
    assert caught.value.message == f"study 'faces' has no trial {number}"
    assert caught.value.hint == "it holds 0 to 2"


def test_an_empty_study_has_neither_a_best_trial_nor_any_number(study):
    with pytest.raises(StudyError) as caught:
        pick_trial(study, None)
    assert caught.value.message == "study 'faces' has no completed trial yet"
    assert caught.value.hint == "let `face3d-tune run` complete one first"
    with pytest.raises(StudyError) as caught:
        pick_trial(study, 0)
    assert (caught.value.message, caught.value.hint) == ("study 'faces' has no trial 0", "it holds none yet")


def test_a_trial_that_never_started_cannot_be_picked(study):
    add(study, value=0.5)
    add(study, TrialState.WAITING)
    add(study, TrialState.FAIL, error="no memory")
    for number, why in ((1, "has not started"), (2, "failed before it began: no memory")):
        with pytest.raises(StudyError, match=f"trial {number} {why}, so there is nothing to train") as caught:
            pick_trial(study, number)
        assert caught.value.hint == "see `face3d-tune status`"


# Which study is meant


def test_the_only_study_need_not_be_named(storage, study):
    assert find_study(storage, None).study_name == "faces"


def test_of_several_studies_one_must_be_named(storage, study):
    make_study(storage, "default")
    assert find_study(storage, "faces").study_name == "faces"
    with pytest.raises(StudyError) as caught:
        find_study(storage, None)
    assert caught.value.message == "which study? this storage holds default, faces"
    assert caught.value.hint == "name one with --study-name"


def test_a_storage_without_studies_says_how_to_make_one(storage):
    with pytest.raises(StudyError) as caught:
        find_study(storage, None)
    assert "this storage holds no study yet; make one with `face3d-tune run`" in caught.value.message
    with pytest.raises(StudyError) as caught:
        find_study(storage, "faces")
    assert caught.value.hint == "this storage holds no study yet; make one with `face3d-tune run`"


@pytest.mark.parametrize(("name", "question"), [("face", "; did you mean 'faces'?"), ("zzz", "")])
def test_a_mistyped_study_is_answered_with_the_nearest_and_all(storage, study, name, question):
    with pytest.raises(StudyError) as caught:
        find_study(storage, name)
    assert caught.value.message == f"no study named {name!r}{question}"
    assert caught.value.hint == "this storage holds faces"


def test_a_study_of_something_else_is_refused(storage):
    optuna.create_study(storage=storage, study_name="theirs")
    for name in (None, "theirs"):
        with pytest.raises(StudyError) as caught:
            find_study(storage, name)
        assert caught.value.message == "study 'theirs' was not made by face3d-tune"


def test_a_trial_is_read_from_a_storage_with_what_its_study_knows(sqlite_url):
    place = Storage.parse(sqlite_url)
    with pytest.raises(StorageError, match="file does not exist"):
        read_trial(place, None, None)
    with place.opened(create=True) as storage:
        study = make_study(storage, "faces", data={"source": "here"})
        add(study, value=0.5)
        add(study, value=0.7)
    stored = read_trial(place, "faces", None)
    assert (stored.study, stored.trial.number, stored.trial.value) == ("faces", 1, 0.7)
    assert stored.study_attrs["data"] == {"source": "here"}
    assert read_trial(place, None, 0).trial.value == 0.5


# What a trial trained with


def test_a_trials_config_is_the_one_it_set_out_with(study):
    assert config_of(add(study, value=0.5)) == CONFIG


@pytest.mark.parametrize(
    ("attrs", "epochs", "amp"),
    [
        ({"stop_reason": "finished", "epochs_run": 40}, 40, True),
        ({"stop_reason": "early_stopping", "epochs_run": 12}, 40, True),  # its own patience will stop it there again
        ({"stop_reason": "pruned", "epochs_run": 12}, 40, True),
        ({"stop_reason": "target", "epochs_run": 12}, 12, True),
        ({"stop_reason": "finished", "epochs_run": 40, "retried_without_amp": True}, 40, False),
        ({"stop_reason": "target", "epochs_run": 7, "retried_without_amp": True}, 7, False),
        ({"stop_reason": "finished", "epochs_run": 40, "retried_without_amp": False}, 40, True),
        ({}, 40, True),
    ],
)
def test_to_repeat_a_trial_is_to_stop_where_the_target_did_and_to_leave_out_the_amp_that_failed(
    study, attrs, epochs, amp
):
    config = repeatable_config(add(study, value=0.5, **attrs))
    assert (config.epochs, config.use_mixed_precision) == (epochs, amp)
    assert {**config.to_dict(), "epochs": 40, "use_mixed_precision": True} == CONFIG.to_dict()


# What a trial reached


@pytest.mark.parametrize(
    ("state", "value"), [(TrialState.COMPLETE, 0.1), (TrialState.PRUNED, 0.4), (TrialState.FAIL, None)]
)
def test_a_trial_kept_the_cosine_of_its_best_epoch_not_of_its_last_or_highest(study, state, value):
    trial = add(study, state, value, curve={1: 0.1, 2: 0.6, 3: 0.4}, best_epoch=1, val_cosine=0.1)
    assert kept_cosine(trial) == 0.1


def test_a_trial_that_validated_no_epoch_kept_nothing(study):
    assert kept_cosine(add(study, TrialState.FAIL, stop_reason="non_finite")) is None
    assert kept_cosine(add(study, TrialState.WAITING)) is None


# Tables


def test_presets_stand_in_the_order_they_were_queued_each_with_its_latest_trial(storage):
    study = make_study(storage, "faces", preset_aliases={"quickstart": "recommended"})
    failed = add(study, TrialState.FAIL, preset="baseline", put_back=True)
    recommended = add(study, value=0.5, preset="recommended")
    add(study, value=0.6, preset=None)
    retry = add(study, value=0.4, preset="baseline", retry_of=failed.number)
    rows = preset_rows(study)
    assert [(row.name, row.trial.number, row.same_as) for row in rows] == [
        ("baseline", retry.number, None),
        ("recommended", recommended.number, None),
        ("quickstart", recommended.number, "recommended"),
    ]


def test_an_alias_whose_first_has_no_trial_yet_has_none_either(storage):
    study = make_study(storage, "faces", preset_aliases={"quickstart": "recommended"})
    assert preset_rows(study) == [PresetRow("quickstart", None, "recommended")]


def test_a_study_without_presets_has_no_rows(study):
    add(study, value=0.6, preset=None)
    assert preset_rows(study) == []


def test_a_summary_counts_every_state_and_names_the_best(storage):
    study = make_study(storage, "faces", no_model_cosine=0.3, data={"source": "here"})
    assert summary(study) == {
        "study": "faces",
        "own": True,
        "directions": ["maximize"],
        "states": {"complete": 0, "pruned": 0, "fail": 0, "running": 0, "waiting": 0},
        "finished": 0,
        "budget": None,
        "causes": dict.fromkeys(("diverged", "out_of_memory", "timeout", "error", "outside", "queued_again"), 0),
        "from": None,
        "stop": None,
        "grown": [],
        "best_value": None,
        "best_cosine": None,
        "best_trial": None,
        "best_preset": None,
        "best_origin": None,
        "best_recognition": None,
        "imported": 0,
        "by_hand": 0,
        "excluded": [],
        "folds": 1,
        "objective": "cosine",
        "no_model_cosine": 0.3,
        "ridge_cosine": None,
        "kernel_ridge_cosine": None,
        "no_model_recognition": None,
        "ridge_recognition": None,
        "kernel_ridge_recognition": None,
        "confirmation": None,
        "rotation": None,
        "script_confirmation": None,
        "data": {"source": "here"},
        "script": None,
        "best_numbers": None,
    }
    for value, preset in ((0.5, "baseline"), (0.7, "aggressive"), (0.6, None)):
        add(study, value=value, preset=preset)
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING):
        add(study, state, 0.1 if state == TrialState.PRUNED else None)
    assert count_states(study) == {"complete": 3, "pruned": 1, "fail": 2, "running": 1, "waiting": 1}
    held = summary(study)
    assert (held["best_value"], held["best_trial"], held["best_preset"]) == (0.7, 1, "aggressive")
    assert (held["best_origin"], held["imported"]) == ("aggressive", 0)
    add(study, value=0.8, origin="imported")
    assert (summary(study)["best_origin"], summary(study)["imported"]) == ("imported", 1)
    add(study, value=0.9, preset=None)
    assert summary(study)["best_origin"] == "sampled"


def test_failures_are_counted_by_cause_and_those_that_were_queued_again_apart(study):
    for attrs in (
        {"cause": "diverged", "stop_reason": "non_finite"},
        {"stop_reason": "non_finite"},  # as an earlier version stored it
        {"cause": "out_of_memory", "stop_reason": "error"},
        {"cause": "error", "stop_reason": "error"},
        {"stop_reason": "error"},  # the same
        {"cause": "timeout", "stop_reason": "error"},
        {"cause": "outside", "stop_reason": "error"},  # queued with what cannot be trained
        {"stop_reason": None, "ordinal": 7},  # ended by another program
        {"stop_reason": None},  # and never this program's
        {"cause": "diverged", "put_back": True},  # its worker died while it told this
    ):
        add(study, TrialState.FAIL, **attrs)
    add(study, value=0.5, cause="diverged")  # which a completed trial cannot be
    causes = count_causes(study.trials)
    expected = {"diverged": 2, "out_of_memory": 1, "timeout": 1, "error": 2, "outside": 2, "queued_again": 1}
    assert causes == expected
    assert in_words(causes) == "2 diverged, 1 out of memory, 1 timed out, 2 by an error, 2 from outside, 1 queued again"
    assert in_words(count_causes([])) == ""
    assert [cause(trial) for trial in study.trials[-2:]] == [None, None]


def test_a_trial_is_complete_if_its_value_may_be_compared(study):
    add(study, value=0.5)
    add(study, value=0.6, origin="imported", confirmed=False)
    add(study, value=0.7, origin="imported", confirmed=True)
    add(study, TrialState.PRUNED)
    add(study, TrialState.FAIL)
    assert [trial.number for trial in study.trials if is_complete(trial)] == [0, 2]
    assert [trial.number for trial in study.trials if is_imported(trial)] == [1, 2]
    assert [trial.number for trial in study.trials if trained_here(trial)] == [0, 3]


def test_the_budget_of_a_study_is_that_of_its_last_run_and_unknown_for_an_imported_one():
    assert budget_of({"effort": {"trials": 50, "target": None}}) == 50
    assert budget_of({}) is None
