"""What is told of a search: a new best trial, and how it ended, in a few lines each."""

import shlex
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import FrozenTrial

from face3d_tune.search.notifier import Message
from face3d_tune.storage.database import Storage
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.exclusions import read_trials
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import best_trial, is_complete, preset_rows, trained_here

Result = Literal["budget", "target", "time", "stop", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """The best trial of a study, its best preset, and how many trials have finished."""

    objective: Objective
    best: tuple[float, int] | None  # value and trial
    preset: tuple[float, str] | None
    finished: int

    @classmethod
    def of(cls, study: optuna.Study, best: FrozenTrial | None = None) -> "BestSoFar":
        """Read it; `best` is the best trial, if it is known."""
        objective, best = Objective.of_study(study.user_attrs), best or best_trial(study)
        presets = [(row.trial.value, row.name) for row in preset_rows(study) if row.trial and is_complete(row.trial)]
        preset = max(presets, key=lambda each: objective.key(each[0]), default=None)
        finished = sum(map(trained_here, read_trials(study)))
        return cls(
            objective,
            (best.value, best.number) if best and best.value is not None else None,
            (preset[0], preset[1]) if preset and preset[0] is not None else None,
            finished,
        )

    def lines(self) -> tuple[str, ...]:
        """Say it in two lines."""
        if self.best is None:
            return ("no trial has completed",)
        value, number = self.best
        beside = ""
        if self.preset is not None:
            beside = f", {self.objective.number(value - self.preset[0], '+')} on {self.preset[1]}"
        return f"best {self.objective.said(value)}, trial {number}{beside}", f"trials finished: {self.finished}"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a search by one worker."""

    study: str
    storage: Storage
    worker: str
    result: Result
    why: str  # the result in words, or the error
    code: int  # exit code
    standing: BestSoFar | None = None  # None if the storage does not answer

    def message(self) -> Message:
        """Compose the message on it."""
        failed = self.result == "failed"
        title = f"face3d-tune: the search of study {self.study!r} ended"
        if failed:
            title = f"face3d-tune: the search of study {self.study!r} failed"
        why = f"error: {self.why}" if failed else f"ended: {self.why}", f"worker: {self.worker}"
        standing = self.standing.lines() if self.standing else ("the storage does not answer",)
        lines = (*why, *standing, to_see(self.study, self.storage))
        return Message(title, lines, "failure" if failed else "warning" if self.code else "success")


def is_new_best(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Tell whether a trial that has just ended is the best of its study, and above all presets, which have ended."""
    if not is_complete(trial) or TrialAttr.preset.get(trial.user_attrs):
        return False
    best, objective = best_trial(study), Objective.of_study(study.user_attrs)
    presets = [row.trial for row in preset_rows(study) if row.trial]
    return (
        best is not None
        and best.number == trial.number
        and all(preset.state.is_finished() for preset in presets)
        and all(objective.better(trial.value, preset.value) for preset in presets if is_complete(preset))
    )


def new_best(study: optuna.Study, trial: FrozenTrial, storage: Storage) -> Message:
    """Compose the message on a new best trial; there may be a better one by now, which its worker tells."""
    title = f"face3d-tune: new best trial of study {study.study_name!r}"
    return Message(title, (*BestSoFar.of(study, trial).lines(), to_see(study.study_name, storage)))


def to_see(study: str, storage: Storage) -> str:
    """Return the command that shows the best trial."""
    place = [] if storage.holds_secret else ["--storage", str(storage)]
    return f"to see it: face3d-tune export {shlex.join([*place, '--study-name', study])}"
