"""How long a report on a large study takes, and how large it is: 1,000 trials of up to 60 epochs in SQLite."""

import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna

from benchmarks.common import machine, options, table
from face3d_tune.findings import find
from face3d_tune.report import report
from face3d_tune.results import find_study
from face3d_tune.storage import Storage

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from reported import study_of, trial_of


def main() -> None:
    """Write a study, then read it and tell each form of report."""
    asked = options(__doc__).parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    random = np.random.default_rng(0)
    count = 50 if asked.quick else 1000
    print(machine(), flush=True)
    trials = [
        trial_of(
            "PRUNED" if pruned else "COMPLETE",
            float(random.uniform(0.2, 0.4) if pruned else random.uniform(0.5, 0.7)),
            lr=float(10 ** random.uniform(-5, -1)),
            pose_unit=str(random.choice(["degrees", "radians"])),
            epochs=int(random.integers(10, 20) if pruned else 60),
            minute=place,
        )
        for place, pruned in enumerate(random.random(count) < 0.4)
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with Storage.parse(f"sqlite:///{folder}/studies.db").opened(create=True) as opened:
            study_of(*trials, storage=opened)
        for form in ("html", "md", "json"):
            started = time.perf_counter()
            with Storage.parse(f"sqlite:///{folder}/studies.db").opened() as opened:  # nothing is remembered
                found = find(find_study(opened, None))
            read = time.perf_counter() - started
            text = report(found, form, "zh", datetime.now())
            told = time.perf_counter() - started - read
            rows.append((form, f"{read:.2f}", f"{told:.2f}", f"{len(text.encode()) / 1000:.0f}"))
    table((f"{count} trials", "read, s", "tell, s", "size, kB"), rows)


if __name__ == "__main__":
    main()
