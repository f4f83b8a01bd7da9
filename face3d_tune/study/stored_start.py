"""The warm start as it is stored with a study."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.objective import COSINE, Objective


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The part of the study before that a study takes over, as stored."""

    study: str
    trial: int
    value: float  # of the objective of that study
    config: Mapping[str, Any]  # of a TrialConfig
    objective: str = COSINE.name

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Self | None:
        """Read the user attributes of a study; None if it has no warm start."""
        record = StudyAttr.follows.get(attrs)
        return cls(**record) if record else None

    def to_attr(self) -> dict[str, Any]:
        """Return the attribute that `of` reads."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.study}, trial {self.trial}, {Objective(self.objective).said(self.value)}"
