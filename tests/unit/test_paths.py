"""`~` in a path, and every place where a person can type one."""

from pathlib import Path

import click
import pytest
from command_line import call
from fake_data import write_data

from face3d_tune.cli.main import cli
from face3d_tune.cli.option_types import HomePath
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.study.study_file import read
from face3d_tune.system.paths import expanded


@pytest.fixture
def home(tmp_path, monkeypatch, quick_study):
    """A home with data and a study file, elsewhere than where commands run."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_data(tmp_path / "data")
    (tmp_path / "work").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("~", "{home}"),
        ("~/x y/z", "{home}/x y/z"),
        ("a/~", "a/~"),
        ("./~", "~"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
    ],
)
def test_a_tilde_at_the_beginning_is_the_home_and_elsewhere_a_tilde(home, typed, path):
    assert expanded(typed) == Path(path.format(home=home.as_posix()))


def test_a_storage_artifacts_and_a_study_file_may_lie_at_home(home):
    assert Storage.parse("sqlite:///~/studies.db").sqlite_file == home / "studies.db"
    assert str(Storage.parse("sqlite:///~/studies.db")) == f"sqlite:///{(home / 'studies.db').as_posix()}"
    Artifacts.parse("~/kept").write("a", b"b")
    assert (home / "kept" / "a").read_bytes() == b"b"
    assert read("~/quick.toml").path == home / "quick.toml"


def test_every_path_that_is_typed_or_set_may_begin_at_home(home):
    work = home / "work"
    variables = {
        "FACE3D_TUNE_DATA_DIR": "~/data",
        "FACE3D_TUNE_STORAGE": "sqlite:///~/studies.db",
        "FACE3D_TUNE_ARTIFACTS": "~/kept",
    }
    searched = call("run", "--study", "~/quick.toml", "--trials", "1", "--epochs", "1", cwd=work, **variables)
    assert searched.code == 0, searched.err
    for line in (
        "doctor",
        "data check",
        "report -o ~/found.html",
        "train --out ~/trained --epochs 1",
        "data sample ~/sample",
    ):
        answer = call(*line.split(), cwd=work, **variables)
        assert answer.code == 0, answer.err + answer.out
    made = ("kept", "studies.db", "found.html", "trained", "sample")
    assert all((home / name).exists() for name in made)
    assert list(work.iterdir()) == []
    assert str(home / "data") in call("export", "--data-dir", "~/data", cwd=work, **variables).out
    for line in ("export --script ~/nowhere.py", "import ~/nowhere.pth"):
        assert str(home / "nowhere.p") in call(*line.split(), cwd=work, **variables).err


def test_every_option_that_takes_a_path_takes_one_from_home():
    waiting, found = [cli], []
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found += [each for each in command.params if isinstance(each.type, click.Path)]
        assert all(each.type.name == "path" for each in command.params if each.metavar in ("DIR", "PATH"))
    assert len(found) >= 15
    assert [each.name for each in found if not isinstance(each.type, HomePath)] == []


def test_the_carriage_return_of_a_file_edited_on_windows_is_no_part_of_a_variable(home):
    variables = {"FACE3D_TUNE_DATA_DIR": f"{home / 'data'}\r", "FACE3D_TUNE_STORAGE": "sqlite:///new.db\r"}
    variables |= {"FACE3D_TUNE_ARTIFACTS": "none\r", "FACE3D_TUNE_ENGINE": "plain\r", "FACE3D_TUNE_SLOTS": "1\r"}
    answer = call(
        "run", "--study", home / "quick.toml", "--trials", "1", "--epochs", "1", cwd=home / "work", **variables
    )
    assert answer.code == 0, answer.err
    assert {path.name for path in (home / "work").iterdir()} == {"new.db", "new.db.lock"}
