"""The objective of a study: which number of a training is a trial's value, in which unit, and what is better.

A trial of the built-in trainer has every number, whatever the objective: it is that of the kept epoch, the one with the
lowest validation loss. Curves, pruner, target, race and the sampler see the objective alone. The built-in objectives
are in units of cosine, and higher is better; their values do not compare with each other.

A study of a script of the user's own has one of the script's numbers as its objective, by the name that the script
gives it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from face3d_tune.study.attrs import Attr, StudyAttr, TrialAttr

ObjectiveName = Literal["cosine", "identity"]
OBJECTIVES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)
Direction = Literal["maximize", "minimize"]


class Epoch(Protocol):
    """An epoch, as an objective reads it."""

    @property
    def epoch(self) -> int:
        """Return its number, from 1."""

    @property
    def numbers(self) -> Mapping[str, float | None]:
        """Return its numbers by name."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective, by the name that study files and `--objective` give it, or by the name of a script's number."""

    name: str
    direction: Direction = "maximize"
    script: bool = False  # whether it is a number of the user's own script

    @classmethod
    def of_study(cls, study_attrs: Mapping[str, Any]) -> "Objective":
        """Return the objective of a study; an older study, which does not say, has the cosine."""
        if script := StudyAttr.script.get(study_attrs):
            return cls(script["metric"], script["direction"], script=True)
        settings = StudyAttr.settings.get(study_attrs)
        return cls(settings.get("objective", COSINE.name)) if settings else COSINE

    @property
    def metric(self) -> str:
        """Return the name of Optuna's metric."""
        return self.name if self.script else f"val_{self.name}"

    @property
    def goal(self) -> str:
        """Say what a study looks for."""
        if self.script:
            return f"{self.name}, the {'higher' if self.direction == 'maximize' else 'lower'} the better"
        return "mean validation cosine" if self.name == "cosine" else "mean validation identity"

    @property
    def axis(self) -> str:
        """Return the title of an axis of values."""
        return self.name if self.script else f"mean {self.name}, validation people"

    @property
    def highest(self) -> float:
        """Return the highest possible value, in units of cosine; a target above is never reached."""
        if self.script:
            return float("inf")
        return 1.0 if self.name == "cosine" else 0.0

    def key(self, value: float | None) -> float:
        """Return a number to sort by: higher is better, whatever the direction; a missing value is the worst."""
        if value is None:
            return float("-inf")
        return value if self.direction == "maximize" else -value

    def better(self, value: float | None, other: float | None) -> bool:
        """Tell whether a value is better than another; any value is better than none."""
        return self.key(value) > self.key(other)

    def of_epoch(self, result: Epoch) -> float:
        """Return the value of an epoch. Raises ValueError if an earlier version validated it without recognition."""
        value = result.numbers.get(self.name)
        if value is None:
            raise ValueError(f"epoch {result.epoch} has no {self.name}: an earlier version validated it")
        return value

    def of_trial(self, attrs: Mapping[str, Any]) -> float | None:
        """Return the value of the checkpoint that training kept, from a trial's attributes or from those of a fold.

        A pruned trial has it, too: to Optuna, its value is that of its last epoch. None if it is not stored.
        """
        if self.script:
            return TrialAttr.numbers.get(attrs, {}).get(self.name)
        if self.name == "cosine":
            return TrialAttr.val_cosine.get(attrs)
        return _identity(TrialAttr.recognition.get(attrs))

    def of_baselines(self, study_attrs: Mapping[str, Any]) -> dict[str, float]:
        """Return what `no model`, `ridge` and `kernel ridge` reach on the validation people, if the study knows it."""
        if self.script:
            return {}
        values = {
            name: cosine.get(study_attrs) if self.name == "cosine" else _identity(recognition.get(study_attrs))
            for name, (cosine, recognition) in BASELINES.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    def number(self, value: float, sign: str = "") -> str:
        """Format a value or a difference, e.g. `0.5931`, or a script's `2.1e+05`; with `sign` + always signed."""
        plain = not self.script or value == 0 or 1e-3 <= abs(value) < 1e4
        return f"{value:{sign}.4f}" if plain else f"{value:{sign}.4g}"

    def said(self, value: float) -> str:
        """Say a value, e.g. `cosine 0.5931`."""
        return f"{self.name} {self.number(value)}"

    def __str__(self) -> str:
        return self.name


COSINE, IDENTITY = map(Objective, OBJECTIVES)

# Cosine and recognition of each on the validation people, as a study stores them.
BASELINES: Mapping[str, tuple[Attr[float], Attr[Mapping[str, Any]]]] = {
    "no model": (StudyAttr.no_model_cosine, StudyAttr.no_model_recognition),
    "ridge": (StudyAttr.ridge_cosine, StudyAttr.ridge_recognition),
    "kernel ridge": (StudyAttr.kernel_ridge_cosine, StudyAttr.kernel_ridge_recognition),
}


def _identity(recognition: Mapping[str, Any] | None) -> float | None:
    return None if recognition is None else recognition["all"]["identity"]
