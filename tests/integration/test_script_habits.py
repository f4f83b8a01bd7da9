"""Scripts of many habits are searched by what they say themselves, and a bad one fails with the cause in a line."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call
from optuna.trial import TrialState
from script_searches import check_nothing_left, study_of

from face3d_tune.search import failures_in_a_row

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

HABITS = Path(__file__).parent.parent / "scripts" / "habits"
NAME = "mine"


def url(folder):
    return f"sqlite:///{folder / 'studies.db'}"


def run(folder, *words, trials=2, slots=2):
    """Search in the folder `work`, with the study file there, and return the answer, the study and its logs."""
    answer = call(
        *("run", "--study", f"{NAME}.toml", "--storage", url(folder), "--device", "cpu", "--slots", slots),
        *("--trials", trials, "--artifacts", folder / "artifacts", *words),
        cwd=folder / "work",
    )
    attrs, trials = study_of(url(folder), NAME)
    check_nothing_left(attrs["id"])
    assert "Traceback" not in answer.err
    return answer, trials


def folder_of(folder, trial):
    (found,) = (folder / "artifacts").glob(f"*/trials/trial-{trial.number}")
    return found


def log_of(folder, trial):
    (found,) = (folder / "artifacts").glob(f"*/logs/trial-{trial.number}.txt")
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path


# What each script says of a trial, read as its author would: the validation cosine of each epoch.


def tensorboard(folder, trial):
    saved = torch.load(folder_of(folder, trial) / "save_dir" / "last_model.pth", weights_only=False)
    return saved["val_cosine_sim_history"]


def chinese(folder, trial):
    printed = log_of(folder, trial).read_text(encoding="utf-8")
    return [float(number) for number in re.findall(r"，验证余弦相似度：(.+)", printed)]


def json_lines(folder, trial):
    lines = (folder_of(folder, trial) / "output-dir" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["val"]["cosine"] for line in map(json.loads, lines) if "epoch" in line]


def checkpoint(folder, trial):
    return torch.load(folder_of(folder, trial) / "out" / "last.ckpt", weights_only=False)["history"]["val_cos"]


def workers(folder, trial):
    rows = np.loadtxt(folder_of(folder, trial) / "logdir" / "log.csv", delimiter=",", skiprows=1)
    return rows[:, -1].tolist()


def check_found(trials, cosines, folder):
    """Both trials have every epoch, and the value of their best one."""
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert trials[0].params != trials[1].params
    for trial in trials:
        said = cosines(folder, trial)
        assert len(said) == 3
        assert list(trial.intermediate_values.values()) == pytest.approx(said, abs=1e-6)
        assert trial.user_attrs["stop_reason"] == "finished"
        assert trial.value == pytest.approx(said[trial.user_attrs["best_epoch"] - 1], abs=1e-6)


@pytest.mark.parametrize(
    ("script", "source", "metric", "cosines"),
    [
        ("printed_chinese", "printed", "验证余弦相似度", chinese),
        ("json_lines_numpy", "json", "val.cosine", json_lines),
    ],
)
def test_a_script_is_drafted_and_searched_by_what_it_says_itself(folder, script, source, metric, cosines):
    drafted = call("script", HABITS / f"{script}.py", "--out", f"{NAME}.toml", cwd=folder / "work")
    assert drafted.code == 0, drafted.err
    answer, trials = run(folder, "--epochs", 3)
    assert answer.code == 0, answer.err
    assert f"metric {metric}, source {source}" in answer.err
    assert trials[0].user_attrs["preset"] == "defaults"
    check_found(trials, cosines, folder)


@pytest.mark.parametrize(
    ("script", "table", "cosines"),
    [
        (
            "tensorboard_argparse",
            'source = "tensorboard"\nmetric = "Val/CosineSimilarity"\nkeep_lowest = "Val/Loss"\nseed_flag = "seed"\n'
            'epochs_flag = "epochs"\nfolder_flags = ["save_dir", "log_dir"]\nresume_flag = "resume"',
            tensorboard,
        ),
        (
            "checkpoint_only",
            'source = "checkpoint"\nmetric = "history.val_cos"\nseed_flag = "seed"\nepochs_flag = "n_epochs"\n'
            'folder_flags = ["out"]\nresume_flag = "resume"',
            checkpoint,
        ),
        (
            "workers_ignore_sigterm",
            'source = "csv"\nmetric = "val_cosine"\nseed_flag = "random_seed"\nepochs_flag = "epochs"\n'
            'folder_flags = ["logdir"]\nresume_flag = "restart_from"\ncheckpoint = "last.npz"',
            workers,
        ),
    ],
)
def test_a_script_of_each_habit_is_searched_by_what_it_says_itself(folder, script, table, cosines):
    write_study(folder, HABITS / f"{script}.py", table)
    answer, trials = run(folder, "--epochs", 3)
    assert answer.code == 0, answer.err
    check_found(trials, cosines, folder)


STUDY = """
[script]
path = "{script}"
direction = "maximize"
{table}
[budget]
trials = 2
epochs = 5
[sampler]
name = "random"
[pruner]
name = "none"
[space]
lr = {{ low = 0.1, high = 1.0, scale = "log" }}
"""


def write_study(folder, script, table, more=""):
    text = STUDY.format(script=script, table=table) + more
    (folder / "work" / f"{NAME}.toml").write_text(text, encoding="utf-8")


# Bad scripts


def bad(folder, script, *words, metric="val_cosine", table='epochs_flag = "epochs"', more="", **options):
    """Search a copy of a bad script."""
    shutil.copy(HABITS / "bad" / f"{script}.py", folder / "work")
    write_study(folder, f"{script}.py", f'source = "printed"\nmetric = "{metric}"\n{table}', more)
    return run(folder, *words, **options)


def errors(trials):
    return [trial.user_attrs["error"] for trial in trials if "cause" in trial.user_attrs]


def check_complete(answer, trials):
    assert answer.code == 0, answer.err
    for trial in trials:
        assert (trial.state, trial.user_attrs["stop_reason"]) == (TrialState.COMPLETE, "finished")
        assert trial.value == pytest.approx(1 - trial.params["lr"] / 6, abs=1e-4)  # of the last of five epochs


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "asks_a_question",
            "it ended with exit code 1: EOFError: EOF when reading a line; it asks a question, and nothing can be "
            "typed into a trial: give the answer with a flag, or take input() out",
        ),
        ("exits_at_once", "it ended with exit code 0, but val_cosine (printed) never came: it gave no number there"),
        ("metric_is_text", "it ended with exit code 0, but val_cosine (printed) never came: it gave no number there"),
        ("metric_once", "it ended with exit code 0, but val_cosine (printed) never came: it gave test_cosine"),
    ],
)
def test_a_script_that_cannot_give_its_metric_ends_the_search_after_five_trials(folder, script, reason):
    answer, trials = bad(folder, script)
    assert answer.code == 1
    assert errors(trials)[:5] == [reason] * 5
    *_, error, hint = answer.err.strip().splitlines()
    assert error == f"error: 5 trials in a row failed; the last: {reason}"
    assert hint == "hint: fix the cause and run the same command again; finished trials are kept"


def test_a_number_that_comes_once_at_the_end_is_the_value(folder):
    answer, trials = bad(folder, "metric_once", metric="test_cosine")
    assert answer.code == 0, answer.err
    assert [trial.value for trial in trials] == pytest.approx([1 - t.params["lr"] / 6 for t in trials], abs=1e-4)


def test_a_metric_that_becomes_no_number_fails_the_trial_and_the_space_is_to_blame_after_many(folder, monkeypatch):
    monkeypatch.setattr(failures_in_a_row, "_HOPELESS_IN_A_ROW", 2)
    answer, trials = bad(folder, "nan_after_3", slots=1)
    assert answer.code == 1
    assert errors(trials) == ["val_cosine is nan in epoch 4"] * 2
    assert "error: 2 trials in a row failed (2 diverged); the last: val_cosine is nan in epoch 4\n" in answer.err
    assert [len(trial.intermediate_values) for trial in trials] == [3, 3]


def test_a_script_that_never_ends_is_ended_at_its_time_limit(folder):
    table = 'epochs_flag = "epochs"\ntime_limit = "2s"'
    answer, trials = bad(folder, "never_ends", table=table)
    check_complete(answer, trials)
    assert "trial 0: ended by the time limit after epoch 5" in answer.err


def test_a_script_that_never_begins_fails_at_its_time_limit(folder):
    table = 'epochs_flag = "epochs"\ntime_limit = "0.2s"\narguments = ["--wait_for_ever"]'
    answer, trials = bad(folder, "never_ends", table=table)
    assert answer.code == 1
    reason = "it was ended at the time limit of 0.2 s: val_cosine (printed) never came: it gave no number there"
    assert errors(trials)[:5] == [reason] * 5


def test_a_script_that_prints_megabytes_has_a_bounded_log(folder):
    table = 'epochs_flag = "epochs"\narguments = ["--megabytes", "1"]'
    answer, trials = bad(folder, "prints_megabytes", table=table, trials=1)
    check_complete(answer, trials)
    assert log_of(folder, trials[0]).stat().st_size < 2.1 * 2**20


def test_a_daemon_is_ended_with_its_script_and_named(folder, monkeypatch):
    monkeypatch.setattr("face3d_tune.script.running.supervisor.LINGER", 0.1)  # the daemon never ends by itself
    answer, trials = bad(folder, "forks_a_daemon", trials=1)
    check_complete(answer, trials)
    assert "trial 0: the script left a process running, which was ended: " in answer.err
    assert "time.sleep(600)" in answer.err


def test_files_that_a_script_writes_beside_itself_are_named(folder):
    answer, trials = bad(folder, "writes_beside_itself")
    check_complete(answer, trials)
    assert "changed beside the script meanwhile: results/all_runs.txt" in answer.err


def test_a_script_without_flags_is_refused_before_a_study_exists(folder):
    shutil.copy(HABITS / "bad" / "no_flags.py", folder / "work")
    write_study(folder, "no_flags.py", 'source = "printed"\nmetric = "val_cosine"')
    answer = call("run", "--study", f"{NAME}.toml", "--storage", url(folder), cwd=folder / "work")
    assert answer.code == 2
    error, hint = answer.err.strip().splitlines()
    assert "no_flags.py" in error
    assert hint.startswith("hint: ")
    assert not (folder / "studies.db").exists()
