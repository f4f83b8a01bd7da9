"""Calling the program as a user types it: in this process where that is enough, in a process of its own where not."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from forked import Run

import face3d_tune
from face3d_tune.cli import language
from face3d_tune.cli.main import main

# Environment variables of the person who runs the tests, which must not change them.
THEIRS = ("FACE3D_TUNE_", "FORCE_COLOR", "NO_COLOR", "TTY_", "COLUMNS")
OURS = {"FACE3D_TUNE_ENGINE": "plain", "FACE3D_TUNE_ARTIFACTS": "none", "FACE3D_TUNE_LANG": "en"}  # as in conftest


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def call(*words: object, cwd: Path, **environment: str) -> Answer:
    """Run `face3d-tune WORDS` in the folder `cwd`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(THEIRS)}
    with (
        mock.patch.dict(os.environ, {**clean, **OURS, **environment}, clear=True),
        mock.patch.object(language, "_chosen", "en"),  # no later test speaks the language of this command
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as ending:
            code = ending.code
    return Answer(code, out.getvalue(), err.getvalue())


def environment(settings: dict[str, str] = OURS, **more: str) -> dict[str, str]:
    """What a process gets that is started: nothing of the person's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(THEIRS)}
    kept |= {"FACE3D_TUNE_LANG": "en"} | settings
    kept["PYTHONPATH"] = str(Path(face3d_tune.__file__).parent.parent)  # also where it is not installed
    kept["PYTHONUNBUFFERED"] = "1"
    return {**kept, **more}


def start(
    *words: object, cwd: Path, start_new_session: bool = False, first: tuple | None = None
) -> Run | subprocess.Popen:
    """Start `face3d-tune WORDS` in a process of its own, with its output in pipes; `first` is as in `Run`."""
    if not hasattr(os, "fork"):  # Windows
        return start_honestly(*words, cwd=cwd)
    return Run(words, cwd=cwd, env=environment(), start_new_session=start_new_session, first=first)


def start_honestly(*words: object, cwd: Path, **options: object) -> subprocess.Popen:
    """The same by a Python that has loaded nothing: seconds, for the tests which are about that."""
    command = [sys.executable, "-W", "error", "-m", "face3d_tune", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    return subprocess.Popen(command, cwd=cwd, env=environment(), **pipes, **options)
