"""A whole search on the sample, to its end: `face3d-tune run --trials 50` against the plain loop.

    python -m benchmarks.full_run [--plain-log plain.log]

The real command in a process of its own, with a fresh SQLite file; then benchmarks/plain_loop.py with the same study
file, presets, sampler, pruner and seeds, or the log of an earlier one, since it takes an hour or two. From the first
pruned trial on, the two searches go different ways: several slots see other curves than one. So the times are also
given per epoch, and the presets, which are the same trainings on both sides, are compared one by one.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.common import machine, options, table

TARGET = 6


@dataclass
class Trial:
    """What both sides say about one; `value` is None if it has none."""

    preset: str | None
    how: str
    epochs: int
    value: float | None


@dataclass
class Whole:
    """One search."""

    seconds: float
    trials: list[Trial]

    @property
    def epochs(self) -> int:
        """Trained in all."""
        return sum(trial.epochs for trial in self.trials)

    def best(self) -> float:
        """Of the trials that were not pruned."""
        return max(trial.value for trial in self.trials if trial.value is not None and trial.how != "pruned")

    def row(self, name: str) -> list[str]:
        """Of the first table."""
        pruned = sum(trial.how == "pruned" for trial in self.trials)
        numbers = (f"{self.seconds / 60:.1f}", len(self.trials), pruned, self.epochs)
        return [name, *map(str, numbers), f"{self.seconds / self.epochs:.3f}", f"{self.best():.4f}"]


def searched(trials: int, epochs: int) -> Whole:
    """`face3d-tune run` from nothing to its end, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/study.db"
        words = [sys.executable, "-m", "face3d_tune", "run", "--storage", url]
        words += ["--trials", str(trials), "--epochs", str(epochs)]
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)  # its progress is on stderr
        seconds = time.perf_counter() - started
        storage = optuna.storages.RDBStorage(url)
        found = optuna.load_study(study_name=None, storage=storage).get_trials()
        storage.remove_session()
        storage.engine.dispose()
    return Whole(seconds, [_trial(trial) for trial in found if trial.state != TrialState.WAITING])


def _trial(trial: FrozenTrial) -> Trial:
    attrs = trial.user_attrs
    value = attrs.get("val_cosine", trial.value)
    return Trial(attrs.get("preset"), attrs["stop_reason"], attrs.get("epochs_run", 0), value)


def looped(trials: int, epochs: int) -> Whole:
    """Run the plain loop; its log goes to stderr as well, so that it can be used again."""
    words = [sys.executable, "-m", "benchmarks.plain_loop", "--trials", str(trials), "--epochs", str(epochs)]
    lines = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    return read(lines)


def read(lines: Iterable[str]) -> Whole:
    """Read a log of the plain loop.

    One without `slept` may contain pauses: then an epoch counts as its trial's median one.
    """
    said: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith('{"trial"')]
    seconds = 0.0
    for trial in said:
        if "slept" in trial:
            seconds += trial["seconds"]
        else:
            overhead = (trial["seconds"] - trial["sum_epochs"]) / max(1, trial["epochs"])
            seconds += trial["epochs"] * (trial["median_epoch"] + min(overhead, 0.05 * trial["median_epoch"]))
    return Whole(seconds, [Trial(each["preset"], each["how"], each["epochs"], each["value"]) for each in said])


def main() -> None:
    """Print the tables."""
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--plain-log", type=Path, metavar="FILE", help="of an earlier plain loop of as many trials")
    given = parser.parse_args()
    trials, epochs = (3, 2) if given.quick else (given.trials, given.epochs)
    print(f"{machine()}\n{trials} trials of up to {epochs} epochs on the sample\n", flush=True)
    ours = searched(trials, epochs)
    log = given.plain_log
    plain = looped(trials, epochs) if log is None else read(log.read_text(encoding="utf-8").splitlines())
    header = ["", "minutes", "trials", "pruned", "epochs", "seconds/epoch", "best value"]
    table(header, [ours.row("face3d-tune run"), plain.row("plain loop")])
    if len(plain.trials) == len(ours.trials):
        print(f"whole search: {plain.seconds / ours.seconds:.2f} times as fast (target {TARGET})")
    else:
        print(f"the plain loop has {len(plain.trials)} trials, not {len(ours.trials)}: compare times per epoch only")
    per_epoch = plain.seconds / plain.epochs * ours.epochs / ours.seconds
    print(f"per epoch: {per_epoch:.2f} times as fast")
    print()
    values = {trial.preset: trial for trial in plain.trials if trial.preset}
    rows = []
    for trial in ours.trials:
        other = values.get(trial.preset)
        if other and trial.value is not None and other.value is not None:
            pair = (f"{trial.value:.4f}", f"{other.value:.4f}", f"{trial.value - other.value:+.4f}")
            rows.append([trial.preset, *pair, f"{trial.epochs} / {other.epochs}"])
    table(["preset", "face3d-tune run", "plain loop", "difference", "epochs"], rows)


if __name__ == "__main__":
    main()
