"""A file that is written anew is there whole, the old one or the new one."""

import os
from pathlib import Path

import pytest

from face3d_tune.system.whole_file import replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"old")
    return tmp_path / "file"


def test_the_new_file_is_on_the_disk_before_it_has_the_name(path, monkeypatch):
    steps, fsync, rename = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("fsync"), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda *names: (steps.append("rename"), rename(*names)))
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert steps == ["fsync", "rename"]
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(path, error):
    def fail():
        with replacing(path) as file:
            file.write(b"ha")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_what_a_crash_left_is_overwritten(path):
    path.with_name("file.partial").write_bytes(b"much longer than the new one")
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
