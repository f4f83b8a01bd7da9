"""A trial of the user's own script is exported as the command that a person types, as JSON and as a preset."""

import errno
import json
import shlex
import subprocess
import sys
import tomllib

import pytest
from command_line import call
from own_script import own_study, write_script
from stored_script import searched_script, study_of_script

from face3d_tune.script.command import command, seed_for
from face3d_tune.script.first_epoch import checkpoints_in
from face3d_tune.script.flags import read_script
from face3d_tune.script.one_epoch import OneEpoch, difference
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.training import checkpoint_file

TYPED = "python train_3d_triplet.py --lr 0.003 --margin 0.5 --optimizer sgd --batch_size 16 --epochs 5 --seed 11"


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path / "theirs")


def export(url, script, *words):
    return call("export", "--storage", url, *words, cwd=script.parent)


def test_the_command_of_the_best_trial_says_every_value_and_no_folder(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = export(sqlite_url, script)
    assert (answer.code, answer.out) == (0, TYPED + "\n")
    assert "note: add folders for what it writes: --save_dir" in answer.err
    assert "warning" not in answer.err


def test_the_command_trains_what_the_trial_trained(sqlite_url, script):
    own_study(sqlite_url, script)
    words = shlex.split(export(sqlite_url, script).out)
    subprocess.run([sys.executable, *words[1:]], cwd=script.parent, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (script.parent / "checkpoints" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]


def test_another_trial_and_another_shell(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = export(sqlite_url, script, "--trial", 0, "--shell", "powershell")
    assert answer.out.startswith("python train_3d_triplet.py --lr 0.001 --margin 0.2 ")


def test_switches_the_studys_own_arguments_and_a_script_without_seed(sqlite_url, script):
    table = {"command": ["python", str(script)], "arguments": ["--save_dir", "out"], "seed_flag": None}
    read, stored = read_script(script), {"epochs_flag": "epochs", **table}
    words = command(stored, read, {"augment": False, "lr": 0.1}, seed=3, epochs=5).words
    assert words == ["python", str(script), "--save_dir", "out", "--no_augment", "--lr", "0.1", "--epochs", "5"]
    assert command(stored, read, {"augment": True}, seed=3, epochs=None).words[4:] == []


def test_a_seed_is_one_that_numpy_takes():
    assert (seed_for(7), seed_for(2**31 + 7), seed_for(2**62)) == (7, 7, 0)


def test_json_has_the_config_and_the_numbers(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = export(sqlite_url, script, "--format", "json")
    assert json.loads(answer.out) == {
        "study": "triplet",
        "trial": 12,
        "value": 0.7,
        "metric": "Val/CosineSimilarity",
        "direction": "maximize",
        "script": "train_3d_triplet.py",
        "seed": 11,
        "epochs": 5,
        "best_epoch": 3,
        "config": {"lr": 3e-3, "margin": 0.5, "optimizer": "sgd", "batch_size": 16},
        "numbers": {"Val/CosineSimilarity": 0.7, "Train/Loss": 0.8},
    }


def test_toml_is_a_preset_of_the_study_file_without_what_every_trial_has(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = export(sqlite_url, script, "--format", "toml")
    assert tomllib.loads(answer.out) == {
        "presets": {"triplet-trial-12": {"lr": 3e-3, "margin": 0.5, "optimizer": "sgd"}}
    }


def test_what_the_study_did_beside_the_flags_is_told(sqlite_url, script):
    table = {"start_in": "work", "environment": {"LEVEL": "3", "CUDA_CACHE": "x"}, "folder_flags": []}
    own_study(sqlite_url, script, seed_flag=None, **table)
    answer = export(sqlite_url, script)
    assert answer.code == 0
    assert [line for line in answer.err.splitlines() if line.startswith("note: ")] == [
        "note: the study started the script in work",
        "note: the study set LEVEL, CUDA_CACHE in the script's environment",
        "note: the study has no flag for a seed, so the script chose the trial's, and may choose another now",
    ]


def test_a_flag_that_another_copy_requires_is_told(sqlite_url, script, tmp_path):
    own_study(sqlite_url, script)
    required = ('"--no_augment"', '"--gallery", required=True)\n    parser.add_argument("--no_augment"')
    answer = export(sqlite_url, script, "--script", write_script(tmp_path / "other", required))
    assert answer.code == 0
    assert "note: the script does not start without --gallery: add it" in answer.err


def test_another_script_is_refused_by_the_name_of_what_it_cannot_say(sqlite_url, script, tmp_path):
    own_study(sqlite_url, script)
    other = write_script(tmp_path / "other", ("--margin", "--gap"), ("args.margin", "args.gap"))
    answer = export(sqlite_url, script, "--script", other)
    assert (answer.code, answer.out) == (2, "")
    assert f"error: {other} cannot express margin = 0.5: {other} has no --margin" in answer.err
    assert "this script also has --gap, --no_augment" in answer.err
    partial = export(sqlite_url, script, "--script", other, "--partial")
    assert partial.code == 0
    assert partial.out.startswith(f"python {other} --lr 0.003 --optimizer sgd ")


def test_a_file_that_changed_since_the_study_is_named(sqlite_url, script):
    own_study(sqlite_url, script)
    (script.parent / "helper.py").write_text("LEVEL = 0.8\n", encoding="utf-8")
    answer = export(sqlite_url, script)
    assert answer.code == 0
    assert "warning: helper.py has changed since the study" in answer.err
    assert "train_3d_triplet.py has changed" not in answer.err


def test_a_script_that_is_gone_is_named_and_given_again(sqlite_url, script, tmp_path):
    own_study(sqlite_url, script)
    moved = script.rename(tmp_path / "moved.py")
    answer = call("export", "--storage", sqlite_url, cwd=tmp_path)
    assert answer.code == 2
    assert f"error: the study's script is no longer at {script}" in answer.err
    assert "hint: --script PATH" in answer.err
    assert call("export", "--storage", sqlite_url, "--script", moved, cwd=tmp_path).code == 0


def test_a_study_of_a_script_has_no_data_folder(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = export(sqlite_url, script, "--data-dir", "faces")
    assert (answer.code, answer.out) == (2, "")
    assert "searches a script of your own" in answer.err


def test_check_runs_the_command_and_compares_its_first_epoch(sqlite_url, script):
    study = own_study(sqlite_url, script)
    answer = export(sqlite_url, script, "--check")
    assert (answer.code, answer.out) == (0, TYPED + "\n")
    (first,) = [line for line in answer.err.splitlines() if "after epoch 1" in line]
    assert first.endswith("trial 12 had Val/CosineSimilarity 0.5000")
    assert "the seed is the trial's" in answer.err
    assert {path.name for path in script.parent.iterdir()} == {"train_3d_triplet.py", "helper.py"}
    assert len(study.trials) == 17


@pytest.mark.parametrize(
    ("number", "seed_flag", "value", "said"),
    [
        (12, "seed", 0.5000001, ["check: that is the same number"]),
        (12, None, 0.52, []),  # the script chooses the seed, so some difference is no news
        (12, None, 0.9, ["warning: that is far: the trials of this study differ from each other by 0.07746 there"]),
        (15, "seed", 0.5, None),
    ],
)
def test_a_first_epoch_is_compared_with_what_the_trial_stored(number, seed_flag, value, said):
    study = study_of_script(*searched_script(), script={"seed_flag": seed_flag})
    trials = study.get_trials()
    stored = StoredTrial(study.study_name, study.user_attrs, trials[number], trials)
    first, *others = difference(OneEpoch({"Val/CosineSimilarity": value}, 1.0), stored)
    if said is None:
        assert (first, others) == ("check: nothing to compare: the trial stored no first epoch", [])
        return
    assert first.endswith("; trial 12 had Val/CosineSimilarity 0.5000")
    assert others == said


def test_check_shows_what_a_script_that_fails_printed(sqlite_url, script):
    own_study(sqlite_url, script)
    (script.parent / "helper.py").write_text("raise SystemExit('no data here')\n", encoding="utf-8")
    answer = export(sqlite_url, script, "--check")
    assert (answer.code, answer.out) == (1, "")
    assert "  | no data here" in answer.err
    assert "does not train with these flags" in answer.err


def test_a_file_that_cannot_be_read_hides_no_checkpoint_of_the_first_epoch(tmp_path, monkeypatch):
    checkpoint_file.save({"val_loss_history": [0.5]}, tmp_path / "best_model.pth")
    (tmp_path / "theirs.pth").write_bytes(b"PK")
    begins = checkpoint_file.begins_like_one

    def refusing(path):  # as for a file of another user; root may read every file
        if path.name == "theirs.pth":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return begins(path)

    monkeypatch.setattr(checkpoint_file, "begins_like_one", refusing)
    found, unreadable = checkpoints_in(tmp_path)
    assert [path.name for path in found] == ["best_model.pth"]
    assert unreadable == ["theirs.pth cannot be read: Permission denied"]
