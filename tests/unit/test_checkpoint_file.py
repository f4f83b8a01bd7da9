"""Checkpoint files: whole or not there, and read without running what is in them."""

import argparse
import datetime
import enum
import io
import os
import pickle
import random
import zipfile
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from face3d_tune.errors import TrainingError
from face3d_tune.training import checkpoint_file

CONTENT = {"epoch": 4, "model_state_dict": {"weight": torch.arange(6.0).view(2, 3)}, "args": {"lr": 1e-4, "x": None}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "best_model.pth"


def test_what_is_saved_comes_back(path):
    checkpoint_file.save(CONTENT, path)
    loaded = checkpoint_file.load(path)
    assert torch.equal(loaded["model_state_dict"]["weight"], CONTENT["model_state_dict"]["weight"])
    assert (loaded["epoch"], loaded["args"]) == (4, {"lr": 1e-4, "x": None})


def test_a_checkpoint_is_an_ordinary_torch_file_for_the_users_script(path):
    checkpoint_file.save(CONTENT, path)
    assert torch.load(path, weights_only=True)["epoch"] == 4


def test_saving_replaces_the_checkpoint_before_and_leaves_nothing_else(path):
    checkpoint_file.save({"epoch": 1}, path)
    checkpoint_file.save({"epoch": 2}, path)
    assert checkpoint_file.load(path) == {"epoch": 2}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_crash_while_writing_leaves_the_old_checkpoint_whole(path, monkeypatch, error):
    checkpoint_file.save({"epoch": 1}, path)
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
            checkpoint_file.save({"epoch": 2}, path)
    assert path.read_bytes() == before
    checkpoint_file.save({"epoch": 3}, path)  # and the next one is not in the way of what was left
    assert checkpoint_file.load(path) == {"epoch": 3}


def test_the_bytes_are_on_the_disk_before_the_name_is(path, monkeypatch):
    steps, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("fsync"), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), replace(self, target)))
    checkpoint_file.save(CONTENT, path)
    assert steps == ["fsync", "rename"]


def refused(path):
    """The message of the refusal, which is one line and names the file."""
    with pytest.raises(TrainingError) as caught:
        checkpoint_file.load(path)
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
    checkpoint_file.save(CONTENT, path)
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


class Exec:
    """A pickle of it runs a program when it is read carelessly."""

    def __init__(self, program):
        self.program = program

    def __reduce__(self):
        return exec, (self.program,)


def test_a_function_that_is_no_classs_is_not_run_either(path):
    marker = path.with_name("made by the file")
    torch.save({"args": Exec(f"open({str(marker)!r}, 'w').close()")}, path)
    assert repr(checkpoint_file.load(path)["args"]).startswith("builtins.exec(")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # without that care it would have been run
    assert marker.exists()


class Reads:
    """A class that does something when its state is read."""

    def __setstate__(self, state):
        raise AssertionError("the class of the file was used")


def test_a_class_that_the_file_names_is_never_used_even_if_it_is_there(path):
    held = Reads()
    held.lr = 0.5
    torch.save({"args": held}, path)
    loaded = checkpoint_file.load(path)["args"]
    assert not isinstance(loaded, Reads)
    assert checkpoint_file.mapping(loaded) == {"lr": 0.5}


class Colour(enum.Enum):
    RED = 3


def made_of(path):
    """The name of a path's class and what Python makes one like it from; both differ between versions of Python."""
    parts = ", ".join(map(repr, path.__reduce__()[1]))
    return f"{type(path).__module__}.{type(path).__name__}({parts})"


OBJECTS = [
    (Path("runs") / "a.pth", made_of(Path("runs") / "a.pth")),
    (PureWindowsPath("C:/runs/a.pth"), made_of(PureWindowsPath("C:/runs/a.pth"))),
    (datetime.date(2026, 11, 29), r"datetime.date(b'\x07\xea\x0b\x1d')"),  # 2026 = 7 · 256 + 234
    (Colour.RED, f"{__name__}.Colour(3)"),
]


@pytest.mark.parametrize(("value", "text"), OBJECTS, ids=[text for _, text in OBJECTS])
def test_an_object_among_the_flags_comes_as_what_it_was_made_from(path, value, text):
    torch.save({"args": {"save_dir": value, "lr": 0.5}, "w": torch.ones(2)}, path)
    loaded = checkpoint_file.load(path)
    assert repr(loaded["args"]["save_dir"]) == text
    assert (loaded["args"]["lr"], loaded["w"].tolist()) == (0.5, [1.0, 1.0])


@pytest.mark.parametrize("state", [np.random.RandomState(1).get_state(), np.random.default_rng(1), np.uint8([3])])
def test_a_checkpoint_with_the_state_of_numpys_generator_is_read(path, state):
    torch.save({"epoch": 4, "rng": state}, path)
    assert checkpoint_file.load(path)["epoch"] == 4


@pytest.mark.parametrize(
    "value",
    [
        *(np.str_("a"), np.bytes_(b"a"), np.datetime64("2026-01-01"), np.timedelta64(3, "s"), np.void(b"abc")),
        *(np.array(["a"]), np.array(["2026-01-01"], dtype="M8[s]"), np.array([None, 1], dtype=object)),
        np.array([(1, 2.0)], dtype="i4,f4"),
    ],
    ids=repr,
)
def test_the_numbers_beside_values_of_numpy_that_are_none_are_read(path, value):
    torch.save({"epoch": 4, "beside": value, "loss": np.float64(0.5)}, path)
    loaded = checkpoint_file.load(path)
    assert (loaded["epoch"], loaded["loss"]) == (4, 0.5)
    assert isinstance(loaded["beside"], checkpoint_file.Foreign)


def test_an_object_array_runs_no_code_of_the_file(path):
    folder = path.with_name("made by the file")
    torch.save({"epoch": 4, "beside": np.array([Code(str(folder))], dtype=object)}, path)
    refused(path)
    assert not folder.exists()


def test_a_deque_is_read_as_a_list(path):
    torch.save({"val_loss_history": deque([0.5, 0.4], maxlen=5), "times": deque([1.0])}, path)
    assert checkpoint_file.load(path) == {"val_loss_history": [0.5, 0.4], "times": [1.0]}


def test_a_path_of_windows_is_read_on_any_machine(path):
    torch.save({"args": {"save_dir": PureWindowsPath("C:/runs"), "lr": 1.0}}, path)
    # As a WindowsPath is written on Windows; the names are of the same length, so the file stays whole.
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in contents if name.endswith("data.pkl"))
    contents[pickled] = contents[pickled].replace(b"PureWindowsPath", b"WindowsPath")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    read = checkpoint_file.load(path)["args"]["save_dir"]
    assert read.kind.endswith(".WindowsPath")
    assert read.parts == PureWindowsPath("C:/runs").__reduce__()[1]


@dataclass
class Flags:
    lr: float


@dataclass(slots=True)
class Slotted:
    lr: float


@pytest.mark.parametrize("make", [dict, SimpleNamespace, argparse.Namespace, Flags, Slotted, partial(defaultdict, int)])
def test_flags_are_a_mapping_in_whatever_object_they_were_kept(path, make):
    torch.save({"args": make(lr=0.5)}, path)
    assert checkpoint_file.mapping(checkpoint_file.load(path)["args"]) == {"lr": 0.5}


@pytest.mark.parametrize("value", [None, "lr", 3, [1], Path("x")], ids=repr)
def test_what_has_no_names_is_no_mapping(path, value):
    torch.save({"args": value}, path)
    assert checkpoint_file.mapping(checkpoint_file.load(path)["args"]) is None


def test_a_refusal_says_what_is_in_the_file_and_not_how_to_run_it(path):
    torch.save({"epoch": 1, "args": Code("x")}, path)
    message = refused(path)
    assert f"{os.mkdir.__module__}.mkdir" in message
    assert "weights_only" not in message


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), ("0.5", 0.5), (torch.tensor(0.5), 0.5), (None, None), ("n/a", None), (10**400, None), ([1], None)],
)
def test_a_number_is_one_value_or_nothing(value, number):
    assert checkpoint_file.number(value) == number
    assert checkpoint_file.number(torch.zeros(2)) is None
