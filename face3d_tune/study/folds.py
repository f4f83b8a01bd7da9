"""The folds of one trial: what each trains with, and the trial's attributes from those of its folds."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from face3d_tune import seeds
from face3d_tune.study.attrs import TrialAttr

_SUMS = (TrialAttr.epochs_run, TrialAttr.lr_decays)
_MEANS = (TrialAttr.val_loss, TrialAttr.val_loss_equal, TrialAttr.train_loss, TrialAttr.gap)
_OF_THE_LAST = (TrialAttr.lr_final, TrialAttr.amp, TrialAttr.retried_without_amp)


def seed_of(seed: int, fold: int) -> int:
    """Return the seed of a fold (1-based), derived from the trial's seed."""
    return seed if fold == 1 else seeds.derive(seed, "fold", fold)


def key_of(key: str, fold: int) -> str:
    """Return the key of a fold's checkpoints, derived from the trial's key."""
    return key if fold == 1 else f"{key}-fold-{fold}"


def mean_by_band(folds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Average each band of |yaw| over folds; None where no fold has a view."""
    held = {band: [fold[band] for fold in folds] for band in folds[0]}
    known = {band: [value for value in values if value is not None] for band, values in held.items()}
    return {band: fmean(values) if values else None for band, values in known.items()}


def in_all(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine the attributes of a trial's folds, in their order, into those of a training.

    Cosines and losses are means over the folds that validated an epoch; epochs and decays are sums. `best_epoch` is
    that of fold 1, whose weights are kept. `folds` has the cosine of each as its `value`.
    """
    validated = [fold for fold in folds if TrialAttr.val_cosine.held_by(fold)]
    attrs: dict[str, Any] = {attr.key: sum(attr.of(fold) for fold in folds) for attr in _SUMS}
    attrs |= {attr.key: attr.of(folds[-1]) for attr in _OF_THE_LAST}
    if not validated:
        return attrs
    cosine = TrialAttr.val_cosine
    return attrs | {
        TrialAttr.best_epoch.key: TrialAttr.best_epoch.of(validated[0]),
        cosine.key: fmean(cosine.of(fold) for fold in validated),
        **{attr.key: fmean(attr.of(fold) for fold in validated) for attr in _MEANS},
        TrialAttr.cosine_by_yaw.key: mean_by_band([TrialAttr.cosine_by_yaw.of(fold) for fold in validated]),
        TrialAttr.folds.key: [
            {"fold": number, "value": cosine.of(fold), **{key: fold[key] for key in fold if key != cosine.key}}
            for number, fold in enumerate(validated, 1)
        ],
    }
