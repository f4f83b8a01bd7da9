"""Every error that docs/troubleshooting.md quotes is what the program prints."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import call
from optuna.trial import create_trial
from stored_study import add_trial, our_study

from face3d_tune.storage.database import Storage

PAGE = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
BAD_SCRIPTS = Path(__file__).parent / "scripts" / "habits" / "bad"
MISSPELT = """
[script]
path = "writes_beside_itself.py"
metric = "val_cosine"
source = "printed"
direction = "maximize"
[space]
lrr = { low = 0.01, high = 1.0, scale = "log" }
"""
QUOTED = re.findall(r"^    \$ face3d-tune (.+)\n((?:    (?:error|hint): .+\n)+)", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A study of two trials, and a third that was added by hand."""
    file = tmp_path_factory.mktemp("stored") / "face3d_tune.db"
    with Storage.parse(f"sqlite:///{file.as_posix()}").opened(create=True) as opened:
        study = our_study(opened, "default")
        add_trial(study, "COMPLETE", [0.5])
        add_trial(study, "COMPLETE", [0.6])
        study.add_trial(create_trial(value=0.9))
    return file


@pytest.fixture
def place(tmp_path, stored):
    """A folder with this study in the default storage, scripts that no search can train, and a misspelt study file."""
    shutil.copy(stored, tmp_path)
    for script in BAD_SCRIPTS.glob("*.py"):
        shutil.copy(script, tmp_path)
    (tmp_path / "misspelt.toml").write_text(MISSPELT, encoding="utf-8")
    return tmp_path


def test_the_page_quotes_errors():
    assert len(QUOTED) >= 9
    assert PAGE.count("    $ face3d-tune") == len(QUOTED)


@pytest.mark.parametrize(("words", "said"), QUOTED)
def test_an_error_in_the_documentation_is_what_the_program_prints(place, words, said):
    answer = call(*shlex.split(words), cwd=place)
    assert answer.code == 2
    assert answer.err.splitlines()[-2:] == [line.strip() for line in said.splitlines()]
