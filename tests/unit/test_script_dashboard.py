"""The notes and figures of a study of the user's own script; what else is added to it stands in test_additions."""

import optuna
import pytest
from own_script import found_of
from stored_script import METRIC, script_trial, searched_script, study_of_script

from face3d_tune.analysis.findings import find
from face3d_tune.dashboard.figures import figures
from face3d_tune.dashboard.notes import study_note, trial_note


def searched(direction="maximize"):
    return study_of_script(*searched_script(direction), direction=direction)


def note_of(study, number):
    found = find(study)
    return trial_note(found, found.trials[number])


@pytest.mark.parametrize(
    ("direction", "goal", "rows"),
    [
        (
            "maximize",
            "Val/CosineSimilarity, the higher the better. A trial has the numbers of the epoch with the highest Val/",
            ("| 0.6000 |  | 0.8000 |", "| 0.5500 | -0.0500, worse | 0.8000 |", "| 0.7000 | +0.1000, better | 0.8000 |"),
        ),
        (
            "minimize",
            r"val\_loss, the lower the better. A trial has the numbers of the epoch with the lowest val\_loss",
            ("| 0.4000 |  | 0.8000 |", "| 0.4500 | +0.0500, worse | 0.8000 |", "| 0.3000 | -0.1000, better | 0.8000 |"),
        ),
    ],
)
def test_the_note_says_what_is_better_and_by_how_much_the_best_is(direction, goal, rows):
    note = study_note(find(searched(direction)))
    assert f"**Goal** {goal}" in note
    for name, row in zip(("defaults | 0", "recommended | 1", "**best trial** | 12"), rows, strict=True):
        assert f"| {name} {row}" in note
    assert r"**Script** train\_3d\_triplet.py (train\_3d\_triplet.py a1b2c3d40000, models/net.py ffee00110000)" in note
    assert "15 of 20 finished trials (13 complete, 2 pruned, 2 fail) of at most 5 epochs; tpe sampler" in note
    assert "**Failed** 1 out of memory, 1 by an error." in note
    assert "without a model" not in note
    assert "**Not yet confirmed:** the best value is flattered by having been chosen." in note
    assert "    face3d-tune confirm --study-name triplet" in note


def test_the_note_begins_with_what_the_script_reached_when_it_trained_again():
    confirmation = found_of()
    confirmation["candidates"][0]["trial"] = 12
    study = study_of_script(*searched_script(), script_confirmation=confirmation)
    first, second = study_note(find(study)).split("\n\n")[1:3]
    assert first.startswith("**trial 12 is better than defaults: val\\_cos +0.0800 (+0.0500 to +0.1100) over 5 seeds.")
    assert second.splitlines()[2:] == [
        "| trial 12 | 0.7000 | 0.6800 ± 0.0100 | 0.6100 ± 0.0141 |",
        "| defaults = quickstart | 0.6000 | 0.6000 ± 0.0200 | 0.6100 ± 0.0141 |",
    ]
    confirmation["candidates"][0]["trial"] = 11
    study.set_user_attr("script_confirmation", confirmation)
    assert "**Out of date:** another trial is the best now." in study_note(find(study))


def test_the_note_of_a_study_without_a_completed_trial():
    assert study_note(find(study_of_script())).endswith("No trial has completed yet.")


def test_the_note_of_a_trial_has_its_numbers_and_its_command():
    note = note_of(searched("minimize"), 12)
    assert note.startswith("**The best trial**")
    assert r"val\_loss 0.3000 (-0.1000, better than the script's defaults), epoch 3 of 4; Train/Loss 0.8000." in note
    assert "python train_3d_triplet.py \\\n  --lr 0.003 \\\n  --margin 0.5" in note
    assert note_of(searched(), 0).startswith("**The script's defaults**")
    assert note_of(searched(), 1).startswith("**The guide's preset recommended**")
    assert note_of(searched(), 11).startswith("**Runner-up 1**")


def test_the_note_of_a_failed_trial_says_why():
    note = note_of(searched(), 15)
    assert note.startswith("**Failed: out of memory**\n\ntorch.OutOfMemoryError: CUDA out of memory")


def test_a_preset_in_training_has_its_state_for_a_value_and_one_that_waits_no_command_yet():
    waiting = script_trial("WAITING")
    waiting.set_user_attr("preset", "recommended")
    study = study_of_script(script_trial("COMPLETE", [0.6]), script_trial("RUNNING", preset="defaults"), waiting)
    found = find(study)
    assert "| defaults | 1 | running | | |" in study_note(found)
    running, queued = (trial_note(found, found.trials[number]) for number in (1, 2))
    assert running.startswith("**The script's defaults**\n\n```")
    assert queued == "**The guide's preset recommended**"


def test_the_note_counts_what_other_programs_added_and_says_with_what_the_study_began():
    before = {"study": "before", "trial": 3, "value": 0.61, "config": {}, "objective": METRIC["maximize"]}
    study = study_of_script(*searched_script(), optuna.trial.create_trial(value=0.9), **{"from": before})
    note = study_note(find(study))
    assert "**Added by hand** 1 more, which face3d-tune did not train and does not count." in note
    assert "**Begun** with the best of the study before, trial 3, Val/CosineSimilarity 0.6100." in note
    assert "| **best trial** | 12 | 0.7000 |" in note


@pytest.mark.parametrize("direction", METRIC)
def test_the_figures_are_of_the_metric_and_the_best_so_far_goes_its_way(direction):
    drawn = figures(find(searched(direction)))
    assert list(drawn) == ["learning-curves", "best-value", "importance"]
    curves = {trace["name"]: trace["y"] for trace in drawn["learning-curves"]["data"]}
    best = [0.5, 0.6, 0.7, 0.65]
    assert curves["best, trial 12"] == pytest.approx(best if direction == "maximize" else [1 - each for each in best])
    assert set(curves) == {"best, trial 12", "defaults", "recommended", "pruned (2)"}
    assert drawn["learning-curves"]["layout"]["yaxis"]["title"]["text"] == METRIC[direction]
    steps = drawn["best-value"]["data"][0]["y"]
    assert steps == sorted(steps, reverse=direction == "minimize")
    assert steps[0] != steps[-1]


def test_an_epoch_without_a_finite_value_is_a_gap():
    study = study_of_script(script_trial("COMPLETE", [0.5, float("inf")], direction="minimize"), direction="minimize")
    (curve,) = figures(find(study))["learning-curves"]["data"]
    assert curve["y"] == [0.5, None]
