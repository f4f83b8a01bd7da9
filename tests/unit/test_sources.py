"""The files that a script consists of, and whether they changed."""

import hashlib

import pytest

from face3d_tune.errors import ExportError
from face3d_tune.script.sources import changed, hashes, imported


@pytest.fixture
def project(tmp_path):
    """A script in a folder, with modules beside it and in the folder above."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__of__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "training" / "train.py"

    return write


def names(script):
    return sorted(path.relative_to(script.parent.parent).as_posix() for path in imported(script))


def test_modules_beside_the_script_and_above_are_found_and_what_they_import(project):
    script = project(
        training__of__train="import os, torch\nimport losses\nfrom models.faces import Model\n",
        training__of__losses="from shapes import cube\n",
        training__of__shapes="import losses\n",  # a circle
        training__of__unused="",
        models__of____init__="",
        models__of__faces="from . import parts\nfrom .heads import Head\nfrom ..elsewhere import x\n",
        models__of__parts="",
        models__of__heads="",
    )
    assert names(script) == [
        *("models/__init__.py", "models/faces.py", "models/heads.py", "models/parts.py"),
        *("training/losses.py", "training/shapes.py"),
    ]


def test_the_folder_of_the_script_comes_before_the_one_above(project):
    script = project(training__of__train="import losses", training__of__losses="", losses="")
    assert names(script) == ["training/losses.py"]


def test_an_import_inside_a_function_counts_and_a_broken_file_imports_nothing(project):
    script = project(training__of__train="def f():\n    import losses", training__of__losses="print 'x'")
    assert names(script) == ["training/losses.py"]


def test_a_hash_is_the_sha256_of_the_file_by_its_path_from_the_script(project):
    script = project(training__of__train="import losses, shared", training__of__losses="a = 1", shared="b = 2")
    expected = {"train.py": "import losses, shared", "losses.py": "a = 1", "../shared.py": "b = 2"}
    assert hashes(script) == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in expected.items()}


def test_a_script_that_is_not_python_is_refused(project):
    with pytest.raises(ExportError, match="is not Python: line 1"):
        hashes(project(training__of__train="print 'x'"))


def test_a_package_may_lack_its_init_and_what_it_imports_may_be_a_name(project):
    script = project(
        training__of__train="import models\nimport plain.parts\nfrom models import Face\nfrom plain import gone\n",
        models__of____init__="class Face: pass",
        models__of__other="",
        plain__of__parts="",
    )
    assert names(script) == ["models/__init__.py", "plain/parts.py"]


@pytest.mark.parametrize("text", ["x = " + "-" * 20_000 + "1", "x = a" + ".b" * 20_000])
def test_a_script_that_no_parser_can_hold_is_refused(project, text):
    with pytest.raises(ExportError, match=r"train.py is not Python: it nests too deeply"):
        imported(project(training__of__train=text))


def test_changed_names_files_that_differ_are_new_or_are_gone():
    assert changed({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}) == ["b", "c", "d"]
    assert changed({"a": "1"}, {"a": "1"}) == []
