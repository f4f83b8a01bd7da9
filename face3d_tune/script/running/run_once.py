"""A script run once: until it ends, has shown enough or takes too long."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from face3d_tune.script.running.process import ScriptProcess

_LOOK = 0.02  # seconds between two looks at the script


@dataclass(frozen=True, slots=True)
class OneRun:
    """How a script ended.

    Attributes:
        code: Its exit code, negative for a signal; None if it was ended.
        seconds: From its start to its end.
        printed: The last part of its output.
        strays: Command lines of processes that outlived it, and were ended.
    """

    code: int | None
    seconds: float
    printed: str
    strays: tuple[str, ...]


def run_once(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout: float,
    hear: Callable[[str], None] = lambda text: None,
    enough: Callable[[], bool] = lambda: False,
) -> OneRun:
    """Run a script. At `timeout` (seconds), when `enough` says so or on an interrupt, end it with all that it started.

    The other arguments are those of `ScriptProcess`.
    """
    began = time.monotonic()
    process = ScriptProcess(command, cwd=cwd, environment=environment, key=uuid4().hex, log=log, hear=hear)
    try:
        while (code := process.poll()) is None and time.monotonic() - began < timeout and not enough():
            time.sleep(_LOOK)  # Windows would delay Ctrl-C until a wait ends
        seconds = time.monotonic() - began
    finally:
        process.end()
    return OneRun(code, seconds, process.output, process.strays)
