"""Runs that are ended in every way that there is, at random moments, until their search is done all the same.

    python -m benchmarks.kills

Real runs of `face3d-tune run` with cheap real trainings: one with two slots on SQLite, then three workers on a real
PostgreSQL. The study must end as an undisturbed one: the same parameters, values and curves, bit for bit, the exact
total, nothing running, no epoch that was reported trained again, and every process gone within 20 s of its signal.
Ends with exit code 1 if anything is wrong.

A trial whose processes died three times is spared a fourth time, after which it would fail for good.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy
import torch
from changes import broken_ends, read, record, violations
from fake_data import write_data
from optuna.trial import FrozenTrial
from servers import server

from benchmarks.common import machine
from face3d_tune.cli.main import main as main_of_cli
from face3d_tune.data import face_data
from face3d_tune.executor import child_start
from face3d_tune.executor.tasks import RETRIES
from face3d_tune.search.trainer_search import open_search
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings
from face3d_tune.study.trials import FINISHED
from face3d_tune.system import signals

EPOCHS = 4
SILENCE = 3.0  # seconds without a heartbeat after which a worker is dead
_PAUSE = 3.0  # seconds between two kills at most
GONE = 20.0  # seconds after its signal in which a run must be gone
HANGS = 300.0  # seconds without anything new after which this benchmark gives up
STUDY = """
[study]
presets = ["baseline", "recommended"]
[budget]
epochs = 4
[sampler]
name = "random"
[pruner]
name = "none"
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 3e-3, scale = "log" }
dropout = { low = 0.0, high = 0.5 }
scheduler_min_lr = { low = 1e-8, high = 1e-5, scale = "log" }
"""


def _work(words: list[str], log: str) -> None:
    """Be one run, in a process group of its own, as a shell starts it."""
    for number in signals.ENDING:  # whatever this benchmark was told to ignore, as by nohup
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    forks = _Forks()
    child_start.context = lambda: forks  # type: ignore[assignment, return-value]
    main_of_cli(words)


class _Forks:
    """A context whose processes are forks, without their parent's ends of pipes: as if they had been started."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._parents_ends: list[Any] = []

    def Pipe(self) -> tuple[Any, Any]:
        ours, theirs = self._context.Pipe()
        self._parents_ends.append(ours)
        return ours, theirs

    def Process(self, *, target: Any, args: Any, daemon: bool) -> Any:
        def run() -> None:
            for each in self._parents_ends:
                with contextlib.suppress(OSError):
                    each.close()
            target(*args)

        return self._context.Process(target=run, daemon=daemon)


class Run:
    """One `face3d-tune run`: a process forked from one that has loaded everything, and so are those that train."""

    def __init__(self, context: Any, words: list[str], log: Path) -> None:
        self.process = context.Process(target=_work, args=(words, str(log)))
        self.process.start()
        self.pid, self.ended = int(self.process.pid), False
        with contextlib.suppress(ProcessLookupError):
            while os.getpgid(self.pid) != self.pid:
                time.sleep(0.005)

    @property
    def alive(self) -> bool:
        """Whether its main process runs."""
        return bool(self.process.is_alive())

    def left(self) -> list[int]:
        """Return the processes of its group that still run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def children(self) -> list[int]:
        """Return the processes that train for it."""
        return [pid for pid in self.left() if pid != self.pid]


def _double_interrupt(run: Run, dice: random.Random) -> None:
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(dice.uniform(0.0, 0.6))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGINT)


def _stop_and_kill(run: Run, dice: random.Random) -> None:
    os.kill(run.pid, signal.SIGSTOP)
    time.sleep(dice.uniform(0.0, 2 * SILENCE))
    os.kill(run.pid, signal.SIGKILL)


def _kill_child(run: Run, dice: random.Random) -> None:
    os.kill(dice.choice(run.children()), signal.SIGKILL)


MILD: dict[str, Callable[[Run, random.Random], object]] = {  # no trial dies of these
    "TERM": lambda run, dice: os.kill(run.pid, signal.SIGTERM),
    "HUP": lambda run, dice: os.killpg(run.pid, signal.SIGHUP),
    "double INT": _double_interrupt,
}
KINDS = {
    "kill": lambda run, dice: os.kill(run.pid, signal.SIGKILL),
    "group kill": lambda run, dice: os.killpg(run.pid, signal.SIGKILL),
    "child kill": _kill_child,
    "STOP + kill": _stop_and_kill,
    **MILD,
}


@dataclass(slots=True)
class Report:
    """What was done to a search, and what became of it."""

    kills: Counter[str] = field(default_factory=Counter)
    in_training: int = 0  # kills of a run that had reported an epoch
    started: int = 0  # runs
    seconds: float = 0.0
    slowest: dict[str, float] = field(default_factory=dict)  # seconds until all processes were gone, by kind
    trials: list[FrozenTrial] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def gone(self, kind: str, seconds: float) -> None:
        """Remember how long the processes of a run lived after its signal."""
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), seconds)
        if seconds > GONE:
            self.wrong.append(f"processes lived {seconds:.1f} s after {kind}")


class Kills:
    """Runs of one study, however they are ended."""

    def __init__(self, folder: Path, url: str, words: list[str], workers: int, total: int, dice: random.Random) -> None:
        self._context = multiprocessing.get_context("forkserver")
        late = [
            "face3d_tune.search.trainer_search",
            "face3d_tune.executor.plan",
            "face3d_tune.executor.processes",
            "face3d_tune.cli.progress",
            "face3d_tune.cli.result_tables",
        ]
        self._context.set_forkserver_preload(["benchmarks.chaos", "torch._dynamo", *late])
        self.report, self.log = Report(), folder / "log"
        self._url, self._total, self._dice = url, total, dice
        self._words = [*words, "--storage", url, "--artifacts", str(folder / "artifacts"), "--trials", str(total)]
        data = face_data.load(Path(words[words.index("--data-dir") + 1]))
        with Storage.parse(url).opened(create=True) as storage:  # whose tables are there to be watched
            file = study_file.read(words[words.index("--study") + 1]).bind("keypoint", data.feature_size, EPOCHS)
            setup = Setup(data, torch.device("cpu"), "off")
            open_search(storage, "study", file, Settings("keypoint", EPOCHS, None), setup)
            self._recorded = storage.engine.dialect.name == "postgresql"
            if self._recorded:
                record(storage.engine)
        self._engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        self._runs: list[Run | None] = [None] * workers
        self._ending: list[tuple[str, float, Run]] = []  # kind, time of its signal

    def run(self, kills: int) -> Report:
        """Search to the end, kill so often on the way, and judge what the study holds."""
        began = time.monotonic()
        while self.report.kills.total() < kills:
            self._start_missing()
            heard, early = self._epochs(), self._finished() * kills <= 0.8 * self._total * self.report.kills.total()
            if early and self._dice.random() < 0.8:  # in training, else while a run starts
                self._wait_for_more(heard)
            patience = self._dice.uniform(0.0, _PAUSE if early else _PAUSE / 10)  # the last kill comes before the end
            self._wait(lambda: not any(run and run.alive for run in self._runs), patience)
            self._kill_one(self._epochs() > heard)
            if self._finished() >= self._total:
                self.report.wrong.append(f"the search was done after {self.report.kills.total()} kills")
                break
        give_up = time.monotonic() + HANGS
        while self._finished() < self._total and time.monotonic() < give_up:
            self._start_missing()
            self._wait(lambda: not all(run and run.alive for run in self._runs), 1.0)
        self._wait(lambda: not any(run and run.alive for run in self._runs), HANGS)
        for run in filter(None, self._runs):
            if not run.ended and run.process.exitcode != 0:
                self.report.wrong.append(f"a run that was left alone ended with exit code {run.process.exitcode}")
        self.report.seconds = time.monotonic() - began
        self._judge()
        return self.report

    def _wait_for_more(self, heard: int) -> None:
        """Wait for another epoch."""
        self._wait(lambda: self._epochs() > heard or not any(run and run.alive for run in self._runs), HANGS)

    def _wait(self, condition: Callable[[], bool], patience: float) -> None:
        """Wait for it, and watch the runs that a signal is about to end."""
        give_up = time.monotonic() + patience
        while not condition() and time.monotonic() < give_up:
            self._look_at_ending()
            time.sleep(0.05)

    def _start_missing(self) -> None:
        for place, run in enumerate(self._runs):
            if run is None or not run.alive:
                self._runs[place] = Run(self._context, self._words, self.log)
                self.report.started += 1

    def _kill_one(self, trained: bool) -> None:
        run = self._dice.choice([run for run in self._runs if run and run.alive] or [None])
        if run is None:
            return
        kinds = MILD if self._most_deaths() >= RETRIES else KINDS
        kind = self._dice.choice([kind for kind in kinds if kind != "child kill" or run.children()])
        since = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            KINDS[kind](run, self._dice)
        self.report.kills[kind] += 1
        self.report.in_training += trained
        if kind == "child kill":
            return
        run.ended = True
        self._ending.append((kind, time.monotonic() if kind == "STOP + kill" else since, run))
        if len(self._runs) == 1:  # the file is free when the run is gone
            self._wait(lambda: not self._ending, 3 * GONE)

    def _look_at_ending(self) -> None:
        for entry in list(self._ending):
            kind, since, run = entry
            if not run.alive and not run.left():
                self._ending.remove(entry)
                self.report.gone(kind, time.monotonic() - since)
            elif time.monotonic() - since > 3 * GONE:
                self._ending.remove(entry)
                self.report.wrong.append(f"after {kind} {run.left()} did not end")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)

    def _asked(self, question: str) -> Any:
        with self._engine.connect() as database:
            return database.execute(sqlalchemy.text(question)).scalar() or 0

    def _epochs(self) -> int:
        """Return how many epochs are reported, those that a successor reports again included."""
        return int(self._asked("select count(*) from trial_intermediate_values"))

    def _finished(self) -> int:
        states = ", ".join(f"'{state.name}'" for state in FINISHED)
        return int(self._asked(f"select count(*) from trials where state in ({states})"))

    def _most_deaths(self) -> int:
        """Return the deaths of the trial in training or in the queue that has the most."""
        return int(
            self._asked(
                "select max(cast(value_json as integer)) from trial_user_attributes a join trials t "
                "on t.trial_id = a.trial_id where a.key = 'deaths' and t.state in ('RUNNING', 'WAITING')"
            )
        )

    def _judge(self) -> None:
        with Storage.parse(self._url).opened() as storage:
            self.report.trials = optuna.load_study(study_name="study", storage=storage).trials
            trials = self.report.trials
            self.report.wrong += (
                violations(read(storage.engine), trials, self._total)
                if self._recorded
                else broken_ends(trials, self._total)
            )
        for trial in self.report.trials:
            if trial.state in FINISHED and (repeated := self._heard_before(trial) - _resumed(trial)) > 0:
                self.report.wrong.append(f"trial {trial.number} trained {repeated} epochs again that were reported")
        self._engine.dispose()

    def _heard_before(self, trial: FrozenTrial) -> int:
        """Return the last epoch that a trial's predecessors have reported."""
        heard = 0
        while (before := trial.user_attrs.get("retry_of")) is not None:
            trial = self.report.trials[before]
            heard = max(heard, max(trial.intermediate_values, default=0))
        return heard


def _resumed(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get("resumed_epochs", 0))


def found(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """Return of every finished trial what does not depend on when it ran."""
    finished = [trial for trial in trials if trial.state in FINISHED]
    return sorted(
        (t.user_attrs["ordinal"], sorted(t.params.items()), t.user_attrs["seed"], t.value, t.intermediate_values)
        for t in finished
    )


@contextmanager
def storages(folder: Path) -> Iterator[Mapping[str, tuple[str, int, int]]]:
    """Return the databases, and for each its workers and their slots."""
    with server() as host:
        yield {
            "SQLite": (f"sqlite:///{folder / 'SQLite' / 'studies.db'}", 1, 2),
            "PostgreSQL": (host.new_database(), 3, 1),
        }


def main() -> int:
    """Print what happened; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = (("trials", 120), ("sqlite", 60), ("postgresql", 40), ("seed", 1))
    helps = {"trials": "finished trials of each study", "sqlite": "kills on SQLite", "postgresql": "kills there"}
    for name, default in defaults:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{helps.get(name, name)} [{default}]")
    parser.add_argument("--log", type=Path, help="write what the runs print into this file")
    given = parser.parse_args()
    print(machine(), flush=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wrong = 0
    with tempfile.TemporaryDirectory() as name, storages(Path(name)) as places:
        folder = Path(name)
        write_data(folder / "data")
        (folder / "study.toml").write_text(STUDY, encoding="utf-8")
        words = ["run", "--study", str(folder / "study.toml"), "--data-dir", str(folder / "data"), "--device", "cpu"]
        words += ["--engine", "batched", "--worker-timeout", f"{SILENCE}s"]
        expected: list[tuple[Any, ...]] = []
        for kind, (url, workers, slots) in {
            "undisturbed": (f"sqlite:///{folder / 'undisturbed' / 'studies.db'}", 1, 2),
            **places,
        }.items():
            (folder / kind).mkdir()
            each = [*words, "--slots", str(slots)]
            made = Kills(folder / kind, url, each, workers, given.trials, random.Random(given.seed))
            kills = {"undisturbed": 0, "SQLite": given.sqlite, "PostgreSQL": given.postgresql}[kind]
            report = made.run(kills)
            log = made.log.read_text(encoding="utf-8", errors="replace")
            if given.log:
                with given.log.open("a", encoding="utf-8") as file:
                    file.write(f"== {kind}\n{log}")
            expected = expected or found(report.trials)
            if found(report.trials) != expected:
                report.wrong.append("the finished trials are not those of the undisturbed search")
            wrong += len(report.wrong)
            _print(kind, workers, slots, report)
    return 1 if wrong else 0


def _print(kind: str, workers: int, slots: int, report: Report) -> None:
    states = Counter(trial.state.name.lower() for trial in report.trials)
    retried = [trial for trial in report.trials if trial.state in FINISHED and "retry_of" in trial.user_attrs]
    deaths = max((trial.user_attrs.get("deaths", 0) for trial in report.trials), default=0)
    slowest = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(report.slowest.items()))
    print(f"\n{kind}: {workers} worker(s), {slots} slot(s) each; {report.started} runs, {report.seconds:.0f} s")
    print(f"kills    {report.kills.total()}, {report.in_training} in training: {dict(report.kills)}")
    print(
        f"trials   {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}; {deaths} deaths at most"
    )
    resumed = sum(_resumed(trial) > 0 for trial in retried)
    print(f"retried  {len(retried)} of the finished, {resumed} went on at a later epoch")
    print(f"gone     at the latest after: {slowest or 'nothing was ended'}")
    print(f"wrong    {len(report.wrong)}", *report.wrong, sep="\n         ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
