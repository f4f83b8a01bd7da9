"""A SQLite file that others keep locked, and the lock of the process that searches in it."""

import errno
import os
import socket
import sqlite3
import subprocess
import sys

import optuna
import pytest
from command_line import call
from stored_study import our_study

from face3d_tune.errors import StorageError
from face3d_tune.storage import sqlite_file
from face3d_tune.storage.database import Storage


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(sqlite_file, "_last_line", -sqlite_file._SAY_EVERY)
    monkeypatch.setattr(sqlite_file, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(sqlite_file, "_SOFT_WAIT", 0.3)


@pytest.fixture
def holder(tmp_path):
    """A database with a study, and a connection that keeps it locked until it rolls back."""
    with Storage.parse(f"sqlite:///{(tmp_path / 'face3d_tune.db').as_posix()}").opened(create=True) as opened:
        our_study(opened, "default")
    connection = sqlite3.connect(tmp_path / "face3d_tune.db", isolation_level=None, check_same_thread=False)
    connection.execute("begin exclusive")
    yield connection
    connection.close()


def test_a_command_says_at_once_that_the_file_is_locked_and_goes_on_when_it_is_free(holder, tmp_path, monkeypatch):
    said = sqlite_file._say

    def let_go(line):
        said(line)
        if holder.in_transaction:
            holder.rollback()

    monkeypatch.setattr(sqlite_file, "_say", let_go)
    answer = call("status", cwd=tmp_path)
    assert answer.code == 0
    line = "storage sqlite:///face3d_tune.db is locked by another program; waiting, 60 s at most"
    assert answer.err.splitlines() == [line]
    assert "study    default" in answer.out


def test_it_says_so_in_chinese_too(holder, tmp_path, monkeypatch):
    said = sqlite_file._say
    monkeypatch.setattr(sqlite_file, "_say", lambda line: (said(line), holder.in_transaction and holder.rollback()))
    answer = call("status", "--lang", "zh", cwd=tmp_path)
    assert answer.err == "存储 sqlite:///face3d_tune.db 被别的程序锁住；正在等待，最多 60 秒\n"


def test_after_a_while_it_gives_up_and_says_what_to_close(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "_WAIT", 0.2)
    monkeypatch.setattr(sqlite_file, "_SAY_EVERY", 0.05)
    answer = call("status", cwd=tmp_path)
    assert answer.code == 2
    *waiting, error, hint = answer.err.splitlines()
    assert len(waiting) >= 2
    assert error == "error: storage sqlite:///face3d_tune.db cannot be reached: database is locked"
    assert hint == "hint: close what has the file open (a database viewer, a backup, a copy), and try again"


def test_a_write_that_waited_is_written_once(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "_say", lambda line: holder.in_transaction and holder.rollback())
    with Storage.parse(f"sqlite:///{tmp_path / 'face3d_tune.db'}").opened() as opened:
        holder.in_transaction or holder.execute("begin exclusive")
        study = optuna.load_study(study_name="default", storage=opened)
        study.enqueue_trial({"lr": 1e-3})
        assert len(study.trials) == 1


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


def test_a_lock_left_behind_by_a_dead_process_of_this_machine_is_taken_over(tmp_path, no_flock):
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

    monkeypatch.setattr(sqlite_file.FileLock, "acquire", refuse)
    assert search_in(tmp_path / "x.db")
