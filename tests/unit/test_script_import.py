"""Earlier runs of the user's own script become trials of a study that searches it, at their word."""

import argparse
import json
import math
import pathlib
import tomllib

import optuna
import pytest
import torch
from command_line import call
from own_script import write_script

from face3d_tune.errors import EarlierRunError
from face3d_tune.script.earlier_folder import find
from face3d_tune.script.import_folders import examine
from face3d_tune.script.study_file import read as read_study_file
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


def change_study(home, *changes):
    """Write the study file with each text of it replaced by another one."""
    text = STUDY
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (home / "triplet.toml").write_text(text, encoding="utf-8")


def examined(home, *paths):
    """What `import` would say of each run, without a database."""
    return examine(find(paths or [home / "runs"]), read_study_file(home / "triplet.toml"))


def without(*names):
    """Make the args of a run that lack some flags, as those of an older copy of the script."""
    return lambda **args: {name: value for name, value in args.items() if name not in names}


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


@pytest.mark.parametrize("path", [pathlib.PurePosixPath("data/faces/"), "./data/faces/"])
def test_a_path_among_the_flags_is_compared_as_a_path(home, path):
    change_study(home, ("batch_size = 16", 'batch_size = 16\nsave_dir = "data/faces"'), ('["save_dir"]', "[]"))
    write_run(home / "runs" / "a", save_dir=path)
    assert examined(home)[0].reason == ""


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((64, 32), ""),  # as `nargs` with a default that is a tuple
        ([64], "sizes = [64], the study's is [64, 32]"),
        ([64, 64], "sizes = [64, 64], the study's is [64, 32]"),
    ],
)
def test_a_list_among_the_flags_is_compared_value_by_value(home, sizes, said):
    write_script(
        home, ("    return parser", '    parser.add_argument("--sizes", type=int, nargs="+")\n    return parser')
    )
    change_study(home, ("batch_size = 16", "batch_size = 16\nsizes = [64, 32]"))
    write_run(home / "runs" / "a", sizes=sizes)
    assert examined(home)[0].reason == said


def test_a_flag_that_an_older_copy_lacked_is_no_condition_but_a_searched_one_is_needed(home):
    write_run(home / "runs" / "a", made=without("augment", "batch_size"))
    write_run(home / "runs" / "b", made=without("margin"))
    older, unknown = examined(home)
    assert (older.reason, older.trial.params["margin"]) == ("", 0.5)
    assert unknown.reason == "its args do not say margin, which the study searches"


@pytest.mark.parametrize(
    ("searched", "args", "value", "said"),
    [
        ("batch_size = { low = 8, high = 64 }", {"batch_size": 32}, 32, ""),
        ("batch_size = { low = 8, high = 64 }", {"batch_size": 32.0}, 32, ""),
        ("batch_size = { low = 8, high = 64 }", {"batch_size": 32.5}, None, "batch_size = 32.5 "),
        ("batch_size = { low = 8, high = 64 }", {"batch_size": "big"}, None, "batch_size = 'big' is outside the "),
        ("batch_size = [16, 32]", {"batch_size": 16.0}, 16, ""),
        ("batch_size = [16, 32]", {"batch_size": "16"}, None, "batch_size = '16' "),
    ],
)
def test_a_searched_value_has_the_type_of_its_flag_or_is_refused(home, searched, args, value, said):
    change_study(home, ("[fixed]\nbatch_size = 16\n", ""), ("[space]", f"[space]\n{searched}"))
    write_run(home / "runs" / "a", **args)
    (run,) = examined(home)
    found = run.trial and run.trial.params["batch_size"]
    assert (found, type(found)) == (value, type(value))
    assert run.reason.startswith(said)
    assert bool(run.reason) == bool(said)


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


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((0.9, 0.8, 0.7), "its val_cos is nan at epoch 3"),
        (None, "it has no number val_loss, which decides the epoch that the script keeps"),
    ],
)
def test_a_run_whose_kept_epoch_has_no_value_is_refused(home, kept, said):
    change_study(home, ('direction = "maximize"', 'direction = "maximize"\nkeep_lowest = "val_loss"'))
    path = write_run(home / "runs" / "a", curve=(0.3, 0.5, math.nan))
    if kept:
        torch.save(torch.load(path, weights_only=False) | {"val_loss": kept}, path)
    assert examined(home)[0].reason == said


def test_a_script_without_flags_for_epochs_and_seed_has_no_limit_and_no_note(home):
    flags = [
        f'    parser.add_argument("--{name}", type=int, default={value})\n'
        for name, value in (("epochs", 5), ("seed", 0))
    ]
    write_script(home, *((flag, "") for flag in flags))
    change_study(home, ('epochs_flag = "epochs"\nseed_flag = "seed"\n', ""), ("epochs = 5\n", ""))
    write_run(home / "runs" / "a", curve=[0.1 * epoch for epoch in range(1, 9)], made=without("epochs", "seed"))
    (run,) = examined(home)
    assert (run.reason, run.note) == ("", "")
    assert (run.trial.user_attrs["epochs_run"], run.trial.user_attrs["best_epoch"]) == (8, 8)
    assert "seed" not in run.trial.user_attrs


@pytest.mark.parametrize("seed", [None, "3", -1])
def test_a_seed_that_no_trial_could_have_is_not_stored(home, seed):
    write_run(home / "runs" / "a", seed=seed)
    assert "seed" not in examined(home)[0].trial.user_attrs


def test_a_folder_flag_may_name_a_folder_without_the_numbers(home):
    change_study(home, ('"checkpoint"', '"csv"'))
    for name in ("a", "b"):
        (home / "logs" / name).mkdir(parents=True)
        write_run(home / "runs" / name, save_dir=str(home / "logs" / name), keep=())
    (home / "runs" / "a" / "log.csv").write_text("epoch,val_cos\n1,0.3\n2,0.5\n", encoding="utf-8")
    first, second = examined(home, home / "runs" / "a", home / "runs" / "b")
    assert (first.value, first.reason) == (0.5, "")
    assert second.reason.startswith("it has no number val_cos: no CSV file of it has one, in ")


def test_weights_alone_in_a_folder_are_no_run_and_a_checkpoint_counts_once(home):
    path = write_run(home / "runs" / "a")
    torch.save({"model_state_dict": {}}, home / "runs" / "a" / "weights.pth")
    (run,) = find([home / "runs", path])
    assert run.checkpoints == (path,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "is not a readable checkpoint: "),
        ({"args": ["--lr", "1e-3"]}, ": args is ['--lr', '1e-3']; expected the script's flags, a dict or a namespace"),
    ],
)
def test_a_named_file_that_is_no_run_is_refused_with_what_to_store(tmp_path, content, said):
    path = tmp_path / "best.pth"
    torch.save(content, path) if isinstance(content, dict) else path.write_bytes(content)
    with pytest.raises(EarlierRunError) as caught:
        find([path])
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message
    assert "'args': vars(args) stores them" in caught.value.hint


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
