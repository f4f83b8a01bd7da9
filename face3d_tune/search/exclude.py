"""Trials that a person takes out of a study, and takes back in: everywhere where a trial counts, at every worker.

An excluded trial stays within the budget, because it was trained. So workers that run need not count again, and a trial
that comes back never leaves one too many.
"""

from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine

from face3d_tune.errors import StudyError
from face3d_tune.study.attrs import StoredExclusion
from face3d_tune.study.causes import OF_THE_CONFIG, cause
from face3d_tune.study.exclusions import Exclusions, change_exclusions, exclusions_of, read_trials, said
from face3d_tune.study.trials import counts
from face3d_tune.system import person
from face3d_tune.system.pace import Pace

LONGEST_REASON = 500  # characters


def exclude(study: optuna.Study, engine: Engine, number: int, reason: str = "", by: str | None = None) -> str:
    """Take a trial out of a study; return a sentence on it. `by` is this user on this host unless given.

    Raises StudyError for a trial that does not exist, has not ended, counts nowhere or is excluded already.
    """
    if len(reason) > LONGEST_REASON:
        raise StudyError(
            f"the reason has {len(reason)} characters; expected at most {LONGEST_REASON}", "say it in a sentence"
        )
    exclusion: StoredExclusion = {"by": by or person.person(), "at": person.now(), "reason": " ".join(reason.split())}
    trial = _trial(study, number)

    def add(held: Exclusions) -> Exclusions:
        if number in held:
            raise StudyError(said(number, held[number]), f"to bring it back: `face3d-tune exclude {number} --undo`")
        _require_counted(trial)
        return {**held, number: exclusion}

    change_exclusions(engine, study, add)
    return said(number, exclusion)


def bring_back(study: optuna.Study, engine: Engine, number: int) -> str:
    """Let an excluded trial count again; return a sentence on it. Raises StudyError if it is not excluded."""

    def remove(held: Exclusions) -> Exclusions:
        if number not in held:
            _trial(study, number)
            listed = f"excluded: {', '.join(map(str, held))}" if held else "no trial of this study is"
            raise StudyError(f"trial {number} of study {study.study_name!r} is not excluded", listed)
        return {each: held[each] for each in held if each != number}

    change_exclusions(engine, study, remove)
    return f"trial {number} counts again"


class ExclusionWatch:
    """The look of one worker at the exclusions of its study.

    Attributes:
        note: Takes one line about each change.
        changed: Takes all exclusions after a change.
        seen: The exclusions at the last look.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.note: Callable[[str], object] = lambda line: None
        self.changed: Callable[[Exclusions], object] = lambda exclusions: None
        self._study = study
        self.seen, self._pace = exclusions_of(study), Pace()

    def look_sometimes(self) -> bool:
        """Look into the database, at most once a second; return whether something has changed."""
        if not self._pace.due():
            return False
        with self._pace.looking():
            before, self.seen = self.seen, exclusions_of(self._study)
        for line in changes(before, self.seen):
            self.note(line)
        if before != self.seen:
            self.changed(self.seen)
        return before != self.seen


def changes(before: Exclusions, after: Exclusions) -> list[str]:
    """Say what has changed, a line for each trial."""
    gone = [f"trial {number} counts again" for number in before if number not in after]
    return [said(number, after[number]) for number in after if after[number] != before.get(number)] + gone


def _trial(study: optuna.Study, number: int) -> FrozenTrial:
    trials = read_trials(study)
    if not 0 <= number < len(trials):
        held = f"it holds 0 to {len(trials) - 1}" if trials else "it holds none yet"
        raise StudyError(f"study {study.study_name!r} has no trial {number}", held)
    return trials[number]


def _require_counted(trial: FrozenTrial) -> None:
    """Raise StudyError unless the trial counts for the best, the tables, the pruner or the sampler."""
    if trial.state == TrialState.WAITING:
        raise StudyError(f"trial {trial.number} has not started", "exclude it once it has ended")
    if trial.state == TrialState.RUNNING:
        raise StudyError(f"trial {trial.number} is in training", "exclude it once it has ended")
    if not counts(trial) and cause(trial) not in OF_THE_CONFIG:  # of such failures the sampler learns
        why = "it failed" if trial.state == TrialState.FAIL else "it was added by hand, or imported and not confirmed"
        raise StudyError(f"trial {trial.number} counts nowhere already: {why}", "see `face3d-tune status`")
