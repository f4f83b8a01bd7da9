"""The program between a worker and a script: it ends the script, and all that it started, whenever the worker dies.

A worker starts this file by its path, so it imports nothing of the package and starts in well under 0.1 s. It reads one
JSON line from stdin, the order, and then a byte now and then, the worker's heartbeats. The script's output goes to
stderr. At the end one JSON line, the report, goes to stdout.

Nothing outlives the script: on Linux this program adopts the orphans of its descendants, so that a daemon cannot get
away, and the script dies with it. Elsewhere descendants are found by the marks in their environment.
"""

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import psutil

TRIAL, START = "FACE3D_TUNE_TRIAL", "FACE3D_TUNE_START"  # marks: which trial, and which start of it
CANNOT_START = 127  # the exit code of a script that could not be started, as a shell has it
KILLED = -9

LINGER = 1.0  # seconds for what a script started to follow it
_LATE = 1.0  # seconds by which a look or an exit code may be late
_LOOK = 0.05  # seconds between two looks at what is left
_KILLING = 10.0  # seconds after which a process that even SIGKILL does not end is left to the system
_MOST_STRAYS, _LONGEST = 20, 200  # a report fits into a pipe that nothing reads yet
_DIE_WITH_PARENT, _ADOPT = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER of <linux/prctl.h>

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

News = tuple[Literal["heartbeat", "end", "code"], int]  # the number is the script's exit code


def _marks(name: str) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the processes with a mark in their environment, and the mark, without this one and its ancestors."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            if process.pid not in mine and (value := process.environ().get(name)) is not None:
                yield process, value


def marked(name: str, value: str) -> list[psutil.Process]:
    """Find the processes with that mark."""
    return [process for process, its in _marks(name) if its == value]


def orphaned() -> list[psutil.Process]:
    """Find what is left of trials whose worker and supervisor were killed."""
    marks = list(_marks(START))
    supervised = set()
    for process, start in marks:
        with suppress(psutil.Error, IndexError):
            if os.path.basename(process.cmdline()[-1]) == os.path.basename(__file__):  # of whichever installation
                supervised.add(start)
    return [process for process, start in marks if start not in supervised]


def kill(find: Callable[[], list[psutil.Process]]) -> None:
    """Kill what `find` finds until it finds nothing: a process may start another one before its end."""
    until = time.monotonic() + _KILLING
    while (processes := find()) and time.monotonic() < until:
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_LOOK / 5)  # no `wait_procs`: it would take the exit codes of this program's children


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended; one whose parent is stopped stays a zombie for long."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def described(processes: Iterable[psutil.Process]) -> list[str]:
    """Return the command lines of processes, those that have not ended."""
    lines = []
    for process in processes:
        with suppress(psutil.Error):
            lines.append((" ".join(process.cmdline()) or process.name())[:_LONGEST])
    return lines[:_MOST_STRAYS]


def _prctl(option: int, value: int) -> bool:
    return _LIBC is not None and _LIBC.prctl(option, value, 0, 0, 0) == 0


def _die_with(supervisor: int) -> None:
    """Let the kernel kill this process with the supervisor; runs in the script's process, before the script."""
    _prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before that call
        os._exit(CANNOT_START)


class _Supervised:
    """A script and all that it started."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._adopting = _prctl(_ADOPT, 1)
        self._start, self._linger = order["environment"][START], order["linger"]
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "linux":
            options["preexec_fn"] = partial(_die_with, os.getpid())
        elif sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._script = subprocess.Popen(
            order["command"],
            cwd=order["cwd"],
            env=order["environment"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            **options,
        )
        threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self) -> None:
        """Wait for the script, and for the orphans that this process adopted."""
        if not hasattr(os, "WNOHANG"):  # Windows
            self.news.put(("code", self._script.wait()))
            return
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == self._script.pid:
                    self._script.returncode = os.waitstatus_to_exitcode(status)
                    self.news.put(("code", self._script.returncode))

    def left(self) -> list[psutil.Process]:
        """Find what still runs."""
        found = {process.pid: process for process in psutil.Process().children(recursive=True)}
        if not self._adopting:
            found |= {process.pid: process for process in marked(START, self._start)}
        return running(found.values())

    def ask_to_end(self) -> None:
        """Send TERM to the script's process group, and to what left it."""
        if hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self._script.pid, signal.SIGTERM)
        for process in self.left():
            with suppress(psutil.Error, OSError):
                if not hasattr(os, "getpgid") or os.getpgid(process.pid) != self._script.pid:
                    process.terminate()

    def linger(self) -> None:
        """Wait for what the script leaves behind."""
        self.wait(self._linger)

    def wait(self, seconds: float) -> None:
        """Wait until nothing is left; what the script leaves behind gets less time than the script."""
        until = time.monotonic() + seconds
        followed = False
        while self.left() and time.monotonic() < until:
            if self._script.returncode is not None and not followed:
                followed, until = True, min(until, time.monotonic() + self._linger)
            time.sleep(_LOOK)


def _supervise(script: _Supervised, silence: float, grace: float) -> dict[str, Any]:
    """Wait until a script ends or must end, and end it; return the report: its exit code, and its strays."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if name in signal.Signals.__members__:
            signal.signal(signal.Signals[name], lambda *_: script.news.put(("end", 0)))
    threading.Thread(target=_listen, args=(script.news,), daemon=True).start()
    code = _until_its_end(script.news, silence)
    strays: list[str] = []
    if code is None:
        script.ask_to_end()
        script.wait(grace)
    elif script.left():
        script.linger()
        if strays := described(script.left()):
            script.ask_to_end()
            script.wait(grace)
    kill(script.left)
    with suppress(queue.Empty):
        while code is None:
            what, number = script.news.get(timeout=_LATE)
            code = number if what == "code" else None
    return {"code": KILLED if code is None else code, "strays": strays}


def _until_its_end(news: "queue.SimpleQueue[News]", silence: float) -> int | None:
    """Wait for the script's exit code; None if the worker wants its end, died, or gave no heartbeat for `silence` s."""
    while True:
        asked = time.monotonic()
        try:
            what, number = news.get(timeout=silence)
        except queue.Empty:
            if time.monotonic() - asked < silence + _LATE:
                return None
            continue  # this process was stopped itself, so the worker may have been as well: wait anew
        if what != "heartbeat":
            return number if what == "code" else None


def _listen(news: "queue.SimpleQueue[News]") -> None:
    """Pass on heartbeats until the worker closes the pipe or dies."""
    with suppress(OSError):
        while os.read(0, 64):
            news.put(("heartbeat", 0))
    news.put(("end", 0))


def _order() -> dict[str, Any] | None:
    """Read the order; None if the worker died before it was sent."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1 << 16)
        if not byte:
            return None
        line += byte
        line = line if b"\n" not in line else line[: line.index(b"\n") + 1]  # a heartbeat may follow
    order: dict[str, Any] = json.loads(line)
    return order


def main() -> None:
    """Serve one order."""
    order = _order()
    if order is None:
        return
    try:
        script = _Supervised(order)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        named = getattr(error, "filename", None) or order["command"][0]
        os.write(2, f"cannot start {named}: {getattr(error, 'strerror', None) or error}\n".encode(errors="replace"))
        report = {"code": CANNOT_START, "strays": []}
    else:
        report = _supervise(script, order["silence"], order["grace"])
    with suppress(OSError):  # the worker has died
        os.write(1, json.dumps(report).encode() + b"\n")
    os._exit(0)  # a thread still waits at stdin


if __name__ == "__main__":
    main()
