"""Runs that are killed at an exact moment, or live by another clock, without a word of it in the program.

One process loads everything and forks for each run; it reads a JSON line a run and answers with its exit code.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

# When to die: before or after which call.
MOMENTS = {
    "after ask": ("after", "optuna.study.Study.ask"),
    "after the claim": ("after", "face3d_tune.workers.Worker.claim"),
    "before the first report": ("before", "face3d_tune.judge.TrialJudge.report"),
    "in an epoch": ("before", "face3d_tune.trainer.Trainer._train_batch"),
    "before a checkpoint": ("before", "face3d_tune.resume.Checkpoints.save"),
    "while writing a checkpoint": ("before", "os.fsync"),
    "between writing a checkpoint and its name": ("before", "os.replace"),
    "between checkpoint and report": ("after", "face3d_tune.resume.Checkpoints.save"),
    "between report and tell": ("before", "face3d_tune.ledger.Ledger.tell"),
    "told and not yet released": ("before", "face3d_tune.workers.Worker.release"),
    "after tell": ("after", "face3d_tune.ledger.Ledger.tell"),
    "before its weights are kept": ("before", "face3d_tune.archive.Archive.take"),
}


class Doomed:
    """The process that forks; `log` takes what the runs print."""

    def __init__(self, log):
        root = Path(__file__).parent.parent
        environment = {**os.environ, "PYTHONPATH": str(root), "FACE3D_TUNE_ENGINE": "plain", "OMP_NUM_THREADS": "1"}
        self._log = str(log)
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, *words, moment=None, trial=0, skip=0, clock=0.0):
        """Start `face3d-tune WORDS`, dead at a moment of its `trial`-th trial, or with a clock so many seconds off.

        The first `skip` such moments pass.
        """
        order = {"words": list(map(str, words)), "moment": moment, "trial": trial, "skip": skip, "clock": clock}
        order["log"] = self._log
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self):
        """How the run that was started ended: an exit code, or minus a signal."""
        return int(self._process.stdout.readline())

    def run(self, *words, **options):
        self.begin(*words, **options)
        return self.end()

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@contextmanager
def doomed(log):
    made = Doomed(log)
    try:
        yield made
    finally:
        made.close()


def _place(path):
    """The class and the name of `package.module.Class.name`, or the module and the name of `module.name`."""
    outside, name = path.rsplit(".", 1)
    if outside in sys.modules:
        return sys.modules[outside], name
    module, owner = outside.rsplit(".", 1)
    return getattr(sys.modules[module], owner), name


def _kill_at(moment, trial, skip):
    """Kill this process at the first such moment but `skip` after it asked for its `trial`-th trial, counted from 0."""
    asked, passed = 0, 0

    def wrap(path, before, after):
        owner, name = _place(path)
        original = getattr(owner, name)

        def wrapped(*arguments, **named):
            before()
            result = original(*arguments, **named)
            after()
            return result

        setattr(owner, name, wrapped)

    def count():
        nonlocal asked
        asked += 1

    def die():
        nonlocal passed
        passed += asked > trial
        if passed > skip:
            os.kill(os.getpid(), signal.SIGKILL)

    def live():
        pass

    wrap("optuna.study.Study.ask", live, count)
    when, path = MOMENTS[moment]
    wrap(path, die if when == "before" else live, die if when == "after" else live)


def _shift_clock(seconds):
    """Let this process believe that it is so much later."""
    true_time = time.time
    time.time = lambda: true_time() + seconds

    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=seconds)

    for name, module in list(sys.modules.items()):
        if name.startswith(("optuna.", "face3d_tune.")) and getattr(module, "datetime", None) is datetime:
            module.datetime = Shifted


def _one_run(order):
    from face3d_tune.cli import main

    descriptor = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if order["moment"]:
        _kill_at(order["moment"], order["trial"], order["skip"])
    if order["clock"]:
        _shift_clock(order["clock"])
    main(order["words"])


def _serve():
    # What `run` loads late, and torch as it makes its first optimiser, so that it is loaded once.
    import torch
    from searches import disk_not_waited_for

    import face3d_tune.cli.progress
    import face3d_tune.cli.table
    import face3d_tune.plan
    import face3d_tune.search  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])
    with disk_not_waited_for():
        for line in sys.stdin:
            child = os.fork()
            if not child:
                _one_run(json.loads(line))
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
