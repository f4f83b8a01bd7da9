"""How soon the page of a large study is there: 1,000 trials of up to 60 epochs in SQLite, in Chromium.

`optuna` is optuna-dashboard alone, `ours` the same with guard, note, figures and artifacts; new servers, asked in turn,
two seconds after their start. The page is opened three times, in a browser that has never seen a dashboard: it has to
fetch and compile its program, which it keeps, as browsers do, from the third time on.
"""

import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from wsgiref.simple_server import make_server

import optuna
import optuna_dashboard
from playwright.sync_api import sync_playwright

from benchmarks.common import machine, options, table
from face3d_tune.dashboard.server import make_dashboard
from face3d_tune.storage.database import Storage

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from chromium import QUIET, executable
from stored_study import many_trials, study_of


@contextmanager
def serving(server):
    """Its address, until the block ends."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(address: str) -> float:
    """Seconds for the data of the study's page."""
    started = time.perf_counter()
    with urllib.request.urlopen(f"{address}/api/studies/1", timeout=60) as answer:
        answer.read()
    return time.perf_counter() - started


def shown(browser, address: str) -> float:
    """Seconds until the study's page shows its first heading."""
    with browser.new_page() as page:
        started = time.perf_counter()
        page.goto(f"{address}/dashboard/studies/1")
        page.get_by_role("heading", name="History").wait_for(timeout=120_000)
        return time.perf_counter() - started


def main() -> None:
    """Write a study, then look at it."""
    asked = options(__doc__).parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    count = 50 if asked.quick else 1000
    print(machine(), flush=True)
    found: dict[str, list[tuple[float, ...]]] = {"optuna": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        url = f"sqlite:///{folder}/studies.db"
        with Storage.parse(url).opened(create=True) as opened:
            study_of(*many_trials(count), storage=opened)
        for _ in range(1 if asked.quick else 3):
            for name, times in found.items():
                with Storage.parse(url).opened() as opened:
                    alone = optuna_dashboard.wsgi(optuna.storages.get_storage(opened))
                    server = make_dashboard(opened) if name == "ours" else make_server("127.0.0.1", 0, alone)
                    with serving(server) as address, tempfile.TemporaryDirectory() as profile:
                        browser = playwright.chromium.launch_persistent_context(
                            profile, executable_path=executable(), args=QUIET
                        )
                        time.sleep(2)
                        first, again = fetched(address), fetched(address)
                        seen = [shown(browser, address) for _ in range(3)]
                        times.append((first, again, seen[0], seen[-1]))
                        browser.close()
    rows = [
        (name, *(f"{statistics.median(column):.2f}" for column in zip(*times, strict=True)))
        for name, times in found.items()
    ]
    table((f"{count} trials", "data at first, s", "data again, s", "page at first, s", "page again, s"), rows)


if __name__ == "__main__":
    main()
