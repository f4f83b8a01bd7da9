"""`face3d-tune copy`: every row of a study arrives as it stood, or none does."""

import os
import shutil
import signal
import socket
import sqlite3
import warnings
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
from command_line import call, environment
from conftest import QUICK_STUDY
from forked import Run
from stored import everything, fill, number_of_studies, query, write

from face3d_tune.storage import copy_studies
from face3d_tune.storage.database import Storage


@pytest.fixture(scope="module")
def filled(tmp_path_factory, postgres_server):
    """Storages of each kind that hold the studies of their names: a file, or the name of a database. Only to copy."""
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for names in ("ab", "b"):
            file, url = tmp_path_factory.mktemp("filled") / "studies.db", postgres_server.new_database()
            fill(f"sqlite:///{file.as_posix()}", *names)
            fill(url, *names)
            made |= {("sqlite", names): file, ("postgresql", names): Storage.parse(url).url.database}
    return made


@pytest.fixture(params=[("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "sqlite")], ids="-to-".join)
def kinds(request):
    """The kinds of storage to copy from and to, each way in turn."""
    return request.param


@pytest.fixture
def holding(filled, postgres_server, tmp_path):
    """The URL of a new storage of this kind with the studies of these names."""

    def make(kind, names):
        if kind == "postgresql":
            return postgres_server.new_database(like=filled[kind, names])
        return f"sqlite:///{Path(shutil.copy(filled[kind, names], tmp_path / f'{names}.db')).as_posix()}"

    return make


@pytest.fixture
def source(kinds, holding):
    """A storage with the studies `a` and `b`."""
    return holding(kinds[0], "ab")


@pytest.fixture
def target(kinds, request, tmp_path):
    """An empty one."""
    if kinds[1] == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{(tmp_path / 'to.db').as_posix()}"


@pytest.fixture
def target_with_b(kinds, holding):
    """One that holds a study `b` already."""
    return holding(kinds[1], "b")


def test_a_copy_holds_everything_that_the_study_holds(source, target_with_b, tmp_path):
    target = target_with_b  # so that no id is the same
    before = everything(source, "a")
    assert [trial["state"] for trial in before["trials"]] == [
        repr(state) for state in ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
    ]
    assert all(before.values())
    answer = call("copy", source, target, "--study-name", "a", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.out == f"copied study a: 6 trials, to {Storage.parse(target)}\n"
    assert answer.err.startswith("warning: 1 trial(s) were in training; ")
    assert everything(target, "a") == before == everything(source, "a")
    with Storage.parse(source).opened() as one, Storage.parse(target).opened() as two:
        ours, copied = (optuna.load_study(study_name="a", storage=storage) for storage in (one, two))
        assert [trial.number for trial in copied.trials] == list(range(6))
        for trial, other in zip(ours.trials, copied.trials, strict=True):
            assert repr(trial.distributions) == repr(other.distributions)
            assert trial.params == other.params
        assert copied.ask().number == 5  # the one that waits
        assert copied.ask().number == 6


def test_without_a_name_every_study_is_copied_and_a_round_trip_changes_nothing(source, target, tmp_path):
    back = f"sqlite:///{(tmp_path / 'back.db').as_posix()}"
    for words in ((source, target), (target, back)):
        assert call("copy", *words, cwd=tmp_path).code == 0
    for name in ("a", "b"):
        assert everything(back, name) == everything(source, name)
    assert number_of_studies(back) == number_of_studies(target) == 2


def test_a_name_that_is_taken_stops_the_copy_of_every_study(source, target_with_b, tmp_path):
    target = target_with_b
    before = everything(target, "b")
    answer = call("copy", source, target, cwd=tmp_path)
    assert answer.code == 2
    assert answer.err == (
        f"error: storage {Storage.parse(target)} already holds a study named 'b'\n"
        "hint: nothing was copied; name another storage, or another study with --study-name\n"
    )
    assert number_of_studies(target) == 1
    assert everything(target, "b") == before


def test_a_copy_is_the_state_of_one_moment_whatever_is_written_meanwhile(source, target, monkeypatch):
    before, whole, disturbed = everything(source, "a"), copy_studies._copy_rows, []

    def disturb(reading, writing, table, *rest):
        if table.name == "trials":
            with pytest.raises(sqlite3.OperationalError) if source.startswith("sqlite") else nullcontext():
                write(source, "update trial_user_attributes set value_json = '1'")  # a file makes it wait
            disturbed.append(table)
        return whole(reading, writing, table, *rest)

    monkeypatch.setattr(copy_studies, "_copy_rows", disturb)
    copy_studies.copy(Storage.parse(source), Storage.parse(target))
    assert disturbed
    assert everything(target, "a") == before


def test_a_storage_is_not_copied_onto_itself(sqlite, sqlite_url, tmp_path):
    optuna.create_study(storage=sqlite, study_name="s")
    answer = call("copy", sqlite_url, sqlite_url, cwd=tmp_path)
    assert answer.code == 2
    assert "already holds a study named 's'" in answer.err


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
def test_a_copy_that_is_killed_in_the_middle_leaves_nothing_and_can_be_done_again(source, target, tmp_path):
    fate = ("doomed", "die_copying", {"table": "trial_values"})
    with Run(("copy", source, target), cwd=tmp_path, env=environment(), first=fate) as killed:
        assert killed.wait(timeout=60) == -signal.SIGKILL
    assert number_of_studies(target) == 0
    assert query(target, "select * from trials") == []
    assert call("copy", source, target, cwd=tmp_path).code == 0
    assert everything(target, "b") == everything(source, "b")


def test_a_file_in_which_a_search_runs_is_not_copied_and_the_other_storage_is_not_made(sqlite, sqlite_url, tmp_path):
    optuna.create_study(storage=sqlite, study_name="s")
    with Storage.parse(sqlite_url).searching():
        answer = call("copy", sqlite_url, f"sqlite:///{(tmp_path / 'to.db').as_posix()}", cwd=tmp_path)
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert answer.code == 2
    assert answer.err == (
        f"error: storage {sqlite_url}: another `face3d-tune run` is searching in this file ({me})\n"
        "hint: end it first; Ctrl-C loses nothing\n"
    )
    assert not (tmp_path / "to.db").exists()


def test_what_is_not_there_is_named_and_nothing_is_made(sqlite, sqlite_url, tmp_path):
    target = f"sqlite:///{(tmp_path / 'to.db').as_posix()}"
    missing = call("copy", "sqlite:///typo.db", target, cwd=tmp_path)
    assert missing.code == 2
    assert missing.err.startswith("error: storage sqlite:///typo.db: file does not exist\n")
    optuna.create_study(storage=sqlite, study_name="default")
    mistyped = call("copy", sqlite_url, target, "--study-name", "defualt", cwd=tmp_path)
    assert mistyped.code == 2
    assert "no study named 'defualt'; did you mean 'default'?" in mistyped.err
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(("typo", "to"))]


def test_a_lock_that_cannot_be_written_is_said_to_be_the_reason(sqlite, sqlite_url, tmp_path):
    optuna.create_study(storage=sqlite, study_name="s")
    (tmp_path / "studies.db.lock").mkdir()
    answer = call("copy", sqlite_url, "sqlite:///to.db", cwd=tmp_path)
    assert answer.code == 2
    assert f"cannot write {tmp_path / 'studies.db.lock'}" in answer.err


def test_a_storage_without_a_study_has_nothing_to_copy(sqlite, sqlite_url, tmp_path):
    answer = call("copy", sqlite_url, "sqlite:///to.db", cwd=tmp_path)
    assert (answer.code, answer.out) == (0, f"{sqlite_url} holds no study yet: nothing to copy\n")


def test_no_password_is_printed(sqlite, sqlite_url, postgres_url, tmp_path):
    optuna.create_study(storage=sqlite, study_name="s")
    secret = postgres_url.replace("postgres:@", "postgres:tops3cret@").replace("postgres@", "postgres:tops3cret@")
    assert "tops3cret" in secret
    for code in (0, 2):
        answer = call("copy", sqlite_url, secret, cwd=tmp_path)
        assert answer.code == code
        assert "***" in answer.out + answer.err
        assert "tops3cret" not in answer.out + answer.err


def test_a_copied_search_goes_on_where_it_stood(data_folder, tmp_path, postgres_url):
    study = QUICK_STUDY.replace(', "conservative", "quickstart"', "")  # three presets, of which one waits in the end
    (tmp_path / "quick.toml").write_text(study, encoding="utf-8")
    words = ["run", "--data-dir", data_folder, "--study", "quick.toml", "--device", "cpu", "--epochs", "1"]
    assert call(*words, "--trials", "1", cwd=tmp_path).code == 0
    assert call("copy", "sqlite:///face3d_tune.db", postgres_url, cwd=tmp_path).code == 0
    answer = call(*words, "--trials", "2", "--storage", postgres_url, cwd=tmp_path)
    assert answer.code == 0
    assert "1 of 2 trials done" in answer.err
    with Storage.parse(postgres_url).opened() as storage:
        trials = optuna.load_study(study_name="quick", storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2 + ["WAITING"]
