"""The confirmation of a search over the user's own script: its best trial and the presets, trained again by the script.

The best trial of the study is the winner before anything is trained again, so the new numbers do not choose it. All
candidates share the same fresh seeds. A script without a flag for its seed is repeated instead.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.storages import RDBStorage

from face3d_tune import seeds
from face3d_tune.errors import ExportError, TrainingError
from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import Failure
from face3d_tune.refit import intervals
from face3d_tune.refit.script_candidates import ScriptCandidate
from face3d_tune.refit.stored_trainings import STORED, Record, StoredTrainings, headline, key_of, row_of, trained_trials
from face3d_tune.script import sources
from face3d_tune.script.command import command, seed_for
from face3d_tune.script.flags import Script
from face3d_tune.script.kept_epoch import kept_epoch
from face3d_tune.script.metrics import direction_of, is_result, is_test
from face3d_tune.script.running import trial_folder
from face3d_tune.script.running.numbers import Numbers
from face3d_tune.script.running.tasks import ScriptTask
from face3d_tune.script.running.to_the_end import WholeTraining, to_the_end
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.study.attrs import StoredScript, StudyAttr
from face3d_tune.study.objective import Direction, Objective
from face3d_tune.study.presence import still_present

VERSION = 1  # of the keys of a confirmation
_PHASE = re.compile(r"eval(uation)?|valid(ation)?|val|test|验证|测试", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ScriptJob:
    """One training of a candidate; `number` is that of its seed or repeat, from 1."""

    candidate: ScriptCandidate
    number: int
    seed: int | None  # None: the script has no flag for it
    key: str  # of the user attribute with its result


class ScriptConfirmation(StoredTrainings[ScriptJob]):
    """One confirmation: the trainings that it needs, those stored already, and its result.

    Args:
        study: A study of a script with at least one completed trial.
        storage: The study's storage.
        table: The study's script, where it is now.
        script: Its flags.
        picked: The result of `script_candidates`.
        count: Trainings of each candidate.
        note: Receives lines for the user.

    Raises ExportError if the script cannot be told the values of a candidate.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        table: StoredScript,
        script: Script,
        picked: Sequence[ScriptCandidate],
        count: int,
        note: Callable[[str], object],
    ) -> None:
        self.table, self.picked, self.count = table, picked, count
        self._script, self._note = script, note
        self._objective = Objective.of_study(study.user_attrs)
        name, direction = table["keep"], table["keep_direction"]
        self._keep = Objective(name, direction, script=True) if name else self._objective
        settings = StudyAttr.settings.of(study.user_attrs)
        self._epochs = settings.get("epochs")
        hashes = sources.hashes(Path(table["command"][-1]))
        self.changed = sources.changed(table["sources"], hashes)
        self.seeds: list[int | None] = [
            seed_for(seeds.derive(settings["seed"], "confirm", number)) if table["seed_flag"] else None
            for number in range(count)
        ]
        jobs = [  # by seed, so that an early end treats all candidates alike
            ScriptJob(each, number, seed, self._key(each, number, seed, hashes))
            for number, seed in enumerate(self.seeds, 1)
            for each in picked
        ]
        self._commands = {job.key: self._command(job) for job in jobs}
        super().__init__(study, storage, jobs, note)

    def train(self, slots: Slots, folder: Path, ended: Callable[[ScriptJob, Record], object]) -> None:
        """Train what is missing in slots that work in `folder`, and store each training as it ends.

        Raises TrainingError if a training fails otherwise than by its numbers.
        """
        jobs = dict(enumerate(self.missing))
        tasks = [
            ScriptTask(number, self._commands[job.key], job.key.removeprefix(STORED)) for number, job in jobs.items()
        ]

        def note(task: ScriptTask, line: str) -> None:
            self._note(f"{_named(jobs[task.number])}: {line}")

        for task, given in to_the_end(tasks, slots, note):
            job = jobs[task.number]
            if isinstance(given, Failure) and not given.non_finite:
                raise TrainingError(
                    f"{_named(job)}: {given.message}", "run the same command again: trainings that have ended are kept"
                )
            record: Record = (
                {"error": given.message} if isinstance(given, Failure) else self._record(job, task, given, folder)
            )
            self._store(job, record)
            ended(job, record)

    def conclude(self, command: str, baseline: str | None) -> dict[str, Any]:
        """Compare the candidates; store the result with the study. Raises TrainingError.

        `command` is stored with it. `baseline` names the preset to compare with, instead of the best.
        """
        rows = [self._summary(candidate) for candidate in self.picked]
        winner, *_ = trained_trials(rows)
        presets = [row for row in rows if row["preset"] and row["error"] is None]
        best = max(presets, key=lambda row: self._objective.key(row["mean"]), default=None)
        tests = self._tests(winner, [row for row in rows if row["error"] is None])
        found = {
            "version": VERSION,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "metric": self._objective.name,
            "direction": self._objective.direction,
            "keep": self._keep.name,
            "keep_direction": self._keep.direction,
            "by": "seeds" if self.table["seed_flag"] else "repeats",
            "seed_flag": self.table["seed_flag"],
            "seeds": self.seeds if self.table["seed_flag"] else None,
            "count": self.count,
            "identical": self.count > 1 and all(map(self._identical, filter(None, map(self._trained, self.picked)))),
            "epochs": self._epochs,
            "candidates": rows,
            "winner": winner["name"],
            "tests": tests,
            "against": [self._against(winner, row, tests) for row in presets],
            **headline(presets, best, baseline),
            "over_time": sum(bool(record.get("over_time")) for record in self.records.values()),
            "changed": self.changed,
        }
        with one_at_a_time(self._storage.engine), still_present(self.study, self._own, self._storage.engine):
            self.study.set_user_attr(StudyAttr.script_confirmation.key, found)
        return found

    def _key(self, candidate: ScriptCandidate, number: int, seed: int | None, hashes: Mapping[str, str]) -> str:
        """Return the key of a training: another script, value, number of epochs or seed is another training."""
        extra = [self.table.get("arguments", []), self._epochs]
        return key_of([dict(candidate.config), seed, None if seed is not None else number, dict(hashes), *extra])

    def _command(self, job: ScriptJob) -> tuple[str, ...]:
        composed = command(self.table, self._script, job.candidate.config, seed=job.seed, epochs=self._epochs)
        if composed.missing:
            raise ExportError(
                f"{self._script.path} cannot express {'; '.join(composed.missing)}, values of {job.candidate.name}",
                "name the script that the study searched with --script",
            )
        return tuple(composed.words)

    def _record(self, job: ScriptJob, task: ScriptTask, trained: WholeTraining, folder: Path) -> Record:
        """Return what is stored of a training: its numbers at the kept epoch, and its test numbers."""
        best = kept_epoch(trained.epochs, self._keep, self._objective)
        for stray in trained.ended.strays:
            self._note(f"{_named(job)}: the script left a process running, which was ended: {stray}")
        if trained.ended.changed:
            self._note(f"{_named(job)}: changed beside the script meanwhile: {', '.join(trained.ended.changed)}")
        return {
            "numbers": dict(trained.epochs[best - 1]),
            "tests": _tests(folder, task.key, best, len(trained.epochs)),
            "best_epoch": best,
            "epochs": len(trained.epochs),
            "seed": job.seed,
            "over_time": trained.ended.over_time,
        }

    def _identical(self, records: Sequence[Record]) -> bool:
        """Tell whether all trainings of a candidate gave the same results; times among its numbers always differ."""
        results = [
            {
                name: value
                for name, value in record["numbers"].items()
                if name == self._objective.name or is_result(name)
            }
            for record in records
        ]
        return all(each == results[0] for each in results)

    def _of(self, candidate: ScriptCandidate) -> list[Record]:
        return [self.records[job.key] for job in self.jobs if job.candidate is candidate]

    def _trained(self, candidate: ScriptCandidate) -> list[Record]:
        """Return the records of a candidate by seed; none if one became NaN."""
        records = self._of(candidate)
        return [] if any("error" in record for record in records) else records

    def _summary(self, candidate: ScriptCandidate) -> dict[str, Any]:
        """Summarise a candidate in numbers, as they are stored and shown."""
        records = self._of(candidate)
        row = row_of(candidate, records) | {"tests": {}}
        if row["error"] is not None:
            return row
        names = [name for name in records[0]["tests"] if all(name in record["tests"] for record in records)]
        row["tests"] = {name: _spread([record["tests"][name] for record in records]) for name in names}
        row |= _spread([record["numbers"][self._objective.name] for record in records])
        return row | {"epochs": [record["epochs"] for record in records]}

    def _tests(self, winner: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the test numbers that all candidates have, the metric's own counterpart first."""
        names = [name for name in winner["tests"] if all(name in row["tests"] for row in rows)]
        return sorted(names, key=lambda name: _without_phase(name) != _without_phase(self._objective.name))

    def _against(self, winner: Mapping[str, Any], other: Mapping[str, Any], tests: Sequence[str]) -> dict[str, Any]:
        """Compare the winner with a preset, by the metric and by each test number."""
        compared = _compare(winner["values"], other["values"], self._objective.direction)
        by_tests = {
            name: _compare(winner["tests"][name]["values"], other["tests"][name]["values"], self._direction(name))
            for name in tests
        }
        return {"name": other["name"], **compared, "tests": by_tests}

    def _direction(self, name: str) -> Direction:
        """Return what is better of a test number: the metric's direction if it is the same number of other data."""
        if _without_phase(name) == _without_phase(self._objective.name):
            return self._objective.direction
        return direction_of(name)


def _tests(folder: Path, key: str, best: int, epochs: int) -> dict[str, float]:
    """Read the test numbers of an ended training: at the kept epoch if there is one an epoch, else the last."""
    numbers = Numbers(trial_folder.of(folder, key))
    log = trial_folder.log_of(folder, key)
    if log.is_file():
        numbers.hear(log.read_text(encoding="utf-8", errors="replace") + "\n")
    numbers.look(ended=True)
    found: dict[str, float] = {}
    said = set()
    for (_, name), curve in numbers.curves().items():
        plain = re.sub(r"[\W_]+", "", name).lower()
        if is_test(name) and plain not in said:  # several sources may give one number
            said.add(plain)
            found[name] = curve[best if len(curve) == epochs else len(curve)]
    return found


def _without_phase(name: str) -> str:
    """Return what a number measures, whatever the data: `Val/CosineSimilarity` and `test_cosine_similarity` agree."""
    return re.sub(r"[\W_]+", "", _PHASE.sub("", name)).lower()


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"values": list(values), "mean": fmean(values), "sd": intervals.deviation(values)}


def _compare(one: Sequence[float], other: Sequence[float], direction: Direction) -> dict[str, Any]:
    """Compare two rows of values; difference and interval are in the number's own units, whatever is better."""
    if direction == "maximize":
        return intervals.over_seeds(one, other)
    compared = intervals.over_seeds(other, one)  # what is lower is better
    low, high = compared["low"], compared["high"]
    turned = {"low": None, "high": None} if low is None or high is None else {"low": -high, "high": -low}
    return compared | turned | {"difference": -compared["difference"]}


def _named(job: ScriptJob) -> str:
    return f"{job.candidate.name}, {'repeat' if job.seed is None else 'seed'} {job.number}"
