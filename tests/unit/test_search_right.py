"""The right to search in a SQLite file, which one process has."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from face3d_tune.errors import StorageError
from face3d_tune.storage import search_right
from face3d_tune.storage.database import Storage


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(search_right, "_SOFT_WAIT", 0.05)


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_flock(request, monkeypatch):
    """A file system that knows no locks, in the words of three of them."""
    if sys.platform == "win32":
        pytest.skip("Windows always has locks")

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", refuse)


def search_in(path):
    with Storage.parse(f"sqlite:///{path}").searching():
        return True


def error_of(path):
    with pytest.raises(StorageError) as caught:
        search_in(path)
    return caught.value


def test_the_lock_names_the_process_that_holds_it(tmp_path):
    with Storage.parse(f"sqlite:///{tmp_path / 'x.db'}").searching():
        error = error_of(tmp_path / "x.db")
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert error.message.endswith(f": another `face3d-tune run` is searching in this file ({me})")
    assert "remove" not in f"{error.message} {error.hint}"  # the system lets go of it by itself


def test_without_locks_two_searches_still_keep_each_other_out(tmp_path, no_flock):
    with Storage.parse(f"sqlite:///{tmp_path / 'x.db'}").searching():
        error = error_of(tmp_path / "x.db")
    lock = tmp_path / "x.db.lock"
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert error.message.endswith(f"searching in this file ({me}; if it no longer runs, remove {lock})")
    assert not lock.exists()
    assert search_in(tmp_path / "x.db")


def test_a_lock_left_behind_by_a_dead_process_of_this_machine_is_taken_over(tmp_path, no_flock, monkeypatch):
    monkeypatch.setattr(search_right, "_SOFT_WAIT", 30.0)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "x.db.lock").write_text(f"{dead.pid}\n{socket.gethostname()}\n")
    assert search_in(tmp_path / "x.db")


@pytest.mark.parametrize(
    ("left", "who"), [("7\nother-machine\n", "process 7 on other-machine"), ("", "which process is not recorded")]
)
def test_a_lock_left_behind_elsewhere_is_named_with_how_to_remove_it(tmp_path, no_flock, left, who):
    lock = tmp_path / "x.db.lock"
    lock.write_text(left)
    error = error_of(tmp_path / "x.db")
    assert error.message.endswith(f"searching in this file ({who}; if it no longer runs, remove {lock})")
    assert error.__cause__.__class__.__mro__[1] is TimeoutError  # `copy` knows it by that
    lock.unlink()
    assert search_in(tmp_path / "x.db")


def test_an_old_filelock_that_refuses_such_a_file_system_is_helped(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(search_right.FileLock, "acquire", refuse)
    assert search_in(tmp_path / "x.db")
