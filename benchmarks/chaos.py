"""A search to which everything happens: workers are killed, frozen and thawed, and the database crashes.

    python -m benchmarks.chaos

Real workers on a real PostgreSQL with a cheap real training. Triggers write down what happens to every trial; at the
end `history.violations` has to find nothing, and trials trained again from their config and seed have to give, bit for
bit, what the study holds. Ends with exit code 1 if anything is wrong.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch
from forked import Run
from optuna.trial import FrozenTrial
from servers import Server, server

from benchmarks.studies import WatchedStudy

SILENCE = 3.0  # seconds without a sign of life


@dataclass(slots=True)
class Report:
    """What was done to a search, and what became of it."""

    kills: int = 0
    restarts: int = 0
    freezes: int = 0
    started: int = 0  # workers
    seconds: float = 0.0
    trials: list[FrozenTrial] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Chaos:
    """Workers of one study, whatever happens to them."""

    def __init__(
        self, folder: Path, host: Server, workers: int, total: int, dice: random.Random, silence: float = SILENCE
    ) -> None:
        self.report, self.log, self._host, self._dice = Report(), folder / "log", host, dice
        self._study = WatchedStudy(folder, host, total)
        self._silence, self._words = silence, self._study.words(self._study.url, silence)
        self._workers: list[Run | None] = [None] * workers
        self._frozen: dict[int, float] = {}  # place of a worker, and when it is thawed

    def run(self, kills: int, restarts: int, freezes: int) -> Report:
        """Search to the end, and see what the history says."""
        began, finished, total = time.monotonic(), 0, self._study.total
        while finished < total or any(worker and worker.poll() is None for worker in self._workers):
            self._thaw()
            if finished < total:
                self._replace_dead()
                done = min(1.0, 1.25 * finished / total)  # the last trials are left in peace
                if self.report.restarts < restarts * done:
                    self._host.restart("immediate")
                    self.report.restarts += 1
                elif self.report.freezes < freezes * done and not self._frozen:
                    self._freeze()
                elif self.report.kills < kills and self.report.kills <= kills * done:
                    self._kill()
            time.sleep(self._dice.uniform(0.05, 0.4))
            finished = self._study.finished()
        self.report.seconds = time.monotonic() - began
        self.report.trials, self.report.wrong = self._study.judge(self._dice)
        return self.report

    def _replace_dead(self) -> None:
        environment = {**os.environ, "FACE3D_TUNE_ENGINE": "plain"}
        for place, worker in enumerate(self._workers):
            if worker is None or worker.poll() is not None:
                with self.log.open("ab") as log, open(os.devnull) as nothing:
                    streams = (nothing.fileno(), log.fileno(), log.fileno())
                    self._workers[place] = Run(self._words, cwd=self.log.parent, env=environment, streams=streams)
                self.report.started += 1

    def _any(self) -> int | None:
        awake = [place for place, worker in enumerate(self._workers) if worker and worker.poll() is None]
        awake = [place for place in awake if place not in self._frozen]
        return self._dice.choice(awake) if awake else None

    def _kill(self) -> None:
        if (place := self._any()) is not None:
            self._workers[place].kill()
            self._workers[place].wait()
            self.report.kills += 1

    def _freeze(self) -> None:
        if (place := self._any()) is not None:
            os.kill(self._workers[place].pid, signal.SIGSTOP)
            self._frozen[place] = time.monotonic() + 2 * self._silence
            self.report.freezes += 1

    def _thaw(self) -> None:
        for place in [place for place, until in self._frozen.items() if time.monotonic() > until]:
            os.kill(self._workers[place].pid, signal.SIGCONT)
            del self._frozen[place]


def chaos(
    *, trials: int, workers: int, kills: int, restarts: int, freezes: int, seed: int, silence: float = SILENCE
) -> tuple[Report, str]:
    """Let it happen; the report, and what the workers printed."""
    with server() as host, tempfile.TemporaryDirectory() as folder:
        made = Chaos(Path(folder), host, workers, trials, random.Random(seed), silence)
        report = made.run(kills, restarts, freezes)
        return report, made.log.read_text(encoding="utf-8")


def main() -> int:
    """Print what happened; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("trials", 200), ("workers", 4), ("kills", 60), ("restarts", 5), ("freezes", 5), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"[{default}]")
    parser.add_argument("--log", type=Path, help="write what the workers print into this file")
    given = vars(parser.parse_args())
    path = given.pop("log")
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    report, log = chaos(**given)
    if path:
        path.write_text(log, encoding="utf-8")
    states = [trial.state.name.lower() for trial in report.trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    resumed = sum(trial.user_attrs.get("resumed_epochs", 0) > 0 for trial in report.trials)
    deaths = max((trial.user_attrs.get("deaths", 0) for trial in report.trials), default=0)
    print(f"done to it   {report.kills} kills, {report.restarts} crashes of the database, {report.freezes} freezes")
    print(f"workers      {given['workers']} at a time, {report.started} started, {report.seconds:.0f} s")
    print(f"trials       {counted}; {resumed} went on at a later epoch; {deaths} deaths at most")
    print(f"wrong        {len(report.wrong)}", *report.wrong, sep="\n             ")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
