"""A tiny script whose trials show whether a second copy of one ran, and which processes a search left behind."""

import os
import signal
import time
from pathlib import Path

import optuna
import psutil

from face3d_tune.executor.silence import Silence
from face3d_tune.script.running.attempt import Attempt
from face3d_tune.script.running.supervisor import TRIAL
from face3d_tune.storage.database import Storage

# Its loss follows from the seed and all epochs before. A copy holds a lock of its trial as long as it lives. With a
# file `trial-N-holds` in the folder SEEN it waits after the epoch that this names until the file is gone.
SCRIPT = """
import argparse, fcntl, json, os, random, time
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--save_dir", default="runs")
parser.add_argument("--resume")
arguments = parser.parse_args()
mark, seen = os.environ["FACE3D_TUNE_TRIAL"].replace(" ", "-"), os.environ["SEEN"]
def tell(what):
    with open(f"{seen}/told", "a") as file:
        file.write(f"{mark} {os.getpid()} {what}\\n")
def hold(epoch):
    path = f"{seen}/{mark.partition('-')[2]}-holds"
    while os.path.exists(path) and open(path).read() == str(epoch):
        time.sleep(0.005)
lock = open(f"{seen}/{mark}.lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    tell("overlaps")
state = json.load(open(arguments.resume)) if arguments.resume else {"epoch": 0, "level": arguments.lr}
tell(f"begins after {state['epoch']}")
os.makedirs(arguments.save_dir, exist_ok=True)
hold(state["epoch"])
while state["epoch"] < arguments.epochs:
    epoch = state["epoch"] + 1
    level = 0.5 * state["level"] + random.Random(f"{arguments.seed} {epoch}").random()
    state = {"epoch": epoch, "level": level}
    print(json.dumps({"epoch": epoch, "val_loss": level, "val_cosine": 1 - level}), flush=True)
    with open(f"{arguments.save_dir}/new", "w") as file:
        json.dump(state, file)
    os.replace(f"{arguments.save_dir}/new", f"{arguments.save_dir}/last.pth")
    tell(f"ends {epoch}")
    hold(epoch)
"""
STUDY = """
[script]
path = "train.py"
metric = "val_loss"
source = "json"
direction = "minimize"
epochs_flag = "epochs"
seed_flag = "seed"
folder_flags = ["save_dir"]
resume_flag = "resume"
environment = {{ SEEN = "{seen}" }}
[budget]
trials = 3
epochs = 3
[sampler]
name = "random"
[pruner]
name = "none"
[presets.first]
lr = 0.3
[space]
lr = {{ low = 0.1, high = 1.0, scale = "log" }}
"""
PATIENCE = 180  # seconds; a machine may be busy


class Place:
    """A folder with the script, its study file `NAME.toml`, and what its trials told."""

    def __init__(self, folder, *, resume=True, name="tiny"):
        self.folder, self.name, self.seen = folder, name, folder.parent / f"seen-{name}"
        folder.mkdir(exist_ok=True)
        self.seen.mkdir()
        (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
        text = STUDY.format(seen=self.seen)
        if not resume:
            text = text.replace('resume_flag = "resume"\n', "")
        self.study_file.write_text(text, encoding="utf-8")

    @property
    def study_file(self):
        return self.folder / f"{self.name}.toml"

    def words(self, url, *more, slots=2):
        run = ("run", "--study", self.study_file, "--storage", url, "--device", "cpu", "--slots", slots)
        return (*run, "--worker-timeout", "2s", "--artifacts", self.folder / "artifacts", *more)

    def hold(self, trial, epoch):
        """Let the script of a trial wait after this epoch, until `release`."""
        (self.seen / f"trial-{trial}-holds").write_text(str(epoch), encoding="utf-8")

    def release(self, trial):
        (self.seen / f"trial-{trial}-holds").unlink()

    def told(self):
        """What the trials told: the trial, the process and the words, in their order."""
        path = self.seen / "told"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [tuple(line.split(" ", 2)) for line in lines]

    def begun(self):
        """After which epoch each copy of a script began, in their order."""
        return [int(words.split()[-1]) for _, _, words in self.told() if words.startswith("begins")]

    def ended(self):
        """Which epochs have ended, of whichever trial, in their order."""
        return [int(words.split()[-1]) for _, _, words in self.told() if words.startswith("ends")]


class NoticedAtOnce(Silence):
    """A script that `Place.hold` lets wait hangs, as it is noticed without waiting for a timeout."""

    def __init__(self, seen, key, once):
        super().__init__(30.0)
        self._holds, self._told, self._key, self._once = seen / f"{key}-holds", seen / "told", key, once
        self._before, self._stopped = len(self._lines()), False

    def _lines(self):
        lines = self._told.read_text(encoding="utf-8").splitlines() if self._told.exists() else []
        return [line for line in lines if f"-{self._key} " in line]

    def is_too_long(self):
        """Tell whether the script waits; with `once` it is stopped, and no other copy of it waits."""
        new = self._lines()[self._before :]
        if self._stopped:
            return True
        if not (new and self._holds.exists() and new[-1].split()[-1] == self._holds.read_text(encoding="utf-8")):
            return False
        if self._once:
            os.kill(int(new[-1].split()[1]), signal.SIGSTOP)
            self._holds.unlink()
            self._stopped = True
        return True


def notice_hangs(seen, once=False, patch=setattr):
    """Let every script of this process that hangs be noticed at once."""
    reset = Attempt._reset

    def reset_and_look(attempt):
        reset(attempt)
        attempt._grace = 0.2
        attempt._without_epoch = NoticedAtOnce(Path(seen), attempt.task.key, once)

    patch(Attempt, "_reset", reset_and_look)


def study_of(url, name="tiny"):
    """The attributes and the trials of a study."""
    with Storage.parse(url).opened() as opened:
        study = optuna.load_study(study_name=name, storage=opened)
        return study.user_attrs, study.trials


def found(trials):
    """What the finished trials found, in the order in which they were first asked for."""
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    finished.sort(key=lambda trial: trial.user_attrs["ordinal"])
    names = ("preset", "seed", "best_epoch", "epochs_run", "stop_reason", "numbers")
    return [
        (trial.state.name, trial.params, trial.intermediate_values, *map(trial.user_attrs.get, names))
        for trial in finished
    ]


def running_of(study_id):
    """The processes of a study's trials on this machine: scripts, what these started, supervisors."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(TRIAL, "").startswith(study_id):
                left.append((process.pid, " ".join(process.cmdline())))
        except psutil.Error:
            pass
    return left


def until(condition, seconds=PATIENCE):
    """Wait until the condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (held := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return held


def check_nothing_left(study_id):
    """Nothing of a study's trials runs any more, once what ends has ended."""
    until(lambda: not running_of(study_id))
