"""How a child starts: safe from the ending signals, and from files of the user that Python would import as its own."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import TYPE_CHECKING

from face3d_tune.executor import child
from face3d_tune.system import signals

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # Windows has only the second

_starting = threading.Lock()  # what a child inherits is changed in the whole process while it starts


def context() -> "ForkServerContext | SpawnContext":
    """Choose how children start: forked from a server process with only torch loaded; on Windows, from scratch.

    A fork of this process itself would inherit half of torch's threads, and CUDA.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload([child.__name__, "torch._dynamo"])  # torch loads the latter for its first optimiser
    return chosen


def start(process: BaseProcess) -> None:
    """Start a process of `context`."""
    with _starting, _safe_path(), _signals_blocked(), _without_main():
        process.start()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the ending signals: a child inherits the block, and receives none before it can handle it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
    try:
        resource_tracker.ensure_running()  # else a closing terminal kills it; the call unblocks some signals
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let Python start without the current folder on its path: a `signal.py` there would be imported for Python's own.

    Only in the block: a user's script may rely on its folder.
    """
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module: a child would import it, and so run a program again that starts a search unguarded."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
