"""Sixteen workers on one PostgreSQL whose trainings take no time: how fast trials are asked for and told.

    python -m benchmarks.many_workers

For studies that hold 100, 1,000 and 10,000 trials already: finished trials a second of all workers together, the time
of one ask (with its wait for the other workers), of sampling, and of one tell, and the connections of all at most.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from multiprocessing.queues import Queue
from pathlib import Path
from statistics import quantiles
from typing import Any

import optuna
import sqlalchemy
import torch
from fake_data import write_data
from optuna.distributions import FloatDistribution, distribution_to_json
from servers import Server, server
from sqlalchemy import bindparam, text

from face3d_tune.data import face_data
from face3d_tune.executor.tasks import Event, Task
from face3d_tune.search.trainer_search import TrainerSearch, open_search
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings
from face3d_tune.training.base import EpochResult

EPOCHS = 10  # that each trial of the study has reported
FILL = """
insert into trials (number, study_id, state, datetime_start, datetime_complete)
    select n, 1, 'COMPLETE', now(), now() from generate_series(0, :trials - 1) n;
insert into trial_values (trial_id, objective, value, value_type)
    select trial_id, 0, random(), 'FINITE' from trials where state = 'COMPLETE';
insert into trial_params (trial_id, param_name, param_value, distribution_json)
    select trial_id, name, low + random() * (high - low), dist from trials, space where state = 'COMPLETE';
insert into trial_user_attributes (trial_id, key, value_json)
    select trial_id, 'ordinal', number::text from trials where state = 'COMPLETE';
insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    select trial_id, step, random(), 'FINITE' from trials, generate_series(1, :epochs) step where state = 'COMPLETE';
analyze;
"""


class Instant:
    """A slot that gives the only epoch of a training at once."""

    engine, count = "instant", 1

    def start(self, task: Task) -> None:
        """Take it."""
        self._number = task.number

    def drop(self, number: int) -> None:
        """Nothing to drop."""

    def save_next(self) -> None:
        """Nothing to save."""

    def wait(self) -> list[Event]:
        """Return the epoch."""
        cosine = (self._number * 37 % 100) / 100
        result = EpochResult(1, 1e-3, 0.5, 1 - cosine, 1 - cosine, cosine, {}, True, 1e-3, "finished", 0.0)
        return [Event(self._number, result)]

    def close(self) -> None:
        """Nothing to close."""


class Silent:
    """A watcher to whom nothing matters."""

    def stopping(self) -> bool:
        """Never."""
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def _search(storage: Any, folder: Path) -> TrainerSearch:
    setup = Setup(face_data.load(folder), torch.device("cpu"), "off")
    file = study_file.read("default").bind("keypoint", setup.data.feature_size, EPOCHS)
    return open_search(storage, "default", file, Settings("keypoint", EPOCHS, None), setup)


def _work(url: str, folder: Path, total: int, results: "Queue[dict[str, list[float]]]") -> None:
    """One worker, to the end of the study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    took: dict[str, list[float]] = {"ask": [], "sample": [], "tell": []}

    def timed(owner: Any, name: str, key: str) -> None:
        original = getattr(owner, name)

        def measured(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            given = original(*arguments, **named)
            if given is not None:
                took[key].append(time.perf_counter() - began)
            return given

        setattr(owner, name, measured)

    with Storage.parse(url).opened(create=True) as storage:
        search = _search(storage, folder)
        timed(search.queue, "ask", "ask")
        timed(search, "_begin", "sample")
        timed(search.queue, "tell", "tell")
        search.run(total, Silent(), slots=Instant())
    results.put(took)


def measure(host: Server, folder: Path, held: int, workers: int, more: int) -> str:
    """One line of the table."""
    url = host.new_database()
    with Storage.parse(url).opened(create=True) as storage:
        search = _search(storage, folder)
        with storage.engine.begin() as database:
            database.execute(text("create table space (name text, low float, high float, dist text)"))
            for name, row in search.file.space.items():
                low, high = (row.low, row.high) if hasattr(row, "low") else (0, len(row.choices) - 1)
                values = {"name": name, "low": low, "high": high, "dist": distribution_to_json(row)}
                database.execute(text("insert into space values (:name, :low, :high, :dist)"), values)
            for statement in FILL.strip().rstrip(";").split(";"):
                database.execute(text(statement), {"trials": held, "epochs": EPOCHS} if ":" in statement else {})
            whole = "update trial_params set param_value = round(param_value::numeric) where param_name in :whole"
            names = [name for name, row in search.file.space.items() if not isinstance(row, FloatDistribution)]
            database.execute(text(whole).bindparams(bindparam("whole", expanding=True)), {"whole": names})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["face3d_tune.search.trainer_search"])
    results: Queue[dict[str, list[float]]] = context.Queue()
    processes = [context.Process(target=_work, args=(url, folder, held + more, results)) for _ in range(workers)]
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        others = "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        question = text(f"select count(*) from pg_stat_activity where {others}")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            while not over.wait(0.05):
                most = max(most, database.execute(question).scalar_one())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for process in processes:
        process.start()
    took: dict[str, list[float]] = {"ask": [], "sample": [], "tell": []}
    for _ in processes:
        for key, seconds in results.get(timeout=300).items():
            took[key] += seconds
    for process in processes:
        process.join()
    over.set()
    watcher.join()
    span = "extract(epoch from max(datetime_complete) - min(datetime_start))"
    question = (
        f"select count(*), count(distinct number), {span} from trials where state = 'COMPLETE' and number >= :held"
    )
    with engine.connect() as database:
        count, numbers, seconds = database.execute(text(question), {"held": held}).one()
    engine.dispose()
    assert (count, numbers) == (more, more), f"{count} trials with {numbers} numbers, not {more}"
    cells = [f"{statistics.median(each) * 1e3:6.0f} {quantiles(each, n=20)[-1] * 1e3:6.0f}" for each in took.values()]
    return f"{held:7d} {more / float(seconds):9.1f}   {'   '.join(cells)}   {most:3d}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--more", type=int, default=160, help="trials that they add [160]")
    parser.add_argument("--held", type=int, nargs="+", default=[100, 1000, 10_000], help="trials that are there before")
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{given.workers} workers; milliseconds, median and 95th percentile")
    print("   held  trials/s      ask   95%    sample   95%      tell   95%   connections")
    with server("max_connections = 60") as host, tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for held in given.held:
            print(measure(host, Path(folder), held, given.workers, given.more), flush=True)


if __name__ == "__main__":
    main()
