"""A search of a script against the built-in trainer: the same best, and what a trial costs beside the script by hand.

    python -m benchmarks.script_search same --trials 20 --epochs 15
    python -m benchmarks.script_search overhead --epochs 20 --repeats 5

The script is the stand-in of the documented trainer (`tests/scripts/train_3d_documented.py`), on the bundled sample
with its poses in radians. Both searches get the same proposals: the same preset first, then the same random points.
The stand-in draws its random numbers in another order, so a trial's value differs as with another seed; that noise is
measured by training the best config again with other seeds.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.common import machine, table
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import TrialAttr

SCRIPTS = Path(__file__).parent.parent / "tests"
SIZE = {"nhead": 8, "num_layers": 2}
FIXED = {"batch_size": 32, "loss_type": '"combined"', "mse_weight": 0.3, "cosine_weight": 0.7, "scheduler_min_lr": 0.0}
SPACE = """
[space]
lr = { low = 3e-5, high = 3e-3, scale = "log" }
dropout = { low = 0.0, high = 0.5 }
weight_decay = { low = 1e-6, high = 1.0, scale = "log" }
scheduler_factor = { low = 0.1, high = 0.7 }
scheduler_patience = { low = 1, high = 8 }
use_pose_attention = [false, true]
[presets.first]
lr = 1e-3
dropout = 0.3
weight_decay = 1e-2
scheduler_factor = 0.5
scheduler_patience = 3
use_pose_attention = false
"""
RANDOM = '[sampler]\nname = "random"\n[pruner]\nname = "none"\n'
SCRIPT = """
[script]
path = "train_transformer3D/train_3d.py"
metric = "Val/CosineSimilarity"
source = "printed"
direction = "maximize"
keep_lowest = "Val/Loss"
epochs_flag = "epochs"
seed_flag = "seed"
folder_flags = ["save_dir", "log_dir"]
resume_flag = "resume"
checkpoint = "last_model.pth"
environment = { PYTHONPATH = "%s" }
"""
PAIRS = 5  # other seeds of the best config, with each


def main(words: Sequence[str] | None = None) -> None:
    """Run one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("same", "overhead"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(words)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="face3d-tune-benchmark-") as name:
        folder = Path(name)
        prepare(folder)
        if options.what == "same":
            same(folder, options.trials, options.epochs)
        else:
            overhead(folder, options.epochs, options.repeats)


def prepare(folder: Path) -> None:
    """Write data, script and the two study files."""
    call(folder, "data", "sample", "sample")
    call(folder, "data", "convert", "sample", "radians", "--pose-unit", "radians")
    (folder / "train_transformer3D").mkdir()
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").touch()
    shutil.copyfile(SCRIPTS / "reference_model.py", folder / "models" / "transformer.py")
    for source, name in (("documented", "train_3d"), ("real", "train_3d_first")):
        shutil.copyfile(SCRIPTS / "scripts" / f"train_3d_{source}.py", folder / "train_transformer3D" / f"{name}.py")
    shared = {**SIZE, **FIXED}
    trainer = "\n".join(f"{name} = {value}" for name, value in {**shared, "pose_unit": '"radians"'}.items())
    flags = {**shared, "d_model": 128, "dim_feedforward": 512, "data_dir": f'"{folder / "radians"}"'}
    script = "\n".join(f"{name} = {value}" for name, value in flags.items())
    (folder / "trainer.toml").write_text(f"{RANDOM}[fixed]\n{trainer}\n{SPACE}", encoding="utf-8")
    (folder / "script.toml").write_text(f"{SCRIPT % folder}{RANDOM}[fixed]\n{script}\n{SPACE}", encoding="utf-8")


def call(folder: Path, *words: object) -> None:
    """Run a command of this program in the folder."""
    command = [sys.executable, "-m", "face3d_tune", *map(str, words)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def same(folder: Path, trials: int, epochs: int) -> None:
    """Compare two searches with the same proposals."""
    common = ("--trials", trials, "--epochs", epochs, "--slots", 1, "--device", "cpu")
    call(folder, "run", "--study", "trainer.toml", "--data-dir", "radians", "--engine", "plain", *common)
    call(folder, "run", "--study", "script.toml", *common)
    ours, theirs = ({trial.number: trial for trial in read(folder, name)} for name in ("trainer", "script"))
    rows = []
    for number in sorted(ours):
        assert ours[number].params == theirs[number].params, "the proposals differ"
        values = ours[number].value, theirs[number].value
        lr = f"{ours[number].params['lr']:.1e}"
        rows.append((str(number), lr, *(f"{value:.4f}" for value in values if value is not None)))
    table(("trial", "lr", "built-in", "script"), rows)
    pairs = np.array([(trial.value, theirs[number].value) for number, trial in sorted(ours.items())])
    ranks = pairs.argsort(axis=0).argsort(axis=0)
    best = pairs.argmax(axis=0)
    correlation = np.corrcoef(ranks.T)[0, 1]
    print(f"best: built-in trial {best[0]}, script trial {best[1]}; correlation of ranks {correlation:.3f}")
    print(f"mean difference, script less built-in: {np.diff(pairs).mean():+.4f}")
    for name, kind in (("trainer", "built-in"), ("script", "script")):
        values = again(folder, name, ours[int(best[0])], epochs)
        mean, spread = statistics.fmean(values), statistics.stdev(values)
        print(f"the built-in search's best with {PAIRS} other seeds, {kind}: {mean:.4f} ± {spread:.4f}")


def again(folder: Path, name: str, best: FrozenTrial, epochs: int) -> list[float]:
    """Train a config again with other seeds: a study of one point each."""
    text = (folder / f"{name}.toml").read_text(encoding="utf-8").partition("[space]")[0]
    words = {key: str(value).lower() if isinstance(value, bool) else repr(value) for key, value in best.params.items()}
    fixed = "\n".join(f"{key} = {value}" for key, value in words.items() if key != "dropout")
    text = text.replace("[fixed]\n", f"[fixed]\n{fixed}\n")
    point = f"[space]\ndropout = {{ low = {words['dropout']}, high = {words['dropout']} }}\n"
    (folder / f"{name}-again.toml").write_text(text + point, encoding="utf-8")
    data = ("--data-dir", "radians", "--engine", "plain") if name == "trainer" else ()
    common = ("--trials", PAIRS, "--epochs", epochs, "--slots", 1, "--device", "cpu", "--seed", 1)
    call(folder, "run", "--study", f"{name}-again.toml", *data, *common)
    return [trial.value for trial in read(folder, f"{name}-again") if trial.value is not None]


def read(folder: Path, name: str) -> list[FrozenTrial]:
    """Return the completed trials of a study."""
    with Storage.parse(f"sqlite:///{folder / 'face3d_tune.db'}").opened() as storage:
        study = optuna.load_study(study_name=name, storage=storage)
        return study.get_trials(states=(TrialState.COMPLETE,))


def overhead(folder: Path, epochs: int, repeats: int) -> None:
    """Compare the time of a trial with that of the same command by hand, in turn."""
    first = ("--trials", 1, "--epochs", epochs, "--slots", 1, "--device", "cpu")
    by_hand, in_search = [], []
    for repeat in range(repeats):
        name = f"again-{repeat}"
        call(folder, "run", "--study", "script.toml", "--study-name", name, *first)
        trial = read(folder, name)[0]
        in_search.append(TrialAttr.seconds.of(trial.user_attrs))
        by_hand.append(hand(folder, trial, epochs))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(in_search, by_hand, strict=True))
    rows = [(f"{theirs:.2f}", f"{ours:.2f}") for ours, theirs in zip(in_search, by_hand, strict=True)]
    table(("by hand, s", "as a trial, s"), rows)
    print(f"{epochs} epochs and the start: {ratio:.3f} times the script by hand (median of {repeats})")


def hand(folder: Path, trial: FrozenTrial, epochs: int) -> float:
    """Return the seconds that the exported command of a trial takes."""
    config = TrialAttr.config.of(trial.user_attrs)
    words = [sys.executable, "train_transformer3D/train_3d.py", "--data_dir", "radians", "--epochs", str(epochs)]
    for name, value in config.items():
        if isinstance(value, bool):
            words += [f"--{name}"] if value else []
        elif name not in ("data_dir", "epochs"):
            words += [f"--{name}", str(value)]
    words += ["--save_dir", "hand", "--log_dir", "hand", "--seed", str(TrialAttr.seed.of(trial.user_attrs) % 2**31)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1)), "PYTHONPATH": str(folder)}
    started = time.perf_counter()
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **threads})
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
