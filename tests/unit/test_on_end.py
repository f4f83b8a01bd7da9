"""`run --on-end COMMAND`: what the command finds, and that nothing which it does changes the search."""

import json
import signal
import sys
import time

import psutil
import pytest

from face3d_tune.search import on_end
from face3d_tune.search.news import BestSoFar, Ending
from face3d_tune.storage.database import Storage
from face3d_tune.study.objective import COSINE

PLACE = Storage.parse("postgresql://me:tops3cret@127.0.0.1/db")
ENDING = Ending(
    "faces", PLACE, "host:7", "target", "the target 0.6 is reached", 0, BestSoFar(COSINE, (0.625, 3), None, 5)
)


@pytest.fixture
def python(tmp_path):
    """A command that runs this Python code, in a file."""

    def command(code):
        (tmp_path / "code.py").write_text(code, encoding="utf-8")
        return f'"{sys.executable}" "{tmp_path / "code.py"}"'

    return command


def test_the_command_finds_the_facts_in_its_environment_and_no_password(python, tmp_path):
    notes, path = [], tmp_path / "found"
    code = f"import json, os; json.dump(dict(os.environ), open({str(path)!r}, 'w'))"
    on_end.run(python(code), ENDING, notes.append)
    found = json.loads(path.read_text())
    assert {name: value for name, value in found.items() if name.startswith("FACE3D_TUNE_END_")} == {
        "FACE3D_TUNE_END_STUDY": "faces",
        "FACE3D_TUNE_END_STORAGE": "postgresql+psycopg://me:***@127.0.0.1/db",
        "FACE3D_TUNE_END_RESULT": "target",
        "FACE3D_TUNE_END_WHY": "the target 0.6 is reached",
        "FACE3D_TUNE_END_VALUE": "0.625",
        "FACE3D_TUNE_END_TRIAL": "3",
        "FACE3D_TUNE_END_FINISHED": "5",
        "FACE3D_TUNE_END_EXIT_CODE": "0",
    }
    assert notes == []


def test_what_is_not_known_is_empty():
    facts = on_end.facts(Ending("faces", PLACE, "host:7", "failed", "gone", 1))
    names = ("VALUE", "TRIAL", "FINISHED", "EXIT_CODE")
    assert [facts[f"FACE3D_TUNE_END_{name}"] for name in names] == ["", "", "", "1"]


def test_a_failure_of_the_command_is_a_line_without_the_command():
    notes = []
    on_end.run("exit 3", ENDING, notes.append)
    on_end.run("echo \0", ENDING, notes.append)
    assert notes == [
        "the command of --on-end failed with exit code 3",
        "the command of --on-end could not be started: ValueError",
    ]


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(python, tmp_path):
    file = tmp_path / "pid"
    sleep = f"[{sys.executable!r}, '-c', 'import time; time.sleep(600)']"
    code = (
        f"import subprocess, time; p = subprocess.Popen({sleep}); open({str(file)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    notes = []

    class Patient(on_end.subprocess.Popen):
        def wait(self, timeout=None):
            while timeout is not None and not (file.exists() and file.read_text()):
                time.sleep(0.01)
            return super().wait(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_end.subprocess, "Popen", Patient)
        on_end.run(python(code), ENDING, notes.append, limit=0.01)
    assert notes == ["the command of --on-end was ended after 0.01 s"]
    pid = int(file.read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_command_that_ctrl_c_interrupts_is_ended(monkeypatch):
    started, notes = [], []

    class Interrupted(on_end.subprocess.Popen):
        def wait(self, timeout=None):
            started.append(self)
            if timeout is not None:
                signal.raise_signal(signal.SIGINT)
            return super().wait(timeout)

    monkeypatch.setattr(on_end.subprocess, "Popen", Interrupted)
    on_end.run("sleep 600", ENDING, notes.append, limit=600.0)
    assert notes == ["the command of --on-end was interrupted"]
    assert not psutil.pid_exists(started[0].pid)
