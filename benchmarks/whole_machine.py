"""Epochs per minute of the whole machine: the search with its engine against `study.optimize` over the plain trainer.

    python -m benchmarks.whole_machine

Both search the default study file from its first trial, with the same presets, sampler, pruner and seeds, in turn. The
search has as many slots as `face3d-tune run` would choose and runs in this process, as it does there; the plain loop
runs in one of its own with torch's default threads (benchmarks/plain_loop.py). Counted are the epochs of a window of
time that opens when everything is warm, one that began before or ends after it by the part that lies inside. The same
again while another process keeps one core busy. Epochs of different trials differ in length (attention flags, dropout
0), and the faster side gets further in the list.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from statistics import median

import optuna
import torch

from benchmarks.common import NAMES, SHAPES, busy_core, data_of, machine, options, table
from benchmarks.window import Waited, Window, WindowClosedError
from face3d_tune.config import resolve
from face3d_tune.data.face_data import FaceData
from face3d_tune.device import set_threads
from face3d_tune.executor.plan import choose
from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import Task
from face3d_tune.search.trainer_search import open_search
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings

TARGETS = {"d512": "4", "sample": "6"}
CPU = torch.device("cpu")


@dataclass
class Run:
    """What one run of the search gave: epochs per minute, idle share of the slots, the parent's share of the time."""

    rate: float
    idle: float = math.nan
    parent: float = math.nan
    plan: str = ""


def searched(data: FaceData, seconds: float) -> Run:
    """Open the search as `face3d-tune run` does."""
    settings, setup = Settings("keypoint", 100, None), Setup(data, CPU, "off")
    file = study_file.read("default").bind("keypoint", data.feature_size, 100)
    plan = choose("auto", None, [CPU], data, file.extreme_configs())
    set_threads(None)
    with tempfile.TemporaryDirectory() as folder:
        place = Storage.parse(f"sqlite:///{folder}/search.db")
        with place.searching(), place.opened(create=True) as storage, closing(plan.open(data)) as slots:
            search = open_search(storage, "default", file, settings, setup)
            search.enqueue_presets()
            warm_up(slots, data)
            waited, window = Waited(slots), Window(seconds, at_once=True)
            try:
                search.run(10**6, window, slots=waited)
            except WindowClosedError:
                whole = time.monotonic() - window.opened
            trained = sum(share for share, _ in window.inside())
            return Run(window.rate(), 1 - trained / (slots.count * seconds), 1 - waited.seconds / whole, str(plan))


def warm_up(slots: Slots, data: FaceData) -> None:
    """One epoch of every slot: children start with their first task."""
    config = resolve({}, feature_size=data.feature_size, epochs=1, layout="keypoint")
    waiting = set(range(-slots.count, 0))
    for number in waiting:
        slots.start(Task(number, config, 0, "off"))
    while waiting:
        for event in slots.wait():
            waiting.discard(event.number)
            slots.drop(event.number)


def looped(shape: str, steps: int, seconds: float) -> Run:
    """Return the plain loop, from the end of its first epoch on."""
    words = [sys.executable, "-m", "benchmarks.plain_loop", "--each-epoch", "--shape", shape, "--steps", str(steps)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = (json.loads(line) for line in process.stdout or ())
            ended = (line["seconds"] for line in lines if "epoch" in line)
            next(ended)
            window = Window(seconds, at_once=False)
            while not window.add(next(ended)):
                pass
        finally:
            process.kill()
    return Run(window.rate())


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=75, help="length of a window")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this one")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seconds, rounds, steps = (2, 1, 2) if given.quick else (given.seconds, given.rounds, 20)
    print(f"{machine()}\nmedians of {rounds} windows of {seconds} s, in turn; epochs per minute\n")
    for shape in given.shape or (SHAPES[:1] if given.quick else SHAPES):
        data = data_of(shape, steps)
        runs: dict[tuple[str, str], list[Run]] = {}
        for _ in range(rounds):
            for load, disturbance in (("free", nullcontext), ("one core busy", busy_core)):
                with disturbance():
                    runs.setdefault(("search", load), []).append(searched(data, seconds))
                    runs.setdefault(("plain loop", load), []).append(looped(shape, steps, seconds))
        report(shape, runs)


def report(shape: str, runs: dict[tuple[str, str], list[Run]]) -> None:
    """One table a shape."""
    rate = {key: median(run.rate for run in several) for key, several in runs.items()}
    rows = []
    for who in ("search", "plain loop"):
        free, busy = rate[who, "free"], rate[who, "one core busy"]
        each = ", ".join(f"{run.rate:.1f}" for run in runs[who, "free"])
        rows.append([who, f"{free:.1f}", f"{busy:.1f}", f"{busy / free:.2f}", each])
    ratios = [rate["search", load] / rate["plain loop", load] for load in ("free", "one core busy")]
    print(f"{NAMES[shape]}; {runs['search', 'free'][0].plan}")
    table(["", "free", "one core busy", "share kept (target 0.5)", "each window, free"], rows)
    idle, parent = (median(getattr(run, what) for run in runs["search", "free"]) for what in ("idle", "parent"))
    print(f"search / plain loop: {ratios[0]:.2f} free (target {TARGETS[shape]}), {ratios[1]:.2f} with one core busy")
    print(
        f"slots without an epoch that counts: {idle:.1%} of the time; storage and sampling: {parent:.1%}\n", flush=True
    )


if __name__ == "__main__":
    main()
