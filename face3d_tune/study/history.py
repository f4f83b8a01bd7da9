"""The epochs of a trial, as stored with it: learning rates, losses, cosines and recognition, or a script's numbers."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from face3d_tune.storage.optuna_internals import stored_trial_attr
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.objective import COSINE, Objective

if TYPE_CHECKING:
    from face3d_tune.training.base import EpochResult

ATTR = "face3d_tune:history"  # a system attribute: Optuna's own tables would show a user attribute as a column
_DIGITS = 6  # significant; a float32 has no more


@dataclass(frozen=True, slots=True)
class History:
    """One number an epoch, from epoch 1 on. Unknown curves are empty.

    A running trial has only the objective, and one of an earlier version only the cosine, or no recognition. An
    imported one lacks recognition, and may lack the learning rate. With several folds these are the epochs of the
    first. A trial of a script has `numbers` alone.
    """

    cosine: tuple[float, ...] = ()  # mean over validation pairs, [-1, 1]
    train_loss: tuple[float, ...] = ()  # with the trial's own weights, dropout on
    val_loss: tuple[float, ...] = ()  # with the trial's own weights
    lr: tuple[float, ...] = ()  # of the epoch
    identity: tuple[float, ...] = ()  # of the validation people, at most 0; see training/recognition
    rank1_enrolled: tuple[float, ...] = ()  # of the validation people among all enrolled, [0, 1]
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of a script, by name

    @classmethod
    def of(cls, trial: FrozenTrial, objective: Objective = COSINE) -> "History":
        """Read the stored epochs of a trial; while it trains, what it has reported of its study's objective."""
        if stored := trial.system_attrs.get(ATTR):
            return cls._of_curves(stored)
        steps, epochs = trial.intermediate_values, TrialAttr.config.get(trial.user_attrs, {}).get("epochs", math.inf)
        reported = tuple(steps[step] for step in sorted(steps) if step <= epochs)
        return cls._of_curves(
            {"numbers": {objective.name: reported}} if objective.script else {objective.name: reported}
        )

    @classmethod
    def _of_curves(cls, curves: Mapping[str, Any]) -> "History":
        numbers = {name: tuple(values) for name, values in curves.get("numbers", {}).items()}
        return cls(**{name: tuple(values) for name, values in curves.items() if name != "numbers"}, numbers=numbers)

    @classmethod
    def of_epochs(cls, epochs: "Iterable[EpochResult]") -> "History":
        """Take the epochs of a training in this process, rounded as they are stored."""
        return cls._of_curves(pack(epochs))

    def values(self, objective: Objective) -> tuple[float, ...]:
        """Return what an objective gives every epoch, from epoch 1; empty if it is not known."""
        if objective.script:
            return self.numbers.get(objective.name, ())
        return self.cosine if objective == COSINE else self.identity


def with_histories(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return trials of a study with their stored epochs, by number; its storage may read trials without them."""
    stored, whole = stored_trial_attr(study, trials, ATTR), {trial.number: copy.copy(trial) for trial in trials}
    for number, history in stored.items():
        whole[number].system_attrs = {**whole[number].system_attrs, ATTR: history}
    return whole


def lowest_loss(val_loss: Sequence[float]) -> int:
    """Return the epoch, from 1, whose weights training keeps: the first of those with the lowest validation loss."""
    return min(range(len(val_loss)), key=val_loss.__getitem__) + 1


def pack(epochs: "Iterable[EpochResult]") -> dict[str, Any]:
    """Pack epochs in training order, as `History.of` reads them."""
    epochs = list(epochs)
    curves = {
        "cosine": [epoch.val_cosine for epoch in epochs],
        "train_loss": [epoch.train_loss for epoch in epochs],
        "val_loss": [epoch.val_loss for epoch in epochs],
        "lr": [epoch.lr for epoch in epochs],
    }
    recognition = [epoch.recognition.all for epoch in epochs if epoch.recognition is not None]
    if len(recognition) == len(epochs):  # else an earlier version has trained some
        curves |= {name: [getattr(rates, name) for rates in recognition] for name in ("identity", "rank1_enrolled")}
    return {name: [float(f"{value:.{_DIGITS}g}") for value in curve] for name, curve in curves.items()}
