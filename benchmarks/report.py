"""How long a report on a large study takes, and how large it is: 1,000 trials of up to 60 epochs in SQLite."""

import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import optuna

from benchmarks.common import machine, options, table
from face3d_tune.analysis.findings import find
from face3d_tune.report.render import report
from face3d_tune.storage.database import Storage
from face3d_tune.study.lookup import find_study

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from stored_study import many_trials, study_of


def main() -> None:
    """Write a study, then read it and tell each form of report."""
    asked = options(__doc__).parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    count = 50 if asked.quick else 1000
    print(machine(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with Storage.parse(f"sqlite:///{folder}/studies.db").opened(create=True) as opened:
            study_of(*many_trials(count), storage=opened)
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
