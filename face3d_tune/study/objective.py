"""The objective of a study: which number of a training is a trial's value, and in which unit.

A trial has every number, whatever the objective: it is that of the kept epoch, the one with the lowest validation loss.
Curves, pruner, target, race and the sampler see the objective alone. Both objectives are in units of cosine, and higher
is better; their values do not compare with each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from face3d_tune.study.attrs import StudyAttr, TrialAttr

if TYPE_CHECKING:
    from face3d_tune.training.base import EpochResult

ObjectiveName = Literal["cosine", "identity"]
OBJECTIVES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective, by the name that study files and `--objective` give it."""

    name: ObjectiveName

    @classmethod
    def of_study(cls, study_attrs: Mapping[str, Any]) -> "Objective":
        """Return the objective of a study; an older study, which does not say, has the cosine."""
        settings = StudyAttr.settings.get(study_attrs)
        return cls(settings.get("objective", COSINE.name)) if settings else COSINE

    @property
    def metric(self) -> str:
        """Return the name of Optuna's metric."""
        return f"val_{self.name}"

    @property
    def goal(self) -> str:
        """Say what a study maximises."""
        return "mean validation cosine" if self.name == "cosine" else "mean validation identity"

    @property
    def highest(self) -> float:
        """Return the highest possible value, in units of cosine; a target above is never reached."""
        return 1.0 if self.name == "cosine" else 0.0

    def of_epoch(self, result: "EpochResult") -> float:
        """Return the value of an epoch. Raises ValueError if an earlier version validated it without recognition."""
        if self.name == "cosine":
            return result.val_cosine
        identity = result.recognition.all.identity if result.recognition else None
        if identity is None:
            raise ValueError(f"epoch {result.epoch} has no identity: an earlier version validated it")
        return identity

    def of_trial(self, attrs: Mapping[str, Any]) -> float | None:
        """Return the value of the checkpoint that training kept, from a trial's attributes or from those of a fold.

        A pruned trial has it, too: to Optuna, its value is that of its last epoch. None if it is not stored.
        """
        if self.name == "cosine":
            return TrialAttr.val_cosine.get(attrs)
        return _identity(TrialAttr.recognition.get(attrs))

    def of_baselines(self, study_attrs: Mapping[str, Any]) -> dict[str, float]:
        """Return what `no model`, `ridge` and `kernel ridge` reach on the validation people, if the study knows it."""
        values = {
            name: cosine.get(study_attrs) if self.name == "cosine" else _identity(recognition.get(study_attrs))
            for name, (cosine, recognition) in _BASELINES.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    def said(self, value: float) -> str:
        """Say a value, e.g. `cosine 0.5931`."""
        return f"cosine {value:.4f}" if self.name == "cosine" else f"identity {value:.4f}"

    def __str__(self) -> str:
        return self.name


COSINE, IDENTITY = map(Objective, OBJECTIVES)

_BASELINES = {
    "no model": (StudyAttr.no_model_cosine, StudyAttr.no_model_recognition),
    "ridge": (StudyAttr.ridge_cosine, StudyAttr.ridge_recognition),
    "kernel ridge": (StudyAttr.kernel_ridge_cosine, StudyAttr.kernel_ridge_recognition),
}


def _identity(recognition: Mapping[str, Any] | None) -> float | None:
    return None if recognition is None else recognition["all"]["identity"]
