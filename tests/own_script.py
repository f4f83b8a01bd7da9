"""A script of a user's own that really runs, with the standard library alone, and finished studies that search it."""

import sys
from pathlib import Path

import optuna
from stored_script import searched_script, study_of_script

from face3d_tune.script.sources import hashes
from face3d_tune.storage.database import Storage

OWN_SCRIPT = """
import argparse
import json
import math
import os
import random
import time

import helper


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--no_augment", dest="augment", action="store_false")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save_dir", default="checkpoints")
    return parser.parse_args()


def main():
    args = arguments()
    noise = random.Random(args.seed)
    os.makedirs(args.save_dir, exist_ok=True)
    level = helper.LEVEL + 0.1 * math.log10(args.lr) - abs(args.margin - 0.5) + 0.05 * (args.optimizer == "sgd")
    with open(os.path.join(args.save_dir, "log.jsonl"), "w") as file:
        for epoch in range(1, args.epochs + 1):
            value = level + 0.02 * min(epoch, 3) - 0.01 * max(epoch - 3, 0) + noise.gauss(0, 0.005)
            row = {"epoch": epoch, "Val/CosineSimilarity": value, "Train/Loss": 1 / epoch, "seconds": time.time()}
            file.write(json.dumps(row) + "\\n")
            file.flush()
    print(json.dumps({"test_cosine_similarity": level - 0.03 + noise.gauss(0, 0.005)}))


if __name__ == "__main__":
    main()
"""


def write_script(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the script, and the file that it imports; each change is a text of it and what to put in its place."""
    text = OWN_SCRIPT
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "helper.py").write_text("LEVEL = 0.9\n", encoding="utf-8")
    script = folder / "train_3d_triplet.py"
    script.write_text(text, encoding="utf-8")
    return script


def own_study(url: str, script: Path, *trials, direction="maximize", **table) -> optuna.Study:
    """Store a finished study that searched this script; without trials it has those of `searched_script`."""
    held = {
        "command": [sys.executable, str(script)],
        "sources": hashes(script),
        "source": "json",
        "folder_flags": ["save_dir"],
    }
    with Storage.parse(url).opened(create=True) as storage:
        trials = trials or searched_script(direction)
        return study_of_script(*trials, direction=direction, storage=storage, script=held | table)


def found_of(**changed):
    """A confirmation of five seeds: the winner is better than the best preset, and has a test number."""
    test = {"values": [0.6, 0.62], "mean": 0.61, "sd": 0.0141}
    rows = [
        {"name": "trial 12", "preset": False, "aliases": [], "value": 0.7, "mean": 0.68, "sd": 0.01},
        {"name": "defaults", "preset": True, "aliases": ["quickstart"], "value": 0.6, "mean": 0.6, "sd": 0.02},
    ]
    rows = [{"trial": 0, "error": None, "tests": {"test_cos": test}, **row} for row in rows]
    entry = {"difference": 0.08, "low": 0.05, "high": 0.11, "seeds": 5, "verdict": "better"}
    against = [{"name": "defaults", **entry, "tests": {"test_cos": entry | {"verdict": "same", "low": -0.01}}}]
    found = {"metric": "val_cos", "keep": "val_loss", "keep_direction": "minimize", "by": "seeds", "seed_flag": "seed"}
    found |= {"count": 5, "identical": False, "candidates": rows, "winner": "trial 12", "tests": ["test_cos"]}
    found |= {"against": against, "headline": "defaults", "over_time": 0, "changed": []}
    return found | changed
