"""What an attempt at a trial resumed from, and whether it went on where the known epochs end.

A checkpoint may be newer than the numbers: a worker that is killed or stopped loses what its script prints, and a
script that is killed loses what it has not written yet. The epochs in between would be missing, and those after them
counted wrongly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ResumedFrom:
    """A checkpoint from which a script resumed, and how many epochs were known then."""

    checkpoint: Path
    known: int

    def left_out_epochs(self, steps: Sequence[int]) -> bool:
        """Tell whether the first new epoch follows none that is known; `steps` are the source's own epochs."""
        if len(steps) <= self.known:
            return False
        known, new = steps[: self.known], steps[self.known]
        if not known:
            return new > 1
        usual = max((after - before for before, after in pairwise(known)), default=max(1, known[0]))
        return new - known[-1] > usual

    def may_have_lost_epochs(self, steps: Sequence[int], told: int, asked: int | None) -> bool:
        """Tell whether a script that ended well may have trained epochs that are not among those told."""
        if told <= self.known:
            return told != asked
        return not steps and asked is not None and told < asked
