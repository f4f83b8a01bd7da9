"""Runs that are killed at an exact moment, live by another clock, or hurry, without a word of it in the program."""

import os
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from forked import Run

# When to die: before or after which call.
MOMENTS = {
    "while it is taken": ("before", "face3d_tune.storage.claims.new_text"),
    "after the claim": ("before", "face3d_tune.storage.workers.Worker.keep"),
    "before the first report": ("before", "face3d_tune.search.pruning.TrialReporter.report"),
    "in an epoch": ("before", "face3d_tune.training.plain.Trainer._train_batch"),
    "before a checkpoint": ("before", "face3d_tune.executor.checkpoints.Checkpoints.save"),
    "while writing a checkpoint": ("before", "os.fsync"),
    "between writing a checkpoint and its name": ("before", "os.replace"),
    "between checkpoint and report": ("after", "face3d_tune.executor.checkpoints.Checkpoints.save"),
    "between report and tell": ("before", "face3d_tune.search.trial_queue.TrialQueue.tell"),
    "while its end is stored": ("before", "face3d_tune.storage.claimed_trials.utc_now"),
    "after tell": ("after", "face3d_tune.search.trial_queue.TrialQueue.tell"),
    "before its weights are kept": ("before", "face3d_tune.search.retention.Retention.take"),
}
# The same for a search of a script, whose trials are processes of their own.
SCRIPT_MOMENTS = {
    "while it is taken": MOMENTS["while it is taken"],
    "after the claim": MOMENTS["after the claim"],
    "its folder is empty": ("after", "face3d_tune.script.running.trial_folder.begin_again"),
    "the script has started": ("after", "face3d_tune.script.running.process.ScriptProcess.__init__"),
    "its first epoch was heard": ("before", "face3d_tune.search.pruning.TrialReporter.report"),
    "between two epochs": ("after", "face3d_tune.search.pruning.TrialReporter.report"),
    "while it ends": ("before", "face3d_tune.script.running.process.ScriptProcess.end"),
    "between report and tell": MOMENTS["between report and tell"],
    "while its end is stored": MOMENTS["while its end is stored"],
    "after tell": MOMENTS["after tell"],
    "before its log is kept": ("before", "face3d_tune.search.script_folders.ScriptFolders.take"),
}


def run(*words, moment=None, trial=0, skip=0, clock=0.0):
    """Run `face3d-tune WORDS`, dead at a moment of its `trial`-th trial, or with a clock so many seconds off.

    The first `skip` such moments pass. How it ended: an exit code, or minus a signal.
    """
    fate = {"moment": moment, "trial": trial, "skip": skip, "clock": clock}
    environment = {**os.environ, "FACE3D_TUNE_ENGINE": "plain"}
    with Run(words, cwd=Path.cwd(), env=environment, first=("doomed", "doom", fate)) as started:
        print(*started.communicate(), sep="\n")
        return started.returncode


def long_silent(url):
    """Let all workers have been silent for a minute: one that lives sends its next heartbeat, a dead one is missed."""
    with psycopg.connect(url) as database:
        database.execute("update face3d_tune_workers set seen = seen - 60")


def _place(path):
    """The class and the name of `package.module.Class.name`, or the module and the name of `module.name`."""
    outside, name = path.rsplit(".", 1)
    if outside in sys.modules:
        return sys.modules[outside], name
    module, owner = outside.rsplit(".", 1)
    return getattr(sys.modules[module], owner), name


def _kill_at(moment, trial, skip):
    """Kill this process at the first such moment but `skip` after it took its `trial`-th trial, counted from 0."""
    taken, passed = 0, 0

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
        nonlocal taken
        taken += 1

    def die():
        nonlocal passed
        passed += taken > trial
        if passed > skip:
            os.kill(os.getpid(), signal.SIGKILL)

    def live():
        pass

    wrap("face3d_tune.storage.workers.Worker.take", count, live)
    when, path = {**MOMENTS, **SCRIPT_MOMENTS}[moment]
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


def doom(moment, trial, skip, clock):
    """Prepare this process for its fate."""
    if moment:
        _kill_at(moment, trial, skip)
    if clock:
        _shift_clock(clock)


def die_copying(table):
    """Kill this process when a copy comes to this table."""
    from face3d_tune.storage import copy_studies

    whole = copy_studies._copy_rows

    def copy_rows(reading, writing, now, *rest):
        if now.name == table:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(reading, writing, now, *rest)

    copy_studies._copy_rows = copy_rows


def impatient():
    """Let this process kill its children soon: those that are stopped never end by themselves."""
    from face3d_tune.executor import processes

    processes._PATIENCE = 0.5


def hurry():
    """Let this process draw its live lines 20 times a second, and `watch` look five times: no trial need last long."""
    from face3d_tune.cli import progress, watch

    live = progress.Live
    progress.Live = lambda *arguments, **named: live(*arguments, **{**named, "refresh_per_second": 20})
    watch._EVERY = 0.2
