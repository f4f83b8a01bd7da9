"""A search through broken networks: connections are reset, held, silenced, refused, delayed, and lose their answers.

    python -m benchmarks.network --minutes 10 --seed 1

Real workers, each behind a network of its own (`faulty_network`), search a real PostgreSQL; what happens to which
network, and when, is drawn from the seed. A worker counts a silent server as gone after 4 seconds, not 15, so that
more happens. Studies follow each other until the time is over. Of each, every worker has to end with exit code 0, the
total has to be exact, and `studies.WatchedStudy.judge` has to find nothing. Ends with exit code 1 if anything is wrong.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch
from faulty_network import FaultyNetwork
from forked import Run
from servers import Server, server
from sqlalchemy import make_url

from benchmarks.studies import WatchedStudy
from face3d_tune.study.attrs import TrialAttr

SILENCE = 5.0  # seconds without a heartbeat after which a worker's trials go to others
LONGEST = 6.0  # seconds of a hole: longer than SILENCE, so that some workers lose their trials
PATIENCE = 240.0  # seconds in which a study has to end once its network is well
FAULTS = ("reset", "hole", "silence", "refuse", "latency", "lost_writes", "cut_answers")


def be_short_of_patience() -> None:
    """Let this worker, before it starts, take a server for gone after 4 seconds of silence."""
    from face3d_tune.storage import bounded_psycopg, server_lock

    bounded_psycopg.SILENCE, server_lock._LOCK_TRY = 4.0, 2


@dataclass(slots=True)
class Report:
    """What was done to the searches, and what became of them."""

    studies: int = 0
    drawn: Counter[str] = field(default_factory=Counter)  # faults
    met: Counter[str] = field(default_factory=Counter)  # connections and messages, by what happened to them
    states: Counter[str] = field(default_factory=Counter)  # of trials
    requeued: int = 0
    absences: int = 0  # that workers told of
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counted = {
            name: ", ".join(f"{n} {what}" for what, n in sorted(each.items())) for name, each in self._counters()
        }
        return "\n".join(
            (
                f"studies      {self.studies} in {self.seconds:.0f} s; trials: {counted['states']}",
                f"drawn        {counted['drawn']}",
                f"met          {counted['met']}",
                f"workers      told of {self.absences} absences; {self.requeued} trials were queued again",
                "\n             ".join((f"wrong        {len(self.wrong)}", *self.wrong)),
            )
        )

    def _counters(self) -> list[tuple[str, Counter[str]]]:
        return [("drawn", self.drawn), ("met", self.met), ("states", self.states)]


class Round:
    """One study, and its workers behind their networks."""

    def __init__(self, study: WatchedStudy, workers: int, every: float, dice: random.Random, report: Report) -> None:
        self._study, self._every, self._dice, self._report = study, every, dice, report
        self.log = study.folder / "log"
        url = make_url(study.url)
        socket = os.path.join(str(url.query["host"]), f".s.PGSQL.{url.port or 5432}")
        self._networks = [FaultyNetwork(socket) for _ in range(workers)]
        self._workers = []
        for network in self._networks:
            through = url.set(host="127.0.0.1", port=network.port, query={}).render_as_string(hide_password=False)
            self._workers.append(self._start(study.words(through, SILENCE)))

    def _start(self, words: list[object]) -> Run:
        environment = {**os.environ, "FACE3D_TUNE_ENGINE": "plain"}
        with self.log.open("ab") as log, open(os.devnull) as nothing:
            streams = (nothing.fileno(), log.fileno(), log.fileno())
            first = ("benchmarks.network", "be_short_of_patience", {})
            return Run(words, cwd=self._study.folder, env=environment, streams=streams, first=first)

    def run(self, until: float) -> None:
        """Search to the end, with faults until a time of time.monotonic; note what is wrong."""
        while self._begun() < len(self._workers) and self._alive():
            time.sleep(0.1)  # a worker may end if it cannot reach the database as it starts
        while self._alive() and time.monotonic() < until:
            self._draw()
            time.sleep(self._dice.uniform(0.3, 1.7) * self._every)
        self._be_well()
        give_up = time.monotonic() + PATIENCE
        while self._alive() and time.monotonic() < give_up:
            time.sleep(0.1)
        self._end()

    def _begun(self) -> int:
        return sum(line.startswith("engine ") for line in self.log.read_text(encoding="utf-8").splitlines())

    def _alive(self) -> bool:
        return any(worker.poll() is None for worker in self._workers)

    def _draw(self) -> None:
        """Let a fault happen to one network, or to all."""
        fault, seconds = self._dice.choice(FAULTS), self._dice.uniform(0.5, LONGEST)
        one, all_of_them = self._dice.choice(self._networks), self._dice.random() < 0.2
        amount, delay = self._dice.randint(1, 3), self._dice.choice((0.0, 0.02, 0.1, 0.3))
        self._report.drawn[fault] += 1
        for network in self._networks if all_of_them else [one]:
            match fault:
                case "reset":
                    network.reset()
                case "hole":
                    network.hole(seconds)
                case "silence":
                    network.silence(seconds)
                case "refuse":
                    network.refuse(seconds)
                case "latency":
                    network.delay = delay
                case "lost_writes":
                    network.lost_writes += amount
                case "cut_answers":
                    network.cut_answers += amount

    def _be_well(self) -> None:
        for network in self._networks:
            network.delay, network.lost_writes, network.cut_answers = 0.0, 0, 0

    def _end(self) -> None:
        """Collect what the workers say and what the study holds."""
        report, wrong = self._report, list[str]()
        for place, worker in enumerate(self._workers):
            if worker.poll() is None:
                worker.kill()
                wrong.append(f"worker {place} did not end")
            elif worker.poll() != 0:
                wrong.append(f"worker {place} ended with exit code {worker.poll()}")
        for network in self._networks:
            network.__exit__()
            report.met += network.happened
        log = self.log.read_text(encoding="utf-8")
        report.absences += log.count("the storage does not answer (")
        if "Traceback" in log:
            wrong.append("a traceback was printed")
        trials, found = self._study.judge(self._dice)
        report.states.update(trial.state.name.lower() for trial in trials)
        report.requeued += sum(TrialAttr.requeued.held_by(trial.user_attrs) for trial in trials)
        report.studies += 1
        report.wrong += [f"study {report.studies}: {line}" for line in (*wrong, *found)]


def through_broken_networks(
    *, minutes: float, every: float, workers: int, trials: int, seed: int, host: Server, folder: Path
) -> tuple[Report, str]:
    """Search until the time is over; the report, and what the workers printed."""
    report, dice, logs, began = Report(), random.Random(seed), list[str](), time.monotonic()
    while not report.studies or time.monotonic() < began + 60 * minutes:
        study = WatchedStudy(folder / f"study-{report.studies + 1}", host, trials)
        one = Round(study, workers, every, dice, report)
        one.run(began + 60 * minutes)
        logs.append(f"study {report.studies}\n{one.log.read_text(encoding='utf-8')}")
    report.seconds = time.monotonic() - began
    return report, "\n".join(logs)


def main() -> int:
    """Print what happened; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of faults [10]")
    parser.add_argument("--every", type=float, default=3, help="seconds between two faults, on average [3]")
    for name, default in (("workers", 3), ("trials", 60), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"[{default}]")
    parser.add_argument("--log", type=Path, help="write what the workers print into this file")
    given = vars(parser.parse_args())
    path = given.pop("log")
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with server() as host, tempfile.TemporaryDirectory() as folder:
        report, log = through_broken_networks(**given, host=host, folder=Path(folder))
    if path:
        path.write_text(log, encoding="utf-8")
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
