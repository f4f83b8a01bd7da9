"""The scripts in tests/scripts/habits really train, as their authors' habits say: what other tests rest on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from users_repo import train

HABITS = Path(__file__).parent.parent / "scripts" / "habits"
EPOCHS = 3


def tensorboard(folder, *words, epochs=EPOCHS):
    """Run the script; its validation cosines by epoch, from its checkpoint."""
    folders = ("--save_dir", folder / "save", "--log_dir", folder / "log")
    train(HABITS / "tensorboard_argparse.py", *folders, "--epochs", epochs, *words)
    return torch.load(folder / "save" / "last_model.pth", weights_only=False)["val_cosine_sim_history"]


def chinese(folder, *words, epochs=EPOCHS):
    printed = train(HABITS / "printed_chinese.py", "--epochs", epochs, *words)
    assert [*folder.iterdir()] == []
    return [float(number) for number in re.findall(r"，验证余弦相似度：(.+)", printed)]


def json_lines(folder, *words, epochs=EPOCHS):
    printed = train(HABITS / "json_lines_numpy.py", "--output-dir", folder, "--max-epochs", epochs, *words)
    assert (folder / "log.jsonl").read_text() == printed
    return [line["val"]["cosine"] for line in map(json.loads, printed.splitlines()) if "epoch" in line]


def checkpoint(folder, *words, epochs=EPOCHS):
    assert train(HABITS / "checkpoint_only.py", "--out", folder, "--n_epochs", epochs, *words) == ""
    return torch.load(folder / "last.ckpt", weights_only=False)["history"]["val_cos"]


def workers(folder, *words, epochs=EPOCHS):
    command = [sys.executable, HABITS / "workers_ignore_sigterm.py", "--logdir", folder, "--epochs", epochs, *words]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return [float(line.split(",")[-1]) for line in (folder / "log.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("habit", "rate", "good", "bad"),
    [
        (tensorboard, "--lr", 3e-3, 1e-6),
        (chinese, "--lr", 0.1, 1e-5),
        (json_lines, "--learning-rate", 3e-3, 1e-7),
        (checkpoint, "--lr", 1.0, 1e-4),
        (workers, "--lr", 0.3, 1e-5),
    ],
)
def test_a_script_learns_and_its_learning_rate_matters(tmp_path, habit, rate, good, bad):
    learnt = habit(tmp_path, rate, good)
    assert len(learnt) == EPOCHS
    assert learnt[-1] > learnt[0]
    assert learnt[-1] > habit(tmp_path, rate, bad)[-1] + 0.1


@pytest.mark.parametrize("habit", [tensorboard, chinese, checkpoint])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path, habit):
    first = habit(tmp_path, "--seed", 1, epochs=2)
    assert habit(tmp_path, "--seed", 1, epochs=2) == first
    assert habit(tmp_path, "--seed", 2, epochs=2) != first


def test_the_script_without_a_seed_flag_is_random(tmp_path):
    assert json_lines(tmp_path, epochs=1) != json_lines(tmp_path, epochs=1)


@pytest.mark.parametrize(
    ("habit", "flag", "file"),
    [
        (tensorboard, "--resume", "save/last_model.pth"),
        (checkpoint, "--resume", "last.ckpt"),
        (workers, "--restart-from", "last.npz"),
    ],
)
def test_a_resumed_training_ends_with_the_numbers_of_an_uninterrupted_one(tmp_path, habit, flag, file):
    whole = habit(tmp_path, epochs=4)
    habit(tmp_path, epochs=2)
    assert habit(tmp_path, flag, tmp_path / file, epochs=4) == whole


def test_the_event_file_grows_only_when_it_is_flushed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HABITS)
    from event_writer import SummaryWriter, masked_crc32c

    writer = SummaryWriter(str(tmp_path))
    empty = Path(writer.path).stat().st_size
    writer.add_scalar("Val/Loss", 0.5, 1)
    assert Path(writer.path).stat().st_size == empty
    writer.flush()
    assert Path(writer.path).stat().st_size > empty
    # RFC 3720, B.4: the CRC32C of 32 bytes of zero is 0x8A9136AA; TensorFlow's mask rotates it by 15 and adds.
    assert masked_crc32c(bytes(32)) == (((0x8A9136AA >> 15) | (0x8A9136AA << 17)) + 0xA282EAD8) % 2**32


def test_the_workers_and_their_parent_survive_sigterm(tmp_path):
    command = [sys.executable, HABITS / "workers_ignore_sigterm.py", "--logdir", tmp_path, "--epochs", "2"]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout.readline().startswith("epoch 1:")
        script.terminate()
        assert script.stdout.readline().startswith("epoch 2:")
    assert script.returncode == 0
