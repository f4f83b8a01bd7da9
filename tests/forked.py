"""Starts of the program in milliseconds: one process, for all workers of pytest, loads everything and forks for each.

A run is `python -W error -m face3d_tune WORDS` in a process of its own in every other way: it has the folder,
environment, streams and session that it is given, hears signals, and may start processes itself.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing import util
from pathlib import Path
from uuid import uuid4

import memory

ROOT = Path(__file__).parent.parent
LATE = (
    *("face3d_tune.cli.main", "face3d_tune.cli.progress", "face3d_tune.cli.result_tables", "face3d_tune.executor.plan"),
    *("face3d_tune.search.run_search", "face3d_tune.search.trainer_search", "face3d_tune.refit.full_training"),
    *("face3d_tune.dashboard.server", "psycopg", "rich.progress", "rich.status"),
    *("sqlalchemy.dialects.postgresql.psycopg", "tomli_w"),
)


class Run:
    """One run, with as much of `subprocess.Popen` as tests ask for.

    Args:
        words: What follows `face3d-tune`.
        cwd: Its folder.
        env: Its environment.
        streams: Descriptors for its standard input, output and error; by default nothing and two pipes.
        start_new_session: As in `Popen`.
        first: A module, a function of it and its keyword arguments: called in the run before its words.
    """

    def __init__(self, words, *, cwd, env, streams=None, start_new_session=False, first=None):
        self.args, self.returncode, self.stdout, self.stderr = [str(word) for word in words], None, None, None
        given = list(streams or ())
        if not streams:
            (out, their_out), (err, their_err) = os.pipe(), os.pipe()
            given = [os.open(os.devnull, os.O_RDONLY), their_out, their_err]
            self.stdout, self.stderr = open(out, encoding="utf-8"), open(err, encoding="utf-8")  # noqa: SIM115
        told, tell = os.pipe()
        order = {"words": self.args, "cwd": str(cwd), "env": env, "session": start_new_session, "first": first}
        socket.send_fds(_server(), [json.dumps(order).encode() + b"\n"], [*given, tell])
        for descriptor in {tell, *(given if not streams else ())}:
            os.close(descriptor)
        self._told = open(told, encoding="ascii")  # noqa: SIM115 - first its pid, then how it ended
        self.pid = int(self._told.readline())

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        if failure:  # nobody will end it any more
            self.kill()
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.close()
        self.wait()

    def poll(self):
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout=None):
        """The rest of what it prints, when it has ended."""
        with ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                printed = tuple(each.result(timeout) for each in reading)
                self.wait(timeout)
            except (TimeoutError, subprocess.TimeoutExpired):
                self.kill()
                raise subprocess.TimeoutExpired(self.args, timeout) from None
        self.stdout.close()
        self.stderr.close()
        return printed


@cache
def _server():
    """Where orders are sent; the process at the other end lives as long as somebody can send it one."""
    import fcntl  # not on Windows

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid4().hex)  # of which all workers share one
    address = (memory.folder() or Path("/tmp")) / f"face3d-runs-{run[:16]}"  # short, as the names of sockets are
    lock = address.with_suffix(".lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = None
        try:
            orders = _connected(address)
        except OSError:  # this is the first who needs it
            address.unlink(missing_ok=True)
            process = _started(address)
            orders = _connected(address)

    def end():
        orders.close()
        if process:
            process.wait()
            lock.unlink(missing_ok=True)

    atexit.register(end)
    return orders


def _connected(address):
    ours = socket.socket(socket.AF_UNIX)
    try:
        ours.connect(str(address))
    except OSError:
        ours.close()
        raise
    return ours


def _started(address):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    environment.pop("TMPDIR", None)  # of the test that happens to be the first; torch makes a folder there
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        passed = [listening.fileno()]
        command = [sys.executable, "-W", "error", __file__, *map(str, passed)]
        return subprocess.Popen(command, env=environment, pass_fds=passed, stdin=subprocess.DEVNULL)


def _serve(listening):
    # What a search loads late, torch as it makes its first optimiser, and Optuna as it opens its first storage.
    import torch
    from fake_data import write_data
    from searches import MEASURES, in_no_time

    from face3d_tune.data import face_data
    from face3d_tune.search import open_study
    from face3d_tune.storage.database import Storage

    for name in LATE:
        importlib.import_module(name)
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])
    with in_no_time():
        with (
            tempfile.TemporaryDirectory() as folder,
            Storage.parse(f"sqlite:///{folder}/first.db").opened(create=True),
        ):
            data = face_data.load(write_data(Path(folder) / "files"))  # what most runs search on
            for name in MEASURES:
                getattr(open_study, name)(data, 1)
        tempfile.tempdir = None  # a run asks its own environment for it
        gc.collect()
        gc.freeze()  # a collection in a run then copies no page of these
        senders = [listening.accept()[0]]
        while senders:
            for ready in select.select([listening, *senders], [], [])[0]:
                if ready is listening:
                    senders.append(listening.accept()[0])
                elif (order := _received(ready)) is None:
                    senders.remove(ready)
                    ready.close()
                elif not os.fork():
                    for ours in (listening, *senders):
                        ours.close()
                    _keep(*order)
                    return
                else:
                    _, streams, tell = order
                    for descriptor in (*streams, tell):
                        os.close(descriptor)
            if not senders:
                Path(listening.getsockname()).unlink(missing_ok=True)
                if select.select([listening], [], [], 0)[0]:  # somebody was faster
                    senders.append(listening.accept()[0])


def _received(sender):
    """The next order of a sender, its streams and where to tell how the run ended; none if the sender is gone."""
    text, descriptors, *_ = socket.recv_fds(sender, 2**16, 4)
    while text and not text.endswith(b"\n"):
        text += sender.recv(2**16)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    if not text:
        return None
    *streams, tell = descriptors
    return json.loads(text), streams, tell


def _keep(order, streams, tell):
    """Let the run begin, and tell its pid and how it ended; returns in the run alone, when that has ended."""
    run = os.fork()
    if not run:
        os.close(tell)
        _run(order, streams)
        return
    for stream in {0, 1, 2, *streams}:
        os.close(stream)
    os.write(tell, f"{run}\n".encode())
    _, status = os.waitpid(run, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(order, streams):
    if order["session"]:
        os.setsid()
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    for stream in set(streams) - {0, 1, 2}:
        os.close(stream)
    if order["session"] and os.isatty(0):
        import fcntl  # not on Windows
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its closing ends the run
    sys.stdout, sys.stderr = (_written_through(stream) for stream in (1, 2))
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    # As from a terminal, even where the tests run in the background and these are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    random.seed()
    warnings.simplefilter("error")
    sys.argv = ["face3d-tune", *order["words"]]
    util.spawnv_passfds = forked_if_it_loads_torch
    if order["first"]:
        module, function, arguments = order["first"]
        getattr(importlib.import_module(module), function)(**arguments)
    try:
        runpy.run_module("face3d_tune", run_name="__main__", alter_sys=True)
    except SystemExit as ended:  # taking all of torch apart takes a second
        threading._shutdown()
        atexit._run_exitfuncs()
        os._exit(ended.code)


_spawn = util.spawnv_passfds


def forked_if_it_loads_torch(path, args, passed):
    """Start the process from which `multiprocessing` forks children; it would import for seconds what this one has."""
    if "multiprocessing.forkserver" not in args[-1]:
        return _spawn(path, args, passed)
    if pid := os.fork():
        return pid
    for number in signal.valid_signals():  # as where a program starts
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor > 2 and descriptor not in passed:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(descriptor)
    try:
        exec(args[-1], {})
    finally:
        os._exit(0)


def _written_through(descriptor):
    raw = open(descriptor, "wb", buffering=0, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding="utf-8", write_through=True)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
