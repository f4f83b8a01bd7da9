"""Retention of a study's checkpoints: resumable ones while a trial runs, its best weights once it has finished."""

from collections.abc import Callable
from functools import cached_property

import optuna
from optuna.trial import FrozenTrial

from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.search.fold_sequence import later_key
from face3d_tune.search.retries import lineage
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.exclusions import read_trials
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import FINISHED, config_of, trained_best_first, trained_here

DEFAULT_KEEP = 10  # trials


class Retention:
    """The checkpoints of one study; does nothing without `checkpoints`.

    No trial ends by a failure here: `note` takes one line about it, each different line once.

    Args:
        study: The study of the trials.
        checkpoints: Where and how often.
        keep: The number of finished trials whose best weights are kept.
        folds: Folds of a trial; the best weights are those of the first.
    """

    def __init__(self, study: optuna.Study, checkpoints: Checkpoints | None, keep: int, folds: int = 1) -> None:
        self.checkpoints = checkpoints
        self.note: Callable[[str], object] = lambda line: None
        self._study, self._keep, self._folds = study, keep, folds
        self._noted: set[str] = set()

    def key(self, trial: FrozenTrial | optuna.Trial) -> str | None:
        """Return the key of the checkpoints of a trial's first fold, whichever worker trains it."""
        return None if self.checkpoints is None else f"trial-{lineage(trial)}"

    def take(self, trial: FrozenTrial) -> None:
        """Keep the best weights of an ended trial if it is among the best; remove its other checkpoints.

        The checkpoints of a requeued trial are its successor's.
        """
        key = self.key(trial)
        if self.checkpoints is None or key is None or TrialAttr.requeued.held_by(trial.user_attrs):
            return
        for later in self._later(key):
            self._note_failure(self.checkpoints.discard(later))
        if trained_here(trial):
            seed = TrialAttr.seed.get(trial.user_attrs)
            training = None if seed is None else (config_of(trial), seed)
            self._note_failure(self.checkpoints.finish(key, _name(trial), training))
            self._note_failure(self.checkpoints.keep_best(self._ranked(), self._keep))
        else:
            self._note_failure(self.checkpoints.discard(key))

    def tidy(self) -> None:
        """Tidy the checkpoints of every trial whose worker died between the trial's end and `take`."""
        if self.checkpoints is None:
            return
        ended: dict[str, str | None] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if key := self.key(trial):  # a later trial of the same lineage is its successor
                ended |= {key: _name(trial) if trained_here(trial) else None} | dict.fromkeys(self._later(key))
                if not trial.state.is_finished():
                    for each in (key, *self._later(key)):
                        del ended[each]
        self._note_failure(self.checkpoints.tidy(ended))
        self._note_failure(self.checkpoints.keep_best(self._ranked(), self._keep))

    def _note_failure(self, line: str | None) -> None:
        if line and line not in self._noted:
            self._noted.add(line)
            self.note(line)

    def _later(self, key: str) -> list[str]:
        """Return the keys of a trial's other folds."""
        return [later_key(key, fold) for fold in range(2, self._folds + 1)]

    @cached_property
    def _objective(self) -> Objective:
        return Objective.of_study(self._study.user_attrs)

    def _ranked(self) -> list[str]:
        """Return the names of all trials that finished here, best first."""
        return [_name(trial) for trial in trained_best_first(read_trials(self._study, FINISHED), self._objective)]


def _name(trial: FrozenTrial) -> str:
    return f"trial-{trial.number}"
