"""What is kept of the trainings of a study: checkpoints while a trial may still be taken up, its best weights after."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.ledger import lineage
from face3d_tune.results import FINISHED, IMPORTED, kept_cosine
from face3d_tune.resume import Checkpoints

DEFAULT_KEEP = 10  # trials


class Archive:
    """The checkpoints of one study; without `checkpoints` nothing is kept and nothing is done.

    The methods that change something say in one line what went wrong, or None: no trial ends by it.

    Args:
        study: Whose trials these are.
        checkpoints: Where and how often.
        keep: Best weights are kept of so many finished trials.
    """

    def __init__(self, study: optuna.Study, checkpoints: Checkpoints | None, keep: int) -> None:
        self.checkpoints = checkpoints
        self._study, self._keep = study, keep

    def key(self, trial: FrozenTrial | optuna.Trial) -> str | None:
        """Under which the checkpoints of a trial are kept, and were by whoever trained it before."""
        return None if self.checkpoints is None else f"trial-{lineage(trial)}"

    def take(self, trial: FrozenTrial) -> str | None:
        """A trial has ended: keep its best weights, if it is one of the best, and nothing else."""
        key = self.key(trial)
        if self.checkpoints is None or key is None:
            return None
        if trial.state not in FINISHED:
            return self.checkpoints.discard(key)
        return self.checkpoints.finish(key, _name(trial)) or self.checkpoints.keep_best(self._ranked(), self._keep)

    def tidy(self) -> str | None:
        """Do it for every trial whose worker died between its end and this."""
        if self.checkpoints is None:
            return None
        ended: dict[str, str | None] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if key := self.key(trial):  # a later trial of the same lineage is its successor
                ended[key] = _name(trial) if trial.state in FINISHED else None
                if not trial.state.is_finished():
                    del ended[key]
        return self.checkpoints.tidy(ended) or self.checkpoints.keep_best(self._ranked(), self._keep)

    def _ranked(self) -> list[str]:
        """The names of all trials that finished here, completed before pruned ones, the best first."""
        held = self._study.get_trials(deepcopy=False, states=FINISHED)
        trials = [trial for trial in held if trial.user_attrs.get("origin") != IMPORTED]  # of which nothing is kept
        value = {trial.number: kept_cosine(trial) for trial in trials}
        order = sorted(trials, key=lambda trial: (trial.state == TrialState.COMPLETE, value[trial.number] or -1.0))
        return [_name(trial) for trial in reversed(order)]


def _name(trial: FrozenTrial) -> str:
    return f"trial-{trial.number}"
