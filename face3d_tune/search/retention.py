"""What is kept of the trainings of a study: checkpoints while a trial may still be taken up, its best weights after."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.search.trial_queue import lineage
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.folds import key_of
from face3d_tune.study.trials import FINISHED, kept_cosine, trained_here

DEFAULT_KEEP = 10  # trials


class Retention:
    """The checkpoints of one study; without `checkpoints` nothing is kept and nothing is done.

    The methods that change something say in one line what went wrong, or None: no trial ends by it.

    Args:
        study: Whose trials these are.
        checkpoints: Where and how often.
        keep: Best weights are kept of so many finished trials.
        folds: Of a trial; the best weights are those of the first.
    """

    def __init__(self, study: optuna.Study, checkpoints: Checkpoints | None, keep: int, folds: int = 1) -> None:
        self.checkpoints = checkpoints
        self._study, self._keep, self._folds = study, keep, folds

    def key(self, trial: FrozenTrial | optuna.Trial) -> str | None:
        """Under which the checkpoints of a trial's first fold are kept, and were by whoever trained it before."""
        return None if self.checkpoints is None else f"trial-{lineage(trial)}"

    def take(self, trial: FrozenTrial) -> str | None:
        """A trial has ended: keep its best weights, if it is one of the best, and nothing else.

        The checkpoints of a trial that was put back are its successor's.
        """
        key = self.key(trial)
        if self.checkpoints is None or key is None or TrialAttr.requeued.held_by(trial.user_attrs):
            return None
        said = next(filter(None, map(self.checkpoints.discard, self._later(key))), None)
        if not trained_here(trial):
            return self.checkpoints.discard(key) or said
        said = self.checkpoints.finish(key, _name(trial)) or said
        return self.checkpoints.keep_best(self._ranked(), self._keep) or said

    def tidy(self) -> str | None:
        """Do it for every trial whose worker died between its end and this."""
        if self.checkpoints is None:
            return None
        ended: dict[str, str | None] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if key := self.key(trial):  # a later trial of the same lineage is its successor
                ended |= {key: _name(trial) if trained_here(trial) else None} | dict.fromkeys(self._later(key))
                if not trial.state.is_finished():
                    for each in (key, *self._later(key)):
                        del ended[each]
        return self.checkpoints.tidy(ended) or self.checkpoints.keep_best(self._ranked(), self._keep)

    def _later(self, key: str) -> list[str]:
        """The keys of a trial's other folds."""
        return [key_of(key, fold) for fold in range(2, self._folds + 1)]

    def _ranked(self) -> list[str]:
        """The names of all trials that finished here, completed before pruned ones, the best first."""
        trials = list(filter(trained_here, self._study.get_trials(deepcopy=False, states=FINISHED)))
        value = {trial.number: kept_cosine(trial) for trial in trials}
        order = sorted(trials, key=lambda trial: (trial.state == TrialState.COMPLETE, value[trial.number] or -1.0))
        return [_name(trial) for trial in reversed(order)]


def _name(trial: FrozenTrial) -> str:
    return f"trial-{trial.number}"
