"""`face3d-tune report`, as it is typed."""

import json
import shutil
from pathlib import Path

import optuna
import pytest
from command_line import call
from stored_study import searched, study_of

from face3d_tune.storage.database import Storage


@pytest.fixture(scope="module")
def one_study(tmp_path_factory, sqlite_without_studies):
    """A storage with one study, to be copied."""
    file = Path(shutil.copy(sqlite_without_studies, tmp_path_factory.mktemp("one_study")))
    with Storage.parse(f"sqlite:///{file.as_posix()}").opened() as opened:
        study_of(*searched(), storage=opened)
    return file


@pytest.fixture
def place(one_study, tmp_path):
    """A folder with one study in the default storage."""
    shutil.copy(one_study, tmp_path / "face3d_tune.db")
    return tmp_path


@pytest.fixture
def empty(sqlite_without_studies, tmp_path):
    """The default storage of a folder, without studies."""
    file = Path(shutil.copy(sqlite_without_studies, tmp_path / "face3d_tune.db"))
    with Storage.parse(f"sqlite:///{file.as_posix()}").opened() as opened:
        yield opened


def test_the_only_study_is_written_beside_the_storage(place):
    answer = call("report", cwd=place)
    assert (answer.code, answer.err) == (0, "")
    size = (place / "report-faces.html").stat().st_size
    assert answer.out == f"wrote report-faces.html ({size / 1000:.0f} kB)\n"
    assert size < 3_000_000
    assert sorted(path.suffix for path in place.iterdir()) == [".db", ".html"]


def test_the_ending_of_the_file_chooses_the_form_unless_one_is_named(place):
    for words, begins in (
        (("-o", "a.md"), "# What the search “faces” found"),
        (("-o", "a.json"), '{\n "face3d-tune": "report",'),
        (("-o", "a.txt", "--format", "md", "--lang", "zh"), "# 搜索“faces”的结果"),
        (("-o", "a.htm"), "<!DOCTYPE html>"),
    ):
        assert call("report", *words, cwd=place).code == 0
        assert (place / words[1]).read_text(encoding="utf-8").startswith(begins)


def test_a_dash_is_the_standard_output(place):
    answer = call("report", "faces", "--format", "json", "-o", "-", cwd=place)
    assert json.loads(answer.out)["best"]["cosine"] == 0.7
    assert [path.name for path in place.iterdir()] == ["face3d_tune.db"]


def test_a_report_is_written_over_and_another_file_is_not(place):
    for name in ("r.html", "r.md", "r.json"):
        assert [call("report", "-o", name, cwd=place).code for _ in range(2)] == [0, 0]
    (place / "train_3d.py").write_text("import torch", encoding="utf-8")
    answer = call("report", "-o", "train_3d.py", cwd=place)
    assert (answer.code, answer.err.splitlines()[0]) == (2, "error: train_3d.py exists and is not a report")
    assert (place / "train_3d.py").read_text(encoding="utf-8") == "import torch"
    notes = "# My notes\n\nSearched with face3d-tune: `face3d-tune report -o report.html`\n"
    (place / "README.md").write_text(notes, encoding="utf-8")
    assert call("report", "-o", "README.md", cwd=place).code == 2
    assert (place / "README.md").read_text(encoding="utf-8") == notes  # it speaks of us, and is not ours
    assert call("report", "-o", "train_3d.py", "--force", cwd=place).code == 0


@pytest.mark.parametrize("out", ["missing/report.html", "."])
def test_a_place_that_cannot_be_written_is_named(place, out):
    answer = call("report", "-o", out, cwd=place)
    assert answer.code == 2
    assert answer.err.startswith(f"error: --out {out} cannot be ")
    assert "Traceback" not in answer.err


def test_the_study_is_named_by_argument_or_as_in_other_commands(place):
    assert call("report", "faces", "--study-name", "faces", "-o", "-", cwd=place).code == 0
    assert call("report", "--study-name", "faces", "-o", "-", cwd=place).code == 0
    answer = call("report", "faces", "--study-name", "others", cwd=place)
    assert (answer.code, "two studies named" in answer.err) == (2, True)
    answer = call("report", "face", cwd=place)
    assert (answer.code, "did you mean 'faces'?" in answer.err) == (2, True)


def test_a_study_that_is_not_ours_is_an_error(empty, tmp_path):
    optuna.create_study(study_name="theirs", storage=empty)
    answer = call("report", cwd=tmp_path)
    assert (answer.code, "'theirs' was not made by face3d-tune" in answer.err) == (2, True)


def test_a_name_that_no_file_can_have_is_made_one(empty, tmp_path):
    study_of(name='../a:b?"人脸"', storage=empty)
    answer = call("report", "--lang", "zh", cwd=tmp_path)
    assert answer.out.startswith("已写入 report-.._a_b__人脸_.html")
