"""One process of a user's script: its start, its output, its end."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

import psutil

from face3d_tune.script.running import supervisor
from face3d_tune.script.running.log import Log
from face3d_tune.script.running.output_text import OutputText
from face3d_tune.script.running.supervisor import CANNOT_START as CANNOT_START
from face3d_tune.script.running.supervisor import KILLED, START, TRIAL

GRACE = 5.0  # seconds from TERM to KILL

_BEATS = 5.0  # seconds between two heartbeats at most
_LOOK = 0.02  # seconds between two looks at what must end
_LAST = 64 * 1024  # bytes of the output in memory, for a diagnosis
_PATIENCE = 15.0  # seconds for a supervisor to end what it kills
_UPDATES = 20  # of a progress bar that are read of those that come at once, first and last
_DRAINING = 1.0  # seconds for the last of the output, if a process that nothing could end keeps the pipe open


def sweep(key: str, grace: float = GRACE) -> tuple[str, ...]:
    """End every process on this machine that belongs to the trial `key`; return their command lines.

    So at most one copy of a trial runs, whatever died: call it before a trial starts.
    """
    processes = supervisor.marked(TRIAL, key)
    lines = supervisor.described(processes)
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    until = time.monotonic() + grace
    while supervisor.running(processes) and time.monotonic() < until:
        time.sleep(_LOOK)
    supervisor.kill(partial(supervisor.marked, TRIAL, key))
    return tuple(lines)


def sweep_orphans() -> None:
    """Kill what is left on this machine of trials whose worker and supervisor were both killed."""
    supervisor.kill(supervisor.orphaned)


class ScriptProcess:
    """A script in training, under a supervisor that ends it if this process dies or stops.

    A thread reads the output, so the script never waits for a busy worker.

    Args:
        command: The program and its arguments.
        cwd: The folder to start in.
        environment: All of the script's environment.
        key: Of the trial; marks every process that the script starts.
        log: The file to which the output is appended, see `log`.
        hear: Takes the output in pieces of any length, the last at its end, perhaps empty; called in another thread.
        silence: Seconds without a heartbeat of this process after which the script is ended.
        grace: Seconds from TERM to KILL.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        key: str,
        log: Path,
        hear: Callable[[str], None],
        silence: float = 60.0,
        grace: float = GRACE,
    ) -> None:
        self.strays: tuple[str, ...] = ()  # command lines of processes that outlived the script, and were ended
        self._hear, self._log, self._last = hear, Log(log), bytearray()
        self._error: Exception | None = None
        self._code: int | None = None
        self._closing, self._sending = threading.Lock(), threading.Lock()
        self._silence, self._grace = silence, grace
        self._start = uuid.uuid4().hex
        marks = {TRIAL: key, START: self._start}
        # By its path: `-m` would import whatever is called face3d_tune in the folder that this process works in.
        self._supervisor = subprocess.Popen(
            [sys.executable, "-P", supervisor.__file__],
            env={**os.environ, **marks},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the worker, which decides what ends
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        limits = {"silence": silence, "grace": grace, "linger": supervisor.LINGER}
        order = {"command": list(command), "cwd": str(cwd), **limits}
        self._orders, self._reports = _pipe(self._supervisor.stdin), _pipe(self._supervisor.stdout)
        with suppress(OSError):  # it has died, which `poll` notices
            self._orders.write(json.dumps({**order, "environment": {**environment, **marks}}).encode() + b"\n")
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(_pipe(self._supervisor.stderr),), daemon=True)
        self._reader.start()
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def output(self) -> str:
        """Return the last part of the output."""
        return bytes(self._last).decode(errors="replace")

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the script or anything that it started runs.

        Raises what `hear` raised.
        """
        if self._code is None and self._supervisor.poll() is not None:
            self._close()
        if self._error is not None:
            raise self._error
        return self._code

    def end(self) -> None:
        """End the script and all that it started: TERM, then KILL after the grace; return when nothing is left."""
        self._send_no_more()
        try:
            self._supervisor.wait(2 * self._grace + _PATIENCE)
        except subprocess.TimeoutExpired:  # something stopped it
            self._supervisor.kill()
            self._supervisor.wait()
        self._close()

    def _beat(self) -> None:
        """Send heartbeats until the end."""
        while not self._ended.wait(min(_BEATS, self._silence / 4)):
            with self._sending, suppress(OSError):  # the supervisor has ended
                if not self._orders.closed:
                    self._orders.write(b".")

    def _send_no_more(self) -> None:
        """Close the pipe to the supervisor, never during a write: another file may get its number at once."""
        self._ended.set()
        with self._sending, suppress(OSError):
            self._orders.close()

    def _read(self, pipe: IO[bytes]) -> None:
        """Read the output until its end."""
        lines = OutputText()
        with pipe, self._log:
            while data := pipe.read(64 * 1024):
                self._take(lines.add(data))
            self._take(lines.end())
            self._tell("")  # the output has ended, and so perhaps the script

    def _take(self, text: str) -> None:
        """Log and tell a piece of the output."""
        if not text:
            return
        data = text.encode()
        self._log.write(data)
        self._last += data
        del self._last[:-_LAST]
        self._tell(_thinned(text))

    def _tell(self, text: str) -> None:
        if self._error is None:
            try:
                self._hear(text)
            except Exception as error:  # a script that nothing reads would wait for ever
                self._error = error

    def _close(self) -> None:
        """Take the report of a supervisor that has ended; one that was killed leaves none, but perhaps processes."""
        with self._closing:
            if self._code is not None:
                return
            self._send_no_more()
            with self._reports:
                report = self._reports.read()
            try:
                told = json.loads(report)
            except ValueError:
                told = {"code": KILLED, "strays": []}
                # Not by the trial's key: another worker may run it by now.
                supervisor.kill(partial(supervisor.marked, START, self._start))
            self._reader.join(_DRAINING)
            self.strays = tuple(told["strays"])
            self._code = int(told["code"])


def _thinned(text: str) -> str:
    """Leave out updates of a progress bar, of hundreds that came at once: reading them would hold up the script."""
    pieces = text.split("\r")
    if len(pieces) <= 2 * _UPDATES:
        return text
    few = (*range(_UPDATES), *range(len(pieces) - _UPDATES, len(pieces)))
    return "\r".join(piece for number, piece in enumerate(pieces) if number in few or "\n" in piece)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
