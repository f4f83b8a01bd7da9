"""`face3d-tune copy`: every row of a study arrives as it stood, or none does."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
from command_line import call
from stored import everything, fill, number_of_studies, query, write

import face3d_tune
from face3d_tune.storage import copy_studies
from face3d_tune.storage.database import Storage

DIES = """
import os, signal, sys
from face3d_tune.storage import copy_studies
from face3d_tune.storage.database import Storage
whole = copy_studies._copy_rows
def until(reading, writing, table, *rest):
    if table.name == "trial_values":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(reading, writing, table, *rest)
copy_studies._copy_rows = until
copy_studies.copy(*map(Storage.parse, sys.argv[1:]))
"""


@pytest.fixture
def two_urls(request, tmp_path):
    """Storages of the kinds that the test names, the first to copy from; the second one is empty."""
    kinds = request.param.split("-to-")
    files = iter(("from.db", "to.db"))
    return [
        request.getfixturevalue("postgres_url")
        if kind == "postgresql"
        else f"sqlite:///{(tmp_path / next(files)).as_posix()}"
        for kind in kinds
    ]


EVERY_WAY = pytest.mark.parametrize(
    "two_urls", ["sqlite-to-sqlite", "sqlite-to-postgresql", "postgresql-to-sqlite"], indirect=True
)


@EVERY_WAY
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_copy_holds_everything_that_the_study_holds(two_urls, tmp_path):
    source, target = two_urls
    fill(source, "other", "mine")
    fill(target, "theirs")  # so that no id is the same
    before = everything(source, "mine")
    assert [trial["state"] for trial in before["trials"]] == [
        repr(state) for state in ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
    ]
    assert all(before.values())
    answer = call("copy", source, target, "--study-name", "mine", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.out == f"copied study mine: 6 trials, to {Storage.parse(target)}\n"
    assert answer.err.startswith("warning: 1 trial(s) were in training; ")
    assert everything(target, "mine") == before == everything(source, "mine")
    with Storage.parse(source).opened() as one, Storage.parse(target).opened() as two:
        ours, copied = (optuna.load_study(study_name="mine", storage=storage) for storage in (one, two))
        assert [trial.number for trial in copied.trials] == list(range(6))
        for trial, other in zip(ours.trials, copied.trials, strict=True):
            assert repr(trial.distributions) == repr(other.distributions)
            assert trial.params == other.params
        assert copied.ask().number == 5  # the one that waits
        assert copied.ask().number == 6


@EVERY_WAY
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_without_a_name_every_study_is_copied_and_a_round_trip_changes_nothing(two_urls, tmp_path):
    source, target = two_urls
    fill(source, "a", "b")
    back = f"sqlite:///{(tmp_path / 'back.db').as_posix()}"
    for words in ((source, target), (target, back)):
        assert call("copy", *words, cwd=tmp_path).code == 0
    for name in ("a", "b"):
        assert everything(back, name) == everything(source, name)
    assert number_of_studies(back) == number_of_studies(target) == 2


@EVERY_WAY
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_name_that_is_taken_stops_the_copy_of_every_study(two_urls, tmp_path):
    source, target = two_urls
    fill(source, "a", "taken")
    fill(target, "taken")
    before = everything(target, "taken")
    answer = call("copy", source, target, cwd=tmp_path)
    assert answer.code == 2
    assert answer.err == (
        f"error: storage {Storage.parse(target)} already holds a study named 'taken'\n"
        "hint: nothing was copied; name another storage, or another study with --study-name\n"
    )
    assert number_of_studies(target) == 1
    assert everything(target, "taken") == before


@EVERY_WAY
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_copy_is_the_state_of_one_moment_whatever_is_written_meanwhile(two_urls, monkeypatch):
    source, target = two_urls
    fill(source, "s")
    before, whole, disturbed = everything(source, "s"), copy_studies._copy_rows, []

    def disturb(reading, writing, table, *rest):
        if table.name == "trials":
            with pytest.raises(sqlite3.OperationalError) if source.startswith("sqlite") else nullcontext():
                write(source, "update trial_user_attributes set value_json = '1'")  # a file makes it wait
            disturbed.append(table)
        return whole(reading, writing, table, *rest)

    monkeypatch.setattr(copy_studies, "_copy_rows", disturb)
    copy_studies.copy(Storage.parse(source), Storage.parse(target))
    assert disturbed
    assert everything(target, "s") == before


def test_a_storage_is_not_copied_onto_itself(sqlite, sqlite_url, tmp_path):
    optuna.create_study(storage=sqlite, study_name="s")
    answer = call("copy", sqlite_url, sqlite_url, cwd=tmp_path)
    assert answer.code == 2
    assert "already holds a study named 's'" in answer.err


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
@EVERY_WAY
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_copy_that_is_killed_in_the_middle_leaves_nothing_and_can_be_done_again(two_urls, tmp_path):
    source, target = two_urls
    fill(source, "a", "b")
    environment = {**os.environ, "PYTHONPATH": str(Path(face3d_tune.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", DIES, source, target], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
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


def test_a_copied_search_goes_on_where_it_stood(data_folder, quick_study, tmp_path, postgres_url):
    words = ["run", "--data-dir", data_folder, "--study", quick_study, "--device", "cpu", "--epochs", "1"]
    assert call(*words, "--trials", "2", cwd=tmp_path).code == 0
    assert call("copy", "sqlite:///face3d_tune.db", postgres_url, cwd=tmp_path).code == 0
    answer = call(*words, "--trials", "3", "--storage", postgres_url, cwd=tmp_path)
    assert answer.code == 0
    assert "2 of 3 trials done" in answer.err
    with Storage.parse(postgres_url).opened() as storage:
        trials = optuna.load_study(study_name="quick", storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3 + ["WAITING"]
