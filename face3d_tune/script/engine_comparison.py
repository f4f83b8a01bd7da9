"""How the built-in trainer compares with a user's script, if the script is the documented trainer."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

USUAL = 0.05  # another seed changes the cosine of a first epoch by less


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCompared:
    """Why the script was not compared with the built-in trainer."""

    reason: str

    def to_attr(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it in a line for a person."""
        return [f"the built-in trainer was not compared: {self.reason}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The script's first epoch with the config that a study begins with, beside the built-in trainer's.

    `times` compares the epochs that all slots train in the same time. The script ran alone, with the threads of one
    slot, so its slots are taken to cost each other nothing.
    """

    times: float | None  # None: an epoch of the script is too short to time
    start_counted: bool  # whether the time of the script's epoch contains its start, which could not be told apart
    script_cosine: float
    built_in_cosine: float
    apart: float  # of the two cosines
    options: Sequence[str]  # of `run`, for a search with the built-in trainer
    lacking: Sequence[str]  # flags of the script that the built-in trainer lacks

    @property
    def same(self) -> bool:
        """Tell whether the cosines are no farther apart than other seeds would make them."""
        return self.apart <= USUAL

    def to_attr(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "options": list(self.options), "lacking": list(self.lacking)}

    def lines(self) -> list[str]:
        """Return it in one to three lines for a person."""
        apart = (
            f"{self.apart:.4f} apart in cosine after one epoch "
            f"({self.built_in_cosine:.4f}, by the script {self.script_cosine:.4f})"
        )
        if not self.same:
            return [f"the built-in trainer gives other numbers than the script: {apart}"]
        if self.times is None:
            line = f"the built-in trainer would give the same numbers: {apart}; the epoch was too short to time"
        elif self.start_counted:
            line = f"the built-in trainer would be up to {self.times:.1f} times as fast with the same numbers: {apart}"
        else:
            line = f"the built-in trainer would be {self.times:.1f} times as fast with the same numbers: {apart}"
        lacking = [f"it lacks {', '.join(self.lacking)}, which have their defaults here"] if self.lacking else []
        return [line, *lacking, f"to search with it: {shlex.join(['face3d-tune', 'run', *self.options])}"]


def of(attr: Mapping[str, Any]) -> Comparison | NotCompared:
    """Read what `to_attr` gave."""
    return NotCompared(**attr) if "reason" in attr else Comparison(**attr)
