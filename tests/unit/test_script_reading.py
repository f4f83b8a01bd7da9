"""What the terminal says of a study of the user's own script: `status`, `watch`, the table of `run`, refusals."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from command_line import call
from stored_script import METRIC, script_attrs, script_trial, searched_script, study_of_script
from stored_study import our_study

from face3d_tune.cli import script_results
from face3d_tune.cli.console import Console
from face3d_tune.cli.live import InTraining, Picture
from face3d_tune.cli.progress import Tally
from face3d_tune.cli.result_tables import before_and_after
from face3d_tune.cli.watch import _in_training
from face3d_tune.study.objective import Objective

HERE = {"FACE3D_TUNE_STORAGE": "sqlite:///studies.db"}


def searched(direction="maximize", **more):
    return study_of_script(*searched_script(direction), direction=direction, **more)


def table(study, width):
    console = Console(file=io.StringIO(), width=width)
    script_results.before_and_after(console, study)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("direction", "line"),
    [
        ("maximize", "best Val/CosineSimilarity 0.7000, trial 12 (sampled); higher is better"),
        ("minimize", "best val_loss 0.3000, trial 12 (sampled); lower is better"),
    ],
)
def test_status_says_the_script_the_best_and_which_direction_is_better(sqlite, tmp_path, direction, line):
    searched(direction, storage=sqlite)
    answer = call("status", cwd=tmp_path, **HERE)
    assert answer.code == 0, answer.err
    assert [each.strip() for each in answer.out.splitlines()][1:] == [
        "study    triplet: 13 complete, 2 pruned, 2 fail; 15 of 20 trials finished",
        "failed: 1 out of memory, 1 by an error",
        "searches the script train_3d_triplet.py",
        line,
    ]
    (held,) = json.loads(call("status", "--json", cwd=tmp_path, **HERE).out)["studies"]
    assert (held["objective"], held["directions"], held["script"]["path"]) == (
        METRIC[direction],
        [direction],
        "train_3d_triplet.py",
    )
    assert held["best_numbers"] == {METRIC[direction]: held["best_value"], "Train/Loss": 0.8}
    assert (held["data"], held["best_cosine"], held["no_model_cosine"]) == (None, None, None)


def test_watch_ends_with_the_best_of_a_study_where_lower_is_better(sqlite, tmp_path, monkeypatch):
    searched("minimize", storage=sqlite, effort={"trials": 15})
    monkeypatch.setattr(
        sys.modules["face3d_tune.cli.watch"], "time", SimpleNamespace(sleep=lambda _: pytest.fail("it waits"))
    )
    answer = call("watch", cwd=tmp_path, **HERE)
    assert (answer.code, answer.err) == (0, "")
    said = "15 of 15 trials finished, 2 of them pruned; failed: 1 out of memory, 1 by an error"
    assert answer.out.strip() == f"study 'triplet': {said}; best val_loss 0.3000, trial 12, -0.1000 on defaults"


def test_a_trial_elsewhere_has_the_epochs_of_its_study_whatever_its_flags_are():
    flags = {"epochs": None, "lr": "1e-3, 1e-4", "num_epochs": 5}
    trial = script_trial("RUNNING", [0.4, 0.5], config=flags)
    attrs = script_attrs()
    shown = _in_training(trial, attrs | {"settings": attrs["settings"] | {"epochs": None}})
    assert (shown.epoch, shown.epochs, shown.value, shown.lr, shown.fold) == (2, 0, 0.5, None, 1)
    del flags["epochs"]
    assert _in_training(trial, attrs).epochs == 5


@pytest.mark.parametrize("width", [80, 120])
def test_a_live_line_without_a_number_of_epochs_counts_them_and_has_the_signs_of_its_direction(width):
    tally = Tally("triplet", 20, objective=Objective("val_loss", "minimize", script=True))
    for trial in searched("minimize").trials:
        tally.add(trial)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    console.print(Picture(tally.standing(1, 0.0), [InTraining(20, "sampled", 0, 7, 0.35), InTraining(21, "b", 5, 6)]))
    line, _, best = console.file.getvalue().splitlines()
    assert "#20 sampled        epoch 7  val_loss 0.3500" in line
    assert "\x1b[32m  -0.0500 on defaults" in line  # green
    assert "best 0.3000 #12" in best


@pytest.mark.parametrize("direction", METRIC)
def test_run_ends_with_the_flags_and_numbers_of_presets_and_best(direction):
    values = ("0.6000", "0.5500", "0.7000") if direction == "maximize" else ("0.4000", "0.4500", "0.3000")
    first, _, header, defaults, preset, best, _, last = table(searched(direction), 100)
    metric, far = METRIC[direction], ("higher", "highest") if direction == "maximize" else ("lower", "lowest")
    assert first == f"{metric}, the {far[0]} the better:"
    assert header.split() == ["trial", "lr", "margin", "optimizer", f"{metric}*", "Train/Loss*"]
    assert defaults.split() == ["defaults", "0", "0.001", "0.2", "adam", values[0], "0.8000"]
    assert preset.split() == ["recommended", "1", "5e-05", "0.2", "adam", values[1], "0.8000"]
    assert best.split() == ["best", "trial", "12", "0.003", "0.5", "sgd", values[2], "0.8000"]
    assert last == f"* at the epoch with the {far[1]} {metric}"


def test_a_narrow_terminal_loses_further_numbers_first_and_then_the_last_flags():
    lines = table(searched("minimize"), 50)
    assert lines[2].split() == ["trial", "lr", "margin", "optimizer", "val_loss*"]
    assert lines[-1] == "  in a wider terminal: Train/Loss"
    lines = table(searched("minimize"), 40)
    assert lines[2].split() == ["trial", "lr", "margin", "val_loss*"]
    assert " ".join(" ".join(lines[-2:]).split()).endswith("in a wider terminal: optimizer, Train/Loss")


def test_the_table_begins_with_the_best_of_the_study_before_and_has_trials_that_a_person_asked_for():
    before = {"study": "before", "trial": 3, "value": 0.61, "config": {"lr": 0.004}, "objective": METRIC["maximize"]}
    trials = [script_trial("COMPLETE", [0.5], lr=0.02, tried=True), script_trial("COMPLETE", [0.6], lr=0.03)]
    lines = table(study_of_script(*trials, **{"from": before}), 100)
    assert [line.split() for line in lines[3:6]] == [
        ["before", "0.004"],
        ["tried", "by", "hand", "0", "0.02", "0.2", "adam", "0.5000", "1.0000"],
        ["best", "trial", "1", "0.03", "0.2", "adam", "0.6000", "1.0000"],
    ]


def test_the_narrowest_terminal_still_gets_the_first_flag_and_the_metric():
    lines = table(searched("minimize"), 20)
    assert "in a wider terminal: margin, optimizer, Train/Loss" in " ".join(" ".join(lines).split())


def test_the_table_says_why_a_preset_has_no_value(capsys):
    trials = [
        script_trial("PRUNED", [0.3], preset="defaults"),
        script_trial("FAIL", preset="recommended"),
        script_trial("WAITING", preset="aggressive"),
    ]
    study = study_of_script(*trials, preset_aliases={"mine": "defaults"})
    before_and_after(study)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:6]]
    assert [(row[0], row[-1]) for row in rows] == [
        ("defaults", "(pruned)"),
        ("recommended", "error"),
        ("mine", "(pruned)"),
    ]
    assert rows[2][1:3] == ["=", "0"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train"], "`face3d-tune export` prints the command that trains a trial with your script"),
        (
            ["export", "--inference", "out"],
            "name a checkpoint of the script: face3d-tune export --inference DIR CHECKPOINT",
        ),
    ],
)
def test_what_needs_face_data_says_in_one_line_what_to_do_instead(sqlite, tmp_path, words, hint):
    searched(storage=sqlite)
    answer = call(*words, cwd=tmp_path, **HERE)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "error: study 'triplet' searches a script of your own, train_3d_triplet.py",
        f"hint: {hint}",
    ]


def test_the_built_in_trainer_cannot_begin_where_a_script_ended(sqlite, tmp_path, data_folder):
    searched(storage=sqlite)
    words = ("run", "--from", "triplet", "--data-dir", data_folder, "--study-name", "next", "--trials", "1")
    answer = call(*words, cwd=tmp_path, **HERE)
    assert answer.code == 2
    assert "study 'triplet' searches a script of your own, whose flags are not the parameters" in answer.err


def test_a_study_of_a_script_stands_beside_one_of_the_built_in_trainer(sqlite, tmp_path):
    searched(storage=sqlite)
    our_study(sqlite, "faces")
    answer = call("status", cwd=tmp_path, **HERE)
    assert [line.split()[1] for line in answer.out.splitlines() if line.startswith("study")] == ["faces:", "triplet:"]
