"""Checkpoint files: whole or not there, and read without running what is in them."""

import io
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from face3d_tune import checkpoint
from face3d_tune.errors import TrainingError

CONTENT = {"epoch": 4, "model_state_dict": {"weight": torch.arange(6.0).view(2, 3)}, "args": {"lr": 1e-4, "x": None}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "best_model.pth"


def test_what_is_saved_comes_back(path):
    checkpoint.save(CONTENT, path)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["model_state_dict"]["weight"], CONTENT["model_state_dict"]["weight"])
    assert (loaded["epoch"], loaded["args"]) == (4, {"lr": 1e-4, "x": None})


def test_a_checkpoint_is_an_ordinary_torch_file_for_the_users_script(path):
    checkpoint.save(CONTENT, path)
    assert torch.load(path, weights_only=True)["epoch"] == 4


def test_saving_replaces_the_checkpoint_before_and_leaves_nothing_else(path):
    checkpoint.save({"epoch": 1}, path)
    checkpoint.save({"epoch": 2}, path)
    assert checkpoint.load(path) == {"epoch": 2}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_crash_while_writing_leaves_the_old_checkpoint_whole(path, monkeypatch, error):
    checkpoint.save({"epoch": 1}, path)
    before = path.read_bytes()

    def crash(content, file):
        whole = io.BytesIO()
        torch_save(content, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        raise error

    torch_save = torch.save
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", crash)
        with pytest.raises(type(error)):
            checkpoint.save({"epoch": 2}, path)
    assert path.read_bytes() == before
    checkpoint.save({"epoch": 3}, path)  # and the next one is not in the way of what was left
    assert checkpoint.load(path) == {"epoch": 3}


def test_the_bytes_are_on_the_disk_before_the_name_is(path, monkeypatch):
    steps, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("fsync"), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), replace(self, target)))
    checkpoint.save(CONTENT, path)
    assert steps == ["fsync", "rename"]


def refused(path):
    """The message of the refusal, which is one line and names the file."""
    with pytest.raises(TrainingError) as caught:
        checkpoint.load(path)
    message = caught.value.message
    assert str(path) in message
    assert "\n" not in message
    assert message.split(": ", 1)[1]
    return message


def test_a_missing_file_or_a_folder_is_refused(path):
    assert "No such file" in refused(path)
    path.mkdir()
    refused(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world\n", "训练".encode(), b'{"epoch": 1}', b"PK\x03\x04 no zip", b"\x80\x02", pickle.dumps([1], 4)],
    ids=repr,
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(path, content):
    path.write_bytes(content)
    refused(path)


def test_a_checkpoint_cut_off_anywhere_is_refused(path):
    checkpoint.save(CONTENT, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 101):
        path.write_bytes(whole[:length])
        refused(path)


def test_random_bytes_are_refused(path):
    draw = random.Random(0)
    for _ in range(200):
        path.write_bytes(draw.randbytes(draw.randint(0, 60)))
        refused(path)


@pytest.mark.parametrize("content", [torch.zeros(2), [1, 2], "text", 7, None], ids=repr)
def test_a_torch_file_that_holds_something_else_is_refused(path, content):
    torch.save(content, path)
    assert f"it holds a {type(content).__name__}" in refused(path)


class Code:
    """A pickle of it makes a folder when it is read carelessly."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_code_in_a_file_is_not_run(path, write):
    folder = path.with_name("made by the file")
    write({"epoch": 1, "model_state_dict": Code(str(folder))}, path)
    refused(path)
    assert not folder.exists()
    if write is torch.save:  # without that care it would have been run
        torch.load(path, weights_only=False)
        assert folder.exists()
