"""Earlier runs of the user's own script become trials of a study that searches it, at their word."""

import argparse
import json
import pathlib
import tomllib

import optuna
import pytest
import torch
from command_line import call
from own_script import write_script

from face3d_tune.storage.database import Storage
from face3d_tune.study.history import History
from face3d_tune.study.objective import Objective

STUDY = """
[script]
path = "train_3d_triplet.py"
metric = "val_cos"
source = "checkpoint"
direction = "maximize"
epochs_flag = "epochs"
seed_flag = "seed"
folder_flags = ["save_dir"]

[budget]
trials = 5
epochs = 5

[fixed]
batch_size = 16

[space]
lr = { low = 1e-5, high = 1e-1, scale = "log" }
margin = { low = 0.1, high = 1.0 }
optimizer = ["adam", "sgd"]
"""
ARGS = {"lr": 1e-3, "margin": 0.5, "optimizer": "sgd", "batch_size": 16, "augment": True, "epochs": 5, "seed": 3}
CURVE = [0.3, 0.5, 0.4]


@pytest.fixture
def home(tmp_path):
    write_script(tmp_path)
    (tmp_path / "triplet.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path


def write_run(folder, *, name="best.pth", curve=tuple(CURVE), made=argparse.Namespace, keep=("val_cos",), **args):
    """A run's checkpoint with its args, and its histories by the names in `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    held = {"args": made(**{**ARGS, "save_dir": str(folder), **args}), "model_state_dict": {"w": torch.ones(2)}}
    torch.save(held | {name: list(curve) for name in keep}, folder / name)
    return folder / name


def take(home, url, *words, study="triplet.toml"):
    return call("import", *words, "--storage", url, "--study", study, cwd=home)


def read(url):
    with Storage.parse(url).opened() as storage:
        return optuna.load_study(study_name="triplet", storage=storage)


def reason(answer):
    (line,) = [line for line in answer.err.splitlines() + answer.out.splitlines() if line.startswith("refused: ")]
    return line


@pytest.mark.parametrize("made", [argparse.Namespace, dict])
def test_a_run_becomes_a_trial_with_its_flags_its_curves_and_its_best_epoch(home, sqlite_url, made):
    path = write_run(home / "runs" / "a", made=made)
    answer = take(home, sqlite_url, home / "runs")
    assert answer.code == 0, answer.err
    assert "they are taken at their word" in answer.out
    study = read(sqlite_url)
    (trial,) = study.trials
    assert (trial.state.name, trial.value) == ("COMPLETE", 0.5)
    assert trial.params == {"lr": 1e-3, "margin": 0.5, "optimizer": "sgd"}
    attrs = trial.user_attrs
    assert attrs["config"] == {"batch_size": 16, "lr": 1e-3, "margin": 0.5, "optimizer": "sgd", "epochs": 5}
    assert (attrs["origin"], attrs["imported_from"], attrs["seed"]) == ("imported", str(path), 3)
    assert (attrs["best_epoch"], attrs["epochs_run"], attrs["numbers"]) == (2, 3, {"val_cos": 0.5})
    assert trial.intermediate_values == {1: 0.3, 2: 0.5, 3: 0.4}
    assert History.of(trial).values(Objective.of_study(study.user_attrs)) == tuple(CURVE)
    assert trial.distributions == {
        name: row for name, row in trial.distributions.items() if name in ("lr", "margin", "optimizer")
    }
    exported = call("export", "--storage", sqlite_url, "--format", "toml", cwd=home)
    assert tomllib.loads(exported.out)["presets"]["triplet-trial-0"]["lr"] == 1e-3


def test_a_run_is_imported_once_and_a_dry_run_stores_nothing(home, sqlite_url):
    write_run(home / "runs" / "a")
    dry = take(home, sqlite_url, "runs", "--dry-run")
    assert (dry.code, "would be imported" in dry.out, "nothing was stored: --dry-run" in dry.out) == (0, True, True)
    assert not (home / "studies.db").exists()
    assert "trial 0" in take(home, sqlite_url, "runs").out
    assert "already trial 0" in take(home, sqlite_url, "runs").out
    assert len(read(sqlite_url).trials) == 1


def test_best_and_last_checkpoint_of_a_folder_are_one_run(home, sqlite_url):
    write_run(home / "runs" / "a", name="best.pth", curve=CURVE[:2])
    write_run(home / "runs" / "a", name="last.pth")
    answer = take(home, sqlite_url, "runs")
    assert answer.code == 0, answer.err
    (trial,) = read(sqlite_url).trials
    assert trial.user_attrs["epochs_run"] == 3


def test_a_copy_of_a_run_is_refused_as_the_same(home, sqlite_url):
    write_run(home / "runs" / "a")
    write_run(home / "runs" / "b", save_dir=str(home / "runs" / "a"))
    answer = take(home, sqlite_url, "runs", "--dry-run")
    assert answer.code == 1
    assert reason(answer).endswith("runs/b/best.pth: it is the same run as runs/a/best.pth")


def test_two_seeds_are_two_runs(home, sqlite_url):
    write_run(home / "runs" / "a")
    write_run(home / "runs" / "b", seed=4)
    assert take(home, sqlite_url, "runs").code == 0
    assert [trial.user_attrs["seed"] for trial in read(sqlite_url).trials] == [3, 4]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 64}, "batch_size = 64, the study's is 16"),
        ({"augment": False}, "augment = false, the study's is true"),
        ({"lr": 0.5}, "lr = 0.5 is outside the search space, 1e-05 … 0.1 (log)"),
        ({"optimizer": "lion"}, "optimizer = 'lion' is outside the search space, adam | sgd"),
        ({"keep": ("val_loss",)}, "it has no number val_cos"),
        ({"curve": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)}, "its best epoch is 6; this study trains 5 at most (--epochs)"),
        ({"curve": (float("nan"),)}, "its val_cos is not finite in any epoch"),
    ],
)
def test_a_run_of_other_conditions_is_refused_by_name(home, sqlite_url, changed, said):
    write_run(home / "runs" / "good", seed=9)
    write_run(home / "runs" / "other", **changed)
    answer = take(home, sqlite_url, "runs")
    assert answer.code == 1
    assert said in reason(answer)
    assert "1 of 2 runs refused" in answer.err
    assert len(read(sqlite_url).trials) == 1


def test_folders_workers_and_device_are_no_conditions_and_another_length_is_noted(home, sqlite_url):
    write_run(home / "runs" / "a", epochs=50, device="cuda:1", num_workers=8)
    answer = take(home, sqlite_url, "runs")
    assert answer.code == 0, answer.err
    assert "it was told to train 50 epochs, trials here 5" in answer.out


def test_a_path_among_the_flags_is_compared_as_a_path(home, sqlite_url):
    study = STUDY.replace("batch_size = 16", 'batch_size = 16\nsave_dir = "data/faces"').replace('["save_dir"]', "[]")
    (home / "triplet.toml").write_text(study, encoding="utf-8")
    write_run(home / "runs" / "a", save_dir=pathlib.PurePosixPath("data/faces/"))
    assert take(home, sqlite_url, "runs").code == 0


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        ("csv", "log.csv", "epoch,val_cos,train\n1,0.3,1\n2,0.5,0.8\n3,0.4,0.7\n"),
        ("json", "log.jsonl", "".join(f'{{"epoch": {n}, "val_cos": {v}}}\n' for n, v in enumerate(CURVE, 1))),
        ("printed", "train.log", "".join(f"Epoch {n}/3 val_cos: {v}\n" for n, v in enumerate(CURVE, 1))),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_the_numbers_lie_beside_the_checkpoint_or_where_a_folder_flag_of_the_run_says(
    home, sqlite_url, source, name, text, beside
):
    (home / "triplet.toml").write_text(STUDY.replace('"checkpoint"', f'"{source}"'), encoding="utf-8")
    logs = home / "runs" / "a" if beside else home / "runs" / "logs" / "a"
    write_run(home / "runs" / "a", save_dir="gone/a" if beside else "logs/a", keep=())
    logs.mkdir(parents=True, exist_ok=True)
    (logs / name).write_text(text, encoding="utf-8")
    answer = take(home, sqlite_url, "runs/a")
    assert answer.code == 0, answer.err + answer.out
    (trial,) = read(sqlite_url).trials
    assert (trial.value, trial.user_attrs["best_epoch"], trial.user_attrs["epochs_run"]) == (0.5, 2, 3)


def test_runs_that_share_a_folder_of_numbers_are_refused(home, sqlite_url):
    (home / "triplet.toml").write_text(STUDY.replace('"checkpoint"', '"json"'), encoding="utf-8")
    for name, seed in (("a.pth", 1), ("b.pth", 2)):
        write_run(home / "runs", name=name, seed=seed)
    (home / "runs" / "log.jsonl").write_text(json.dumps({"epoch": 1, "val_cos": 0.5}), encoding="utf-8")
    answer = take(home, sqlite_url, "runs")
    assert answer.code == 1
    assert answer.out.count("beside those of another run, and cannot be told apart") == 2


def test_the_epoch_is_the_one_that_the_script_keeps(home, sqlite_url):
    study = STUDY.replace('direction = "maximize"', 'direction = "maximize"\nkeep_lowest = "val_loss"')
    (home / "triplet.toml").write_text(study, encoding="utf-8")
    path = write_run(home / "runs" / "a")
    held = torch.load(path, weights_only=False) | {"val_loss": [0.9, 0.8, 0.7]}
    torch.save(held, path)
    assert take(home, sqlite_url, "runs").code == 0
    (trial,) = read(sqlite_url).trials
    assert (trial.value, trial.user_attrs["best_epoch"]) == (0.4, 3)
    assert trial.user_attrs["numbers"] == {"val_cos": 0.4, "val_loss": 0.7}


def test_a_folder_without_runs_and_a_file_without_args_are_answered_in_one_line(home, sqlite_url):
    (home / "empty").mkdir()
    answer = take(home, sqlite_url, "empty")
    assert (answer.code, answer.err.splitlines()[0]) == (
        2,
        "error: empty holds no checkpoint with the args of a script",
    )
    torch.save({"model_state_dict": {}}, home / "weights.pth")
    answer = take(home, sqlite_url, "weights.pth")
    assert answer.code == 2
    assert "weights.pth does not say with which flags it was trained: it holds model_state_dict, no args" in answer.err


@pytest.mark.parametrize("words", [("--unconfirmed",), ("--split", "none"), ("--layout", "pose")])
def test_options_of_the_built_in_trainer_are_refused(home, sqlite_url, words):
    answer = take(home, sqlite_url, ".", *words)
    assert answer.code == 2
    assert f"{words[0]} is for the built-in trainer" in answer.err
