"""The folds of a trial, trained one after another: what each trains with, what came before, and what comes next."""

from dataclasses import dataclass, field, replace
from typing import Any

from face3d_tune import seeds
from face3d_tune.executor.tasks import Resumed, Task
from face3d_tune.study import summary
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.training.base import EpochResult, best_epoch


def later_key(key: str, fold: int) -> str:
    """Return the key of the checkpoints of a fold (from 2), derived from the trial's key."""
    return f"{key}-fold-{fold}"


@dataclass(slots=True)
class Fold:
    """The training on one fold: its task, its epochs so far, and the checkpoint that it resumed from, if any."""

    task: Task
    retried: bool = False  # whether mixed precision led to NaN, here or in a fold before
    epochs: list[EpochResult] = field(default_factory=list)
    resumed: Resumed | None = None

    @property
    def best(self) -> EpochResult | None:
        """Return the epoch whose weights training keeps."""
        return best_epoch(self.epochs)

    def add(self, result: EpochResult) -> None:
        """Add an epoch; after a process died, it may be known already."""
        self.epochs[result.epoch - 1 :] = [result]

    def resume(self, resumed: Resumed) -> None:
        """Replace the epochs by those of a checkpoint; another precision means that the first one led to NaN."""
        if resumed.precision != self.task.precision:
            self.task, self.retried = replace(self.task, precision=resumed.precision), True
        self.resumed, self.epochs = resumed, list(resumed.results)

    def restart_without_mixed_precision(self) -> Task | None:
        """Restart after NaN, and return the task; None if there was no mixed precision to blame."""
        again = self.task.without_mixed_precision()
        if again:
            self.task, self.retried, self.epochs = again, True, []
        return again


class FoldSequence:
    """The begun folds of one trial, in order. `first` is the task of fold 1."""

    def __init__(self, first: Task) -> None:
        self.all = [Fold(first)]

    @property
    def current(self) -> Fold:
        """Return the fold in training."""
        return self.all[-1]

    def step(self, epoch: int) -> int:
        """Return the step under which Optuna stores an epoch of the current fold; both are 1-based.

        The steps of each fold begin where those before it would end if it trained all its epochs.
        """
        return (len(self.all) - 1) * self.current.task.config.epochs + epoch

    def begin_next(self) -> Task:
        """Begin the next fold, and return its task; seed and key follow from those of the first."""
        first, fold = self.all[0].task, len(self.all) + 1
        key = None if first.key is None else later_key(first.key, fold)
        # A retried trial need not have come to this fold before, so a missing checkpoint is not worth a note.
        task = replace(self.current.task, fold=fold, seed=seeds.derive(first.seed, "fold", fold), key=key, retry=False)
        self.all.append(Fold(task, self.current.retried))
        return task

    def summary(self, stop_reason: str, objective: Objective = COSINE) -> dict[str, Any]:
        """Summarize the trial, as its user attributes store it."""
        folds = [_summary(fold, stop_reason) for fold in self.all]
        attrs = folds[0] if self.current.task.folds == 1 else summary.of_folds(folds, objective)
        attrs[TrialAttr.stop_reason.key] = stop_reason
        if resumed := [fold.resumed for fold in self.all if fold.resumed]:
            attrs[TrialAttr.resumed_epochs.key] = sum(len(each.results) for each in resumed)
            if notes := [each.note for each in resumed if each.note]:
                attrs[TrialAttr.resume_note.key] = "; ".join(notes)
        return attrs


def _summary(fold: Fold, stop_reason: str) -> dict[str, Any]:
    """Summarize one fold; the trial's `stop_reason` counts if the training did not end by itself."""
    reason = (fold.epochs and fold.epochs[-1].stop_reason) or stop_reason
    task = fold.task
    return summary.of_training(fold.epochs, reason, lr=task.config.lr, precision=task.precision, retried=fold.retried)
