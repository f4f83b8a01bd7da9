"""How soon the page of a large study is there: 100, 1,000 and 10,000 trials of up to 60 epochs in SQLite, in Chromium.

`optuna` is optuna-dashboard alone, `ours` the same with guard, note, figures and artifacts, and `before` that of
another checkout, if `--before FOLDER` names one. Each is a new process, asked as soon as it listens: for the data, for
the data again, and for what an open page asks (`?after=`). In brackets stands the time of the server's processor, which
says more on a machine that does other things too. The page is opened three times, in a browser that has never seen a
dashboard: it has to fetch and compile its program, which it keeps, as browsers do, from the third time on. A second
table has the commands that look at such a study. `--postgresql` puts the studies on a server of its own.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import optuna
import psutil
from playwright.sync_api import Error, sync_playwright

from benchmarks.common import machine, options, table
from face3d_tune.storage.database import Storage

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from chromium import QUIET, executable
from servers import server
from stored_study import add_many, many_trials, our_study

ROOT = Path(__file__).parent.parent
_UPSTREAM = """
import sys, optuna, optuna_dashboard
from wsgiref.simple_server import make_server
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.get_storage(optuna.storages.RDBStorage(sys.argv[1]))
server = make_server("127.0.0.1", 0, optuna_dashboard.wsgi(storage))
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
"""
_COMMANDS = {"status": ("status",), "watch": ("watch",), "report": ("report", "-o", "-")}
_LONGEST = 120  # seconds for a page
Times = list[tuple[float, ...]]


@contextmanager
def serving(kind: str, url: str, package: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Its address and its process, until the block ends."""
    ours = ["-m", "face3d_tune", "dashboard", "--port", "0", "--storage", url]
    started = subprocess.Popen(
        [sys.executable, "-P", *(["-c", _UPSTREAM, url] if kind == "optuna" else ours)],
        env={**os.environ, "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert started.stdout is not None
        address = re.search(r"http://[\d.:]+", started.stdout.readline())
        assert address is not None
        yield address[0], psutil.Process(started.pid)
    finally:
        started.kill()
        started.wait()


def fetched(address: str, server: psutil.Process, after: int = 0) -> tuple[float, float, int]:
    """Seconds for the data of the study's page, of the server's processor among them, and bytes sent."""
    started, before = time.perf_counter(), sum(server.cpu_times()[:2])
    asked = f"{address}/api/studies/1" + (f"?after={after}" if after else "")
    request = urllib.request.Request(asked, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        size = len(answer.read())
    return time.perf_counter() - started, sum(server.cpu_times()[:2]) - before, size


def shown(browser, address: str) -> float:
    """Seconds until the study's page shows its first heading; infinite if it does not in time."""
    with browser.new_page() as page:
        started = time.perf_counter()
        try:
            page.goto(f"{address}/dashboard/studies/1")
            page.get_by_role("heading", name="History").wait_for(timeout=1000 * _LONGEST)
        except Error:
            return float("inf")
        return time.perf_counter() - started


def measured(playwright, kind: str, url: str, count: int, package: Path) -> tuple[float, ...]:
    """One row of numbers of one server."""
    with serving(kind, url, package) as (address, server), tempfile.TemporaryDirectory() as profile:
        first, again, refresh = (fetched(address, server, after) for after in (0, 0, count))
        memory = server.memory_info().rss / 2**20
        browser = playwright.chromium.launch_persistent_context(profile, executable_path=executable(), args=QUIET)
        seen = [shown(browser, address) for _ in range(3)]
        browser.close()
    numbers = [number for asked in (first, again, refresh) for number in asked[:2]]
    return (*numbers, first[2] / 1e6, memory, seen[0], seen[-1])


def timed(words: tuple[str, ...], url: str, package: Path) -> tuple[float, float]:
    """Seconds of a command, and of its processor."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-P", "-m", "face3d_tune", *words, "--storage", url],
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return after.elapsed - before.elapsed, spent


def median_row(times: Times) -> list[float]:
    """Return the median of every number."""
    return [statistics.median(column) for column in zip(*times, strict=True)]


def compare(playwright, count: int, packages: Mapping[str, Path], repeats: int, *, postgresql: bool = False) -> None:
    """Print both tables of a study of so many trials."""
    with tempfile.TemporaryDirectory() as folder, server() if postgresql else nullcontext() as database:
        place = Storage.parse(database.new_database() if database else f"sqlite:///{folder}/studies.db")
        url = str(place)
        with place.opened(create=True) as opened:
            study = our_study(opened, "faces", effort={"trials": count // 2, "sampler": "tpe", "pruner": "median"})
            add_many(study, opened, many_trials(count))
        found: dict[str, Times] = {name: [] for name in packages}
        commands: dict[tuple[str, str], Times] = {(name, word): [] for name in packages for word in _COMMANDS}
        for _ in range(repeats):
            for name, package in packages.items():
                found[name].append(measured(playwright, name, url, count, package))
                if name != "optuna":
                    for word, words in _COMMANDS.items():
                        commands[name, word].append(timed(words, url, package))
    rows = []
    for name, times in found.items():
        first, first_cpu, again, again_cpu, refresh, refresh_cpu, size, memory, page, page_again = median_row(times)
        asked = ((first, first_cpu), (again, again_cpu), (refresh, refresh_cpu))
        rows.append(
            (
                name,
                *(f"{wall:.2f} ({cpu:.2f})" for wall, cpu in asked),
                f"{size:.2f}",
                f"{memory:.0f}",
                f"{page:.2f}",
                f"{page_again:.2f}",
            )
        )
    titles = ("data at first, s", "again, s", "refresh, s", "sent, MB", "memory, MB", "page at first, s", "again, s")
    table((f"{count} trials", *titles), rows)
    lines = [
        (name, *("{:.2f} ({:.2f})".format(*median_row(commands[name, word])) for word in _COMMANDS))
        for name in packages
        if name != "optuna"
    ]
    table((f"{count} trials", *(f"{word}, s" for word in _COMMANDS)), lines)


def main() -> None:
    """Write studies, then look at them."""
    parser = options(__doc__)
    parser.add_argument("--before", type=Path, help="another checkout of this repository, to compare with")
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--postgresql", action="store_true", help="on a server, not in SQLite")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(machine(), flush=True)
    packages = {"optuna": ROOT} | ({"before": asked.before.resolve()} if asked.before else {}) | {"ours": ROOT}
    with sync_playwright() as playwright:
        for count in [50] if asked.quick else asked.trials:
            repeats = 1 if asked.quick or count > 1000 else 3
            compare(playwright, count, packages, repeats, postgresql=asked.postgresql)


if __name__ == "__main__":
    main()
