"""A script tried for two epochs: what it gives and how often, and why it cannot be searched.

Every test runs a script that ends in a fraction of a second.
"""

import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from test_script_process import is_running

from face3d_tune.errors import UnsearchableError
from face3d_tune.script import guesses
from face3d_tune.script.flags import read_script
from face3d_tune.script.probe import try_script
from face3d_tune.script.running.numbers import Numbers

pytestmark = pytest.mark.slow

HABITS = Path(__file__).parent.parent / "scripts" / "habits"
BAD = HABITS / "bad"
PARSER = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', type=float, default=0.1)\n"
EPOCHS = "p.add_argument('--epochs', type=int, default=500)\n"


def tried(path, *words, timeout=60.0):
    script = read_script(path)
    return try_script(script, guesses.plan(script, words), python=sys.executable, timeout=timeout)


@pytest.fixture
def written(tmp_path):
    def written(text, name="train.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PARSER + text)
        return path

    return written


def often(probe):
    return {(number.source, number.name): number.often for number in probe.numbers}


def test_the_numbers_of_json_lines_are_told_apart_by_how_often_they_come():
    found = often(tried(HABITS / "json_lines_numpy.py"))
    assert {name for (source, name), how in found.items() if how == "epoch"} >= {"val.cosine", "val.loss", "train.loss"}
    assert found["json", "test.cosine"] == "once"


def test_printed_chinese_numbers_are_found_by_their_names():
    found = often(tried(HABITS / "printed_chinese.py"))
    assert found["printed", "验证余弦相似度"] == "epoch"
    assert found["printed", "测试余弦相似度"] == "once"
    assert found["printed", "损失"] == "many"  # of the progress within an epoch


def test_a_csv_file_in_the_scripts_folder_and_its_odd_checkpoint_are_found():
    probe = tried(HABITS / "workers_ignore_sigterm.py")
    assert often(probe)["csv", "val_cosine"] == "epoch"
    assert probe.checkpoint == "last.npz"


def test_a_script_without_a_flag_for_epochs_is_ended_after_two(written):
    path = written(
        "p.parse_args()\nimport time\n"
        "for epoch in range(10**6):\n"
        "    print(f'epoch {epoch}: train_loss: 0.5 val_acc: {epoch / 10**6}', flush=True)\n"
        "    time.sleep(0.1)\n"
    )
    probe = tried(path)
    assert often(probe) == {("printed", "train_loss"): "epoch", ("printed", "val_acc"): "epoch"}
    assert not any(str(path) in " ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))


@pytest.mark.parametrize(("saved", "checkpoint"), [("last_model.pth", "last_model.pth"), ("epoch_2.pth", None)])
def test_two_epochs_are_trained_whatever_the_person_types_and_folders_are_temporary(
    written, tmp_path, saved, checkpoint
):
    path = written(
        f"{EPOCHS}p.add_argument('--save_dir', default='out')\np.add_argument('--tag')\na = p.parse_args()\n"
        f"import os\nos.makedirs(a.save_dir)\nopen(a.save_dir + '/{saved}', 'w').close()\n"
        "for epoch in range(a.epochs): print(f'val_loss: {epoch}.25, tag: {len(a.tag)}')\n"
    )
    probe = tried(path, "--epochs", "9", "--save_dir", "mine", "--tag", "abc")
    (loss,) = [number for number in probe.numbers if number.name == "val_loss"]
    assert loss.values == (0.25, 1.25)
    assert probe.checkpoint == checkpoint
    assert [each.name for each in tmp_path.iterdir()] == ["train.py"]


def test_modules_that_lie_above_the_script_are_found_and_said(written, tmp_path):
    (tmp_path / "shared_things.py").write_text("")
    body = f"{EPOCHS}a = p.parse_args()\nimport shared_things\nfor e in range(a.epochs): print(f'val_loss: 0.{{e}}')\n"
    probe = tried(written(body, "code/train.py"))
    assert str(tmp_path) in probe.import_from
    assert "PYTHONPATH in the file says so" in probe.notes[0]


def test_what_it_writes_beside_itself_and_what_it_leaves_running_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("face3d_tune.script.running.supervisor.LINGER", 0.1)  # the daemon never ends by itself
    for name in ("writes_beside_itself.py", "forks_a_daemon.py"):
        (tmp_path / name).write_text((BAD / name).read_text())
    (note,) = tried(tmp_path / "writes_beside_itself.py").notes
    assert note.startswith("it wrote into its own folder, ")
    assert note.endswith("results/all_runs.txt")
    (note,) = tried(tmp_path / "forks_a_daemon.py").notes
    assert note.startswith("it left processes running, which are ended with every trial: ")


REQUIRED = f"{EPOCHS}p.add_argument('--data_dir', required=True)\na = p.parse_args()\n"


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ("asks_a_question.py", "asks a question, which no search can answer: The folder checkpoints exists.", "flag"),
        ("exits_at_once.py", "without a number; the last it printed: nothing", "see that it trains"),
        ("metric_is_text.py", "gives text where a search needs a number: val_cosine (good)", "print it after every"),
        ("metric_once.py", "gives no number once an epoch; these came only once: test_cosine", "after every epoch"),
        ("out_of_memory.py", "does not train: out of memory: OutOfMemoryError: CUDA out of", "-- --batch_size 8"),
        (REQUIRED, "does not start without --data_dir", "after --: face3d-tune script {path} -- --data_dir DATA_DIR"),
        ("p.add_argument('data')\np.parse_args()\n", "does not start without data", "-- data"),
        (
            f"{EPOCHS}p.parse_args()\nprint('hello')\n",
            "without a number; the last it printed: hello",
            "print it after every epoch",
        ),
        (
            f"{EPOCHS}p.parse_args()\nopen('none')\n",
            "does not train: FileNotFoundError: [Errno 2]",
            "-- --data_dir DIR",
        ),
        (
            f"{EPOCHS}p.parse_args()\nimport module_of_another_environment\n",
            "does not train: ModuleNotFoundError: No module named 'module_of_another_environment'",
            "name the Python that has it with --python PATH",
        ),
    ],
)
def test_a_script_that_cannot_be_searched_is_answered_in_one_line_with_a_hint(written, script, message, hint):
    path = BAD / script if script.endswith(".py") else written(script)
    with pytest.raises(UnsearchableError) as caught:
        tried(path)
    assert caught.value.message.startswith(f"{path} ")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint.format(path=path) in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_script_that_never_ends_is_ended_at_the_timeout(written):
    with pytest.raises(UnsearchableError) as caught:
        tried(BAD / "never_ends.py", timeout=1.5)
    assert "did not end 2 epochs within 1.5 s; the last it printed: epoch 2: val_cosine 0.9667" in caught.value.message
    assert caught.value.hint.startswith("it gave the numbers of all epochs: see what it waits for after its last one")


def test_a_script_without_a_flag_for_epochs_may_be_slow_if_it_gives_a_number_for_two(written):
    path = written(
        "p.parse_args()\nimport time\n"
        "for epoch in (1, 2): print(f'epoch {epoch}: val_cosine 0.{epoch}', flush=True)\ntime.sleep(99)\n"
    )
    probe = tried(path, timeout=1.5)
    assert often(probe) == {("printed", "val_cosine"): "epoch"}
    assert probe.notes == ("it was ended after 1.5 s and 2 epochs, as it has no flag for epochs",)


def test_a_script_that_is_slow_may_get_more_time(written):
    path = written(
        f"{EPOCHS}p.parse_args()\nimport time\nprint('epoch 1: val_cosine 0.5', flush=True)\ntime.sleep(99)\n"
    )
    with pytest.raises(UnsearchableError) as caught:
        tried(path, timeout=0.5)
    assert caught.value.hint == "it may only be slow: --timeout 1h waits for an hour"


def test_an_interrupt_leaves_neither_processes_nor_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others, started = psutil.Process().children(recursive=True), []  # such as a server of earlier tests

    def interrupted(numbers, **options):
        children = psutil.Process().children(recursive=True)
        started.extend(process for process in children if process not in others + started)
        if len(started) > 1:  # supervisor and script
            raise KeyboardInterrupt

    monkeypatch.setattr(Numbers, "look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tried(BAD / "never_ends.py")
    assert not any(is_running(process.pid) for process in started)
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_no_flag_takes_is_refused_before_anything_runs(written):
    path = written(f"{EPOCHS}p.add_argument('--heads', type=int, choices=[2, 4])\n")
    with pytest.raises(UnsearchableError, match=r"^heads = 3: --heads takes only 2, 4$"):
        tried(path, "--heads", "3")
