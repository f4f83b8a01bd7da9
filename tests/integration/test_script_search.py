"""A search of a script of the user's own, from the command to the result."""

import json
import re

import optuna
import pytest
from command_line import call
from optuna.study import StudyDirection
from optuna.trial import TrialState
from stored_script import script_trial, study_of_script
from stored_study import our_study

from face3d_tune.errors import ConfigError
from face3d_tune.search.prepare_script import script_plan
from face3d_tune.search.script_folders import ScriptFolders
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.study.history import History
from face3d_tune.study.objective import Objective

# A script without an import that takes time: the loss of epoch e is (lr - 0.3)^2 + 1 / e.
SCRIPT = """
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--sharp", action="store_true")
parser.add_argument("--save_dir", default="runs")
arguments = parser.parse_args()
for epoch in range(1, arguments.epochs + 1):
    loss = (arguments.lr - 0.3) ** 2 + 1 / epoch + arguments.sharp
    print(json.dumps({"epoch": epoch, "val_loss": loss, "val_cosine": 1 - loss}))
"""
STUDY = """
[script]
path = "train.py"
metric = "val_loss"
source = "json"
direction = "minimize"
epochs_flag = "epochs"
seed_flag = "seed"
folder_flags = ["save_dir"]
[budget]
trials = 4
epochs = 3
[sampler]
name = "random"
[pruner]
name = "none"
[presets.defaults]
[space]
lr = { low = 0.01, high = 1.0, scale = "log" }
sharp = [false, true]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path


def search(folder, *words, artifacts="none"):
    return call("run", "--study", "mine.toml", *words, cwd=folder, FACE3D_TUNE_ARTIFACTS=str(artifacts))


def stored(folder):
    with Storage.parse(f"sqlite:///{folder / 'face3d_tune.db'}").opened() as opened:
        study = optuna.load_study(study_name="mine", storage=opened)
        return study, study.trials, study.user_attrs, study.directions


def expected(lr, sharp, epochs=3):
    return [(lr - 0.3) ** 2 + 1 / epoch + sharp for epoch in range(1, epochs + 1)]


def test_every_trial_is_the_script_with_its_flags_and_the_best_is_the_lowest_loss(folder):
    answer = search(folder)
    assert answer.code == 0, answer.err
    _, trials, attrs, directions = stored(folder)
    assert directions == [StudyDirection.MINIMIZE]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert trials[0].user_attrs["preset"] == "defaults"
    assert trials[0].params == {"lr": 0.1, "sharp": False}
    objective = Objective.of_study(attrs)
    for trial in trials:
        curve = expected(**trial.params)
        assert trial.value == pytest.approx(curve[-1])
        assert History.of(trial, objective).values(objective) == pytest.approx(curve, rel=1e-5)
        assert list(trial.intermediate_values.values()) == pytest.approx(curve)
        assert trial.user_attrs["numbers"]["val_cosine"] == pytest.approx(1 - curve[-1])
        assert trial.user_attrs["config"] == {**trial.params, "epochs": 3}
    best = min(trials, key=lambda trial: trial.value)
    assert re.search(rf"best val_loss {best.value:.4f}, trial {best.number}", answer.err)


def test_a_search_that_is_done_says_so_and_goes_on_with_a_larger_budget(folder):
    assert search(folder).code == 0
    again = search(folder)
    assert again.code == 0
    assert "nothing to do: study 'mine' already has 4 of 4 trials" in again.out
    assert search(folder, "--trials", 5).code == 0
    assert len(stored(folder)[1]) == 5


def test_each_trial_has_a_folder_and_a_log_which_is_kept_and_the_script_is_left_alone(folder):
    before = sorted(path.name for path in folder.iterdir())
    artifacts = folder.parent / f"{folder.name}-artifacts"
    assert search(folder, artifacts=artifacts).code == 0
    logs = sorted(path.name for path in artifacts.rglob("logs/*"))
    assert logs == [f"trial-{number}.txt" for number in range(4)]
    first = json.loads(next(artifacts.rglob("logs/trial-0.txt")).read_text(encoding="utf-8").splitlines()[0])
    assert first["val_loss"] == pytest.approx(expected(0.1, False)[0])
    after = [name for name in sorted(path.name for path in folder.iterdir()) if not name.startswith("face3d_tune.db")]
    assert after == before


def test_the_target_of_a_loss_is_reached_from_above(folder):
    answer = search(folder, "--target", 0.5, "--slots", 1)
    assert answer.code == 0, answer.err
    trials = [trial for trial in stored(folder)[1] if trial.state == TrialState.COMPLETE]
    assert trials[0].user_attrs["stop_reason"] == "target"  # 0.04 + 1/3 in epoch 3
    assert len(trials) == 1
    assert "has reached the target" in search(folder, "--target", 0.5).out


def test_json_tells_every_number_of_an_epoch(folder):
    answer = search(folder, "--json", "--trials", 1)
    events = [json.loads(line) for line in answer.out.splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [event["value"] for event in epochs] == pytest.approx(expected(0.1, False))
    assert epochs[0]["numbers"]["val_cosine"] == pytest.approx(1 - epochs[0]["value"])
    ended = next(event for event in events if event["event"] == "trial_ended")
    assert ended["numbers"]["val_loss"] == ended["value"]


def test_a_script_that_changed_is_noticed_and_may_be_accepted(folder):
    assert search(folder, "--trials", 1).code == 0
    (folder / "train.py").write_text(SCRIPT.replace("0.3", "0.2"), encoding="utf-8")
    refused = search(folder, "--trials", 2)
    assert refused.code == 2
    assert "study 'mine' was made before train.py changed" in refused.err
    assert "--accept-changed-script" in refused.err
    accepted = search(folder, "--trials", 2, "--accept-changed-script")
    assert accepted.code == 0, accepted.err
    assert "its trials come from more than one version" in accepted.err
    _, trials, _, _ = stored(folder)
    versions = [trial.user_attrs["script_version"] for trial in trials]
    assert len(set(versions)) == 2
    assert search(folder, "--trials", 2).code == 0  # the new version is now the study's


def test_a_study_keeps_its_space_metric_and_direction(folder):
    assert search(folder, "--trials", 1).code == 0
    for before, now, said in (
        ("high = 1.0", "high = 2.0", "was made with space.lr"),
        ('metric = "val_loss"', 'metric = "val_cosine"', "was made with objective = val_loss, now it is val_cosine"),
        ("epochs = 3", "epochs = 4", "was made with epochs = 3, now it is 4"),
    ):
        (folder / "mine.toml").write_text(STUDY.replace(before, now), encoding="utf-8")
        refused = search(folder, "--trials", 2)
        assert refused.code == 2
        assert said in refused.err
    (folder / "mine.toml").write_text(STUDY.replace('"minimize"', '"maximize"'), encoding="utf-8")
    assert search(folder, "--trials", 2).code == 2


def test_a_script_is_not_searched_in_a_study_of_the_built_in_trainer(folder):
    with Storage.parse(f"sqlite:///{folder / 'face3d_tune.db'}").opened(create=True) as opened:
        our_study(opened, "mine")
    refused = search(folder, "--trials", 1)
    assert refused.code == 2
    assert "error: study 'mine' was made with the built-in trainer, not with a script" in refused.err
    assert "hint: start another study with --study-name NEW" in refused.err


def test_a_script_that_changes_during_its_search_ends_it_before_the_next_trial(folder):
    changing = SCRIPT + "    open(__file__, 'a').write('# changed')\n"
    (folder / "train.py").write_text(changing, encoding="utf-8")
    answer = search(folder, "--trials", 2, "--slots", 1)
    assert answer.code == 2
    assert "error: train.py changed during the search" in answer.err
    assert [trial.state.name for trial in stored(folder)[1]].count("COMPLETE") == 1


def test_the_ranges_of_a_script_grow_as_those_of_the_trainer(folder):
    assert search(folder, "--trials", 1).code == 0
    space = "lr = { low = 0.01, high = 3.0, scale = 'log' }"
    (folder / "wider.toml").write_text(f"[space]\n{space}\n", encoding="utf-8")
    answer = search(folder, "--trials", 2, "--space", "wider.toml")
    assert answer.code == 0, answer.err
    assert "the range of lr grew from 0.01 … 1.0 (log) to 0.01 … 3.0 (log) at " in answer.err
    assert search(folder, "--trials", 3).code == 0  # without the option, and with the file as it was
    _, trials, attrs, _ = stored(folder)
    assert [trial.distributions["lr"].high for trial in trials] == [1.0, 3.0, 3.0]
    assert len(attrs["settings"]["grown"]) == 1
    (folder / "wider.toml").write_text("[space]\nlr = { low = 0.1, high = 4.0, scale = 'log' }\n", encoding="utf-8")
    refused = search(folder, "--trials", 4, "--space", "wider.toml")
    assert refused.code == 2
    assert "searches lr in 0.01 … 3.0 (log), and 0.1 … 4.0 (log) does not hold all of it" in refused.err
    (folder / "wider.toml").write_text("[space]\nepochs = { low = 1, high = 4 }\n", encoding="utf-8")
    assert "space.epochs is also set by script.epochs_flag" in search(folder, "--space", "wider.toml").err


@pytest.mark.parametrize(
    "words", ["--layout pose", "--folds 3", "--data-dir .", "--amp off", "--from other", "--engine plain"]
)
def test_options_of_the_built_in_trainer_are_refused(folder, words):
    refused = search(folder, *words.split())
    assert refused.code == 2
    assert f"{words.split()[0]} is for the built-in trainer" in refused.err


def test_a_script_needs_a_study_file_that_says_what_to_measure(folder):
    refused = call("run", "--script", "train.py", cwd=folder)
    assert refused.code == 2
    assert "study 'default' has no table [script]" in refused.err
    assert "face3d-tune script train.py" in refused.err


def test_epochs_are_no_option_for_a_script_that_takes_none(folder):
    text = STUDY.replace('epochs_flag = "epochs"\n', "").replace("epochs = 3\n", "")
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    answer = search(folder, "--epochs", 2)
    assert answer.code == 2
    assert "error: --epochs 2 cannot be passed to the script: " in answer.err
    assert "hint: set script.epochs_flag, or omit --epochs" in answer.err
    assert not (folder / "face3d_tune.db").exists()


def test_the_winners_of_a_study_of_the_same_script_come_after_the_presets(folder):
    trials = (script_trial("COMPLETE", [loss], direction="minimize", lr=lr) for lr, loss in ((0.05, 0.2), (0.02, 0.1)))
    with Storage.parse(f"sqlite:///{folder / 'other.db'}").opened(create=True) as opened:
        study_of_script(*trials, direction="minimize", storage=opened, script={"path": "train.py"})
    answer = search(folder, "--like", "sqlite:///other.db", "--trials", 2)
    assert answer.code == 0, answer.err
    assert [trial.params["lr"] for trial in stored(folder)[1][:2]] == [0.1, 0.02]
    assert "like     triplet, trial 1, 0; after the presets" in answer.err


@pytest.mark.parametrize(
    ("device", "slots", "devices", "count"),
    [
        ("cuda:0,cuda:1", None, ("cuda:0", "cuda:1"), 2),
        ("cuda:0,cuda:1", 1, ("cuda:0",), 1),
        ("cuda", 3, ("cuda",), 3),
        ("cpu", 3, ("cpu",), 3),
    ],
)
def test_scripts_share_the_gpus_that_are_named(monkeypatch, device, slots, devices, count):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plan = script_plan(device, slots)
    assert (plan.devices, plan.slots) == (devices, count)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="--device cuda:2 cannot be used: torch sees 2 GPUs"):
        script_plan("cuda:0, cuda:2", None)


# Its folders, when logs cannot be kept


def folders_of(artifacts):
    """The folders of a study with one trial, which has a log, and all that they note."""
    study, notes = study_of_script(script_trial("COMPLETE", [0.5])), []
    folders = ScriptFolders(study, artifacts, "triplet fedcba98", 1)
    folders.note = notes.append
    folders.root.mkdir(parents=True)
    (folders.root / "trial-0.log").write_text("epoch 1", encoding="utf-8")
    return folders, study.trials[0], notes


def test_a_log_that_cannot_be_kept_is_said_once(tmp_path):
    folders, trial, notes = folders_of(Artifacts.parse(str(tmp_path)))
    (folders.root.parent / "logs").touch()  # no folder
    for _ in range(2):
        folders.take(trial)
    assert notes == [f"the log of trial 0 is not kept: cannot write to {tmp_path}: File exists"]


def test_logs_that_a_bucket_does_not_list_are_said_once(s3, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders, _, notes = folders_of(Artifacts.parse("s3://nobody-has-this/p", to_write=False))
    for _ in range(2):
        (folders.root / "trial-0.log").touch()  # which a bucket is to keep
        folders.tidy()
    (note,) = notes
    assert note.startswith("the logs of trials are not kept: cannot list s3://nobody-has-this/p: The specified bucket")


def test_a_trial_without_output_has_no_log(tmp_path):
    folders, trial, notes = folders_of(Artifacts.parse(str(tmp_path)))
    (folders.root / "trial-0.log").unlink()
    folders.take(trial)
    assert (list(tmp_path.rglob("logs")), notes) == ([], [])
