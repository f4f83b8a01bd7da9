"""The command that a person wants to run when a search has ended, whatever ended it."""

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from face3d_tune.search.news import Ending

LIMIT = 600.0  # seconds
_KILLING = 5.0  # seconds for what was killed to be gone
_STDERR = 2  # what the command prints goes there: the standard output may be JSON


def facts(ending: Ending) -> Mapping[str, str]:
    """Return what the command finds in its environment; a fact that is not known is empty."""
    standing = ending.standing
    value, trial = standing.best if standing and standing.best else ("", "")
    told = {
        "STUDY": ending.study,
        "STORAGE": ending.storage,
        "RESULT": ending.result,
        "VALUE": value,
        "TRIAL": trial,
        "FINISHED": standing.finished if standing else "",
        "EXIT_CODE": ending.code,
        "WHY": ending.why,
    }
    return {f"FACE3D_TUNE_END_{name}": str(fact) for name, fact in told.items()}


def run(command: str, ending: Ending, note: Callable[[str], object], limit: float = LIMIT) -> None:
    """Run the command in a shell, and wait for it; a failure of it is only a line for `note`, without the command."""
    try:
        process = subprocess.Popen(
            command, shell=True, env={**os.environ, **facts(ending)}, stdin=subprocess.DEVNULL, stdout=_STDERR
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        note(f"the command of --on-end could not be started: {why}")
        return
    try:
        if code := process.wait(limit):
            note(f"the command of --on-end failed with exit code {code}")
    except subprocess.TimeoutExpired:
        _kill(process)
        note(f"the command of --on-end was ended after {limit:g} s")
    except KeyboardInterrupt:
        _kill(process)
        note("the command of --on-end was interrupted")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the shell and all that it started."""
    with suppress(psutil.Error):
        shell = psutil.Process(process.pid)
        processes = [*shell.children(recursive=True), shell]
        for each in processes:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(processes, timeout=_KILLING)
    process.wait()
