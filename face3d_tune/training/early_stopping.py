"""A trial's own early stopping, as a small state machine (trainer contract §4)."""

from dataclasses import dataclass


@dataclass(slots=True)
class EarlyStopping:
    """Early stopping once the validation loss has not fallen by more than `min_delta` for `patience` epochs in a row.

    It is not Optuna's PatientPruner, whose min_delta means how much worse a trial may get. `patience` 0 never stops.
    """

    patience: int
    min_delta: float
    best: float = float("inf")
    epochs_without_progress: int = 0

    def update(self, val_loss: float) -> bool:
        """Record the next epoch's validation loss; return True if training should stop."""
        if val_loss < self.best - self.min_delta:
            self.best = val_loss
            self.epochs_without_progress = 0
        else:
            self.epochs_without_progress += 1
        return 0 < self.patience <= self.epochs_without_progress
