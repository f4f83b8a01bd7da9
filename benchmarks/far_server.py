"""A search whose PostgreSQL server is far away: round trips and seconds until its first epoch, for an epoch, a trial.

    python -m benchmarks.far_server [--delay 0.3] [--package FOLDER]

Between the two stands a proxy that holds every byte for `--delay` seconds each way, and counts how often the search
asks and waits. `--package` is the folder of another version of the package, measured instead.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from fake_data import write_data
from proxy import Proxy
from searches import RANDOM_ONLY
from servers import server


def main() -> None:
    """Print a line for a new database, one for a new study where the tables are, and one for a study that goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.3, metavar="SECONDS")
    parser.add_argument("--package", type=Path, default=Path(__file__).parent.parent, metavar="FOLDER")
    asked = parser.parse_args()
    with server() as started, tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "quick.toml").write_text(RANDOM_ONLY, encoding="utf-8")
        url, data = started.new_database(), write_data(place / "data")
        for what, name, trials in (("a new database", "one", 2), ("a new study", "two", 2), ("it goes on", "two", 4)):
            with Proxy(url, asked.delay) as proxy:
                print(f"{what}: {measured(proxy, place, data, name, trials, asked.package)}", flush=True)


def measured(proxy: Proxy, place: Path, data: Path, name: str, trials: int, package: Path) -> str:
    """Run a search until it has so many trials, two more, and say what it cost."""
    words = ["--study", "quick.toml", "--data-dir", str(data), "--storage", proxy.url, "--study-name", name]
    words += ["--trials", str(trials), "--epochs", "5", "--device", "cpu", "--slots", "1", "--engine", "plain"]
    command = [sys.executable, "-m", "face3d_tune", "run", *words, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(package.absolute())}
    began, seen = time.monotonic(), list[tuple[str, int, float]]()
    with subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        for line in search.stdout:
            seen.append((json.loads(line)["event"], proxy.round_trips, time.monotonic() - began))
    starts = [(trips, seconds) for event, trips, seconds in seen if event == "trial_started"]
    epochs = [trips for event, trips, _ in seen if event == "epoch"]
    each = median(after - before for before, after in pairwise(epochs[:5]))
    return (
        f"first epoch begins after {starts[0][0]} round trips, {starts[0][1]:.1f} s; an epoch {each:g}; "
        f"from the last epoch of a trial to the first of the next {starts[1][0] - epochs[4]}"
    )


if __name__ == "__main__":
    main()
