"""`face3d-tune script`: what it prints, what it writes, and how it answers a mistake."""

import json
from pathlib import Path

import pytest
from command_line import call

from face3d_tune.script.study_file import read

HABITS = Path(__file__).parent.parent / "scripts" / "habits"
SCRIPT = HABITS / "printed_chinese.py"
TRAINER = """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--data_dir", required=True)
p.add_argument("--epochs", type=int, default=20)
p.add_argument("--lr", type=float, default=1e-3)
p.add_argument("--layers", type=int, default=2)
args = p.parse_args()
for epoch in range(args.epochs):
    print(f"epoch {epoch + 1}: train_loss 0.5000, val_cosine {1 - args.lr / (epoch + 1):.4f}")
"""


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "train.py").write_text(TRAINER)
    (tmp_path / "data").mkdir()
    return tmp_path


def test_a_table_says_what_can_be_searched_and_measured_and_a_file_is_written(trainer):
    answer = call("script", "train.py", "--", "--data_dir", "./data", cwd=trainer)
    assert (answer.code, answer.err) == (0, "running two epochs of train.py in a temporary folder; Ctrl-C ends it\n")
    lines = answer.out.splitlines()
    (time,) = [line for line in lines if line.startswith("time ")]
    assert lines == [
        "script       train.py, 4 flags",
        "epochs       epochs",
        "seed         no flag",
        "resume       no flag",
        "folders      no flag",
        f"fixed        data_dir = {trainer / 'data'}",
        time,
        "numbers of the script",
        "  once an epoch printed     val_cosine       0.9995  metric",
        "  once an epoch printed     train_loss          0.5",
        "searched                  default      range",
        "  lr                      0.001        3.3e-05 … 0.03 (log)",
        "in the file, not searched: layers",
        "wrote train.toml",
        "next: read it, then `face3d-tune run --study train.toml`",
    ]
    file = read(trainer / "train.toml")
    assert (file.script.metric, file.script.source, file.epochs) == ("val_cosine", "printed", 20)
    assert file.fixed == {"data_dir": str(trainer / "data")}


def test_json_has_flags_numbers_and_the_metric(trainer):
    answer = call("script", "train.py", "--json", "--out", "x.toml", "--", "--data_dir", "./data", cwd=trainer)
    told = json.loads(answer.out)
    assert told["flags"]["epochs"] == {
        **{"flag": "--epochs", "kind": "int", "default": 20, "choices": None, "required": False}
    }
    assert (told["metric"], told["source"], told["direction"]) == ("val_cosine", "printed", "maximize")
    assert told["numbers"][0]["values"] == [0.5, 0.5]
    assert (told["study_file"], told["searched"]) == ("x.toml", ["lr"])
    assert (trainer / "x.toml").exists()


def test_another_metric_may_be_named(trainer):
    answer = call("script", "train.py", "--metric", "train_loss", "--", "--data_dir", "./data", cwd=trainer)
    assert answer.code == 0
    file = read(trainer / "train.toml")
    assert (file.script.metric, file.script.direction) == ("train_loss", "minimize")


def test_without_a_run_the_file_waits_for_the_metric(trainer):
    answer = call("script", "train.py", "--no-run", "--out", "a b.toml", "--", "--data_dir", "./data", cwd=trainer)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("next: name the metric in it; without --no-run it is found\n")
    written = (trainer / "a b.toml").read_text()
    assert "# The script was not run" in written
    assert "run --study 'a b.toml'\n" in written


def test_a_study_file_is_replaced_only_by_force(trainer):
    (trainer / "train.toml").write_text("mine")
    answer = call("script", "train.py", "--no-run", "--", "--data_dir", "./data", cwd=trainer)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "error: train.toml exists\nhint: name another file with --out, or overwrite it with --force\n"
    )
    assert (trainer / "train.toml").read_text() == "mine"
    assert call("script", "train.py", "--no-run", "--force", "--", "--data_dir", "./data", cwd=trainer).code == 0
    assert "[space]" in (trainer / "train.toml").read_text()


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["none.py"], "none.py cannot be read: No such file or directory", "name a Python file"),
        ([HABITS / "bad" / "no_flags.py"], 'no_flags.py has no add_argument("--…") call', "argument parser"),
        (["data/x.txt"], "data/x.txt is not Python: line 1", "name a Python file"),
        (["train.py"], "train.py does not start without --data_dir", "after --: face3d-tune script"),
        (["train.py", "--no-run"], "does not start without --data_dir", "after --: face3d-tune script"),
        (["train.py", "--data_dir", "data"], "script` has no option --data_dir", "script PATH -- --data_dir …"),
        (["train.py", "--forse"], "No such option '--forse'", "face3d-tune script --help"),
        (["train.py", "--", "--data_dir", "d", "--nope", "3"], "unrecognized arguments: --nope 3", "after -- stand"),
        (["train.py", "--out", "x.txt"], "--out x.txt: a study file ends in .toml", "--out x.toml"),
        (
            ["train.py", "--no-run", "--out", "x" * 250 + ".toml", "--", "--data_dir", "d"],
            ".toml cannot be written: File name too long",
            "another file with --out",
        ),
        (["train.py", "--out", "no/x.toml"], "--out no/x.toml: no is no folder", "create it first"),
        (
            ["train.py", "--metric", "val_cos", "--", "--data_dir", "d"],
            "gives no 'val_cos' once an epoch; did",
            "it gives",
        ),
        (
            ["train.py", "--python", "no-python", "--", "--data_dir", "d"],
            "--python no-python: no such program",
            "name the Python",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_a_hint(trainer, words, message, hint):
    (trainer / "data" / "x.txt").write_text("no python\n")
    answer = call("script", *words, cwd=trainer)
    assert answer.code == 2
    error, advice = answer.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert advice.startswith("hint: ")
    assert hint in advice
    assert not list(trainer.glob("*.toml"))


def test_the_output_of_a_script_that_fails_is_shown(trainer):
    (trainer / "train.py").write_text(TRAINER + "raise RuntimeError('no luck')\n")
    answer = call("script", "train.py", "--", "--data_dir", "./data", cwd=trainer)
    assert answer.code == 2
    assert "  | RuntimeError: no luck\n" in answer.err
    assert "error: train.py does not train: RuntimeError: no luck" in answer.err


def test_of_many_numbers_the_metric_and_24_others_are_shown_and_a_file_may_offer_nothing_more(trainer):
    text = TRAINER.replace('p.add_argument("--layers", type=int, default=2)\n', "")
    many = "    print('epoch', epoch + 1, *(f'part_{n}_loss: {0.1 * n:.2f}' for n in range(30)))\n"
    (trainer / "train.py").write_text(text + many)
    answer = call("script", "train.py", "--", "--data_dir", "./data", cwd=trainer)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    first = lines.index("numbers of the script") + 1
    assert lines[first].endswith("  metric")
    assert lines[first + 25] == "  and 7 more"
    assert "in the file, not searched" not in answer.out


def test_processes_that_a_script_leaves_running_are_noted(trainer):
    left = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    (trainer / "train.py").write_text(TRAINER + left)
    answer = call("script", "train.py", "--", "--data_dir", "./data", cwd=trainer)
    assert answer.code == 0, answer.err
    assert "\nnote: it left processes running, which are ended with every trial: " in answer.err


def test_it_speaks_chinese(trainer):
    answer = call("script", "train.py", "--lang", "zh", "--", "--data_dir", "./data", cwd=trainer)
    assert answer.code == 0
    said = (answer.out + answer.err).replace("face3d-tune run --study train.toml", "")
    for english in ("flags", "running", "epoch ", "time", "numbers", "searched", "default", "wrote", "next", "metric"):
        assert english not in said, english
