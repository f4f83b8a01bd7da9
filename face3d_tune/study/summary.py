"""The summary of a training, as stored with its trial: pure functions of the epochs."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from face3d_tune.device import Precision
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.training.base import EpochResult, best_epoch

_SUMS = (TrialAttr.epochs_run, TrialAttr.lr_decays)
_MEANS = (TrialAttr.val_loss, TrialAttr.val_loss_equal, TrialAttr.train_loss, TrialAttr.gap)
_OF_THE_LAST = (TrialAttr.lr_final, TrialAttr.amp, TrialAttr.retried_without_amp)


def of_training(
    epochs: Sequence[EpochResult], stop_reason: str, *, lr: float, precision: Precision, retried: bool
) -> dict[str, Any]:
    """Summarize one training; without an epoch it has no loss and no cosine.

    Args:
        epochs: All that were trained and validated, in order.
        stop_reason: Why the training ended.
        lr: The configured learning rate.
        precision: The one used, after a retry the second.
        retried: Whether mixed precision led to NaN, so that training restarted without.
    """
    summary = {
        TrialAttr.stop_reason.key: stop_reason,
        TrialAttr.epochs_run.key: len(epochs),
        TrialAttr.lr_decays.key: sum(epoch.next_lr < epoch.lr for epoch in epochs),
        TrialAttr.lr_final.key: epochs[-1].next_lr if epochs else lr,
        TrialAttr.amp.key: precision,
        TrialAttr.retried_without_amp.key: retried,
    }
    best = best_epoch(epochs)
    if best is None:
        return summary
    if best.recognition is not None:
        summary[TrialAttr.recognition.key] = best.recognition.to_dict()
    return summary | {
        TrialAttr.best_epoch.key: best.epoch,
        TrialAttr.val_cosine.key: best.val_cosine,
        TrialAttr.val_loss.key: best.val_loss,
        TrialAttr.val_loss_equal.key: best.val_loss_equal,
        TrialAttr.train_loss.key: best.train_loss,
        TrialAttr.gap.key: best.val_loss - best.train_loss,
        TrialAttr.cosine_by_yaw.key: dict(best.cosine_by_yaw),
    }


def of_folds(folds: Sequence[Mapping[str, Any]], objective: Objective = COSINE) -> dict[str, Any]:
    """Combine the summaries of a trial's folds, in their order, into one.

    Cosines, losses and recognition are means over the folds that validated an epoch; epochs and decays are sums.
    `best_epoch` is that of fold 1, whose weights are kept. `folds` has what the objective gives each as its `value`.
    """
    validated = [fold for fold in folds if TrialAttr.val_cosine.held_by(fold)]
    summary: dict[str, Any] = {attr.key: sum(attr.of(fold) for fold in folds) for attr in _SUMS}
    summary |= {attr.key: attr.of(folds[-1]) for attr in _OF_THE_LAST}
    if not validated:
        return summary
    cosine, recognition = TrialAttr.val_cosine, TrialAttr.recognition
    twice = (cosine.key,) if objective == COSINE else ()
    if all(recognition.held_by(fold) for fold in validated):  # else an earlier version has validated some
        summary[recognition.key] = mean_of_records([recognition.of(fold) for fold in validated])
    return summary | {
        TrialAttr.best_epoch.key: TrialAttr.best_epoch.of(validated[0]),
        cosine.key: fmean(cosine.of(fold) for fold in validated),
        **{attr.key: fmean(attr.of(fold) for fold in validated) for attr in _MEANS},
        TrialAttr.cosine_by_yaw.key: mean_by_band([TrialAttr.cosine_by_yaw.of(fold) for fold in validated]),
        TrialAttr.folds.key: [
            {"fold": number, "value": objective.of_trial(fold), **{key: fold[key] for key in fold if key not in twice}}
            for number, fold in enumerate(validated, 1)
        ],
    }


def mean_by_band(folds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Average each band of |yaw| over folds; None where no fold has a view."""
    return mean_of_records(folds)


def mean_of_records(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average stored recognition over folds, number by number; None where no fold has one.

    Folds may differ by one person, so counts are rounded means.
    """
    return {name: _mean([fold[name] for fold in folds]) for name in folds[0]}


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return mean_of_records(values)
    if all(isinstance(value, int) for value in values):
        return round(fmean(values))
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None
