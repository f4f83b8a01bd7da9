"""The folds of one trial: what each trains with, and the trial's attributes from those of its folds."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from face3d_tune import seeds

_SUMS = ("epochs_run", "lr_decays")
_MEANS = ("val_loss", "val_loss_equal", "train_loss", "gap")
_OF_THE_LAST = ("lr_final", "amp", "retried_without_amp")


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
    validated = [fold for fold in folds if "val_cosine" in fold]
    attrs = {name: sum(fold[name] for fold in folds) for name in _SUMS}
    attrs |= {name: folds[-1][name] for name in _OF_THE_LAST}
    if not validated:
        return attrs
    return attrs | {
        "best_epoch": validated[0]["best_epoch"],
        "val_cosine": fmean(fold["val_cosine"] for fold in validated),
        **{name: fmean(fold[name] for fold in validated) for name in _MEANS},
        "cosine_by_yaw": mean_by_band([fold["cosine_by_yaw"] for fold in validated]),
        "folds": [
            {"fold": number, "value": fold["val_cosine"], **{key: fold[key] for key in fold if key != "val_cosine"}}
            for number, fold in enumerate(validated, 1)
        ],
    }
