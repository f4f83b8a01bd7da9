"""A SQLite file that others keep locked."""

import sqlite3

import optuna
import pytest
from command_line import call
from stored_study import our_study

from face3d_tune.storage import sqlite_file
from face3d_tune.storage.database import Storage


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(sqlite_file, "_last_line", -sqlite_file._SAY_EVERY)
    monkeypatch.setattr(sqlite_file, "_LOOK_EVERY", 0.05)


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
