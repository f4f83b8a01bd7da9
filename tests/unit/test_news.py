"""What is told of a search: which trial is a new best, and what a message says."""

from dataclasses import replace

import pytest
from stored_script import script_trial, study_of_script
from stored_study import study_of, trial_of

from face3d_tune.search.news import BestSoFar, Ending, is_new_best, new_best
from face3d_tune.storage.database import Storage

PLACE = Storage.parse("sqlite:///studies.db")


def told(make, *trials, **options):
    """For each trial, whether it is told when it ends, with the trials before it."""
    studies = [make(*trials[:count], **options) for count in range(1, len(trials) + 1)]
    return [is_new_best(study, study.get_trials()[-1]) for study in studies]


def test_a_trial_above_all_presets_and_all_other_trials_is_told():
    values = [("baseline", 0.5), ("aggressive", 0.6), (None, 0.55), (None, 0.61), (None, 0.605), (None, 0.7)]
    trials = [trial_of("COMPLETE", value, preset=preset) for preset, value in values]
    assert told(study_of, *trials) == [False, False, False, True, False, True]


def test_of_a_loss_the_lower_is_better():
    values = [("defaults", 0.5), (None, 0.6), (None, 0.4), (None, 0.45), (None, 0.3)]
    trials = [script_trial("COMPLETE", [value], direction="minimize", preset=preset) for preset, value in values]
    assert told(study_of_script, *trials, direction="minimize") == [False, False, True, False, True]


@pytest.mark.parametrize(("state", "said"), [("WAITING", False), ("RUNNING", False), ("FAIL", True)])
def test_while_a_preset_has_not_ended_nothing_is_told(state, said):
    study = study_of(trial_of("COMPLETE", 0.5, preset="baseline"), trial_of(state, preset="aggressive"))
    study.add_trial(trial_of("COMPLETE", 0.6, **({"preset": None})))
    if state == "WAITING":  # a queued trial has the name of its preset as well
        study = study_of(trial_of("WAITING"), trial_of("COMPLETE", 0.6))
        study._storage.set_trial_user_attr(0, "preset", "aggressive")
    assert is_new_best(study, study.get_trials()[-1]) is said


def test_pruned_failed_and_equal_trials_are_not_told():
    trials = trial_of("COMPLETE", 0.5), trial_of("PRUNED", 0.9), trial_of("FAIL"), trial_of("COMPLETE", 0.5)
    assert told(study_of, *trials) == [True, False, False, False]


def test_the_message_on_a_new_best_has_its_value_the_preset_and_the_command():
    study = study_of(trial_of("COMPLETE", 0.5, preset="baseline"), trial_of("COMPLETE", 0.625))
    message = new_best(study, study.get_trials()[1], PLACE)
    assert message.title == "face3d-tune: new best trial of study 'faces'"
    assert message.lines == (
        "best cosine 0.6250, trial 1, +0.1250 on baseline",
        "trials finished: 2",
        "to see it: face3d-tune export --storage sqlite:///studies.db --study-name faces",
    )


ENDING = Ending("my study", PLACE, "host:7", "time", "its time is over", 0)


def test_the_message_on_the_end_says_what_ended_it():
    study = study_of(trial_of("COMPLETE", 0.5, preset="baseline"))
    message = replace(ENDING, standing=BestSoFar.of(study)).message()
    assert (message.title, message.kind) == ("face3d-tune: the search of study 'my study' ended", "success")
    assert message.lines == (
        "ended: its time is over",
        "worker: host:7",
        "best cosine 0.5000, trial 0, +0.0000 on baseline",
        "trials finished: 1",
        "to see it: face3d-tune export --storage sqlite:///studies.db --study-name 'my study'",
    )


def test_the_message_on_a_failure_has_the_error_also_without_a_storage_and_never_its_password():
    place = Storage.parse("postgresql://me:tops3cret@127.0.0.1/db")
    message = replace(ENDING, storage=place, result="failed", why="the storage is gone", code=1).message()
    assert (message.title, message.kind) == ("face3d-tune: the search of study 'my study' failed", "failure")
    assert message.lines[0] == "error: the storage is gone"
    assert message.lines[2:] == (
        "the storage does not answer",
        "to see it: face3d-tune export --study-name 'my study'",
    )


def test_a_study_without_a_completed_trial_says_so():
    assert BestSoFar.of(study_of(trial_of("FAIL"))).lines() == ("no trial has completed",)
