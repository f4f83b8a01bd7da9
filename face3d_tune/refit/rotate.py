"""The confirmation by every person: K rotations of the people, each judged by models trained on others.

Every person judges once, the test people too, so it is an evaluation on the test people and is counted as one. The
settings were chosen with some of these people, so it is a cross-validation and flatters what was chosen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from face3d_tune import seeds
from face3d_tune.analysis.confirmation import chosen_by
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.rotation import rotations
from face3d_tune.errors import ConfigError
from face3d_tune.refit import intervals
from face3d_tune.refit.baselines import Blended, Fitted, fit_one
from face3d_tune.refit.confirm import Confirmation
from face3d_tune.study.attrs import StudyAttr


class RotatedConfirmation(Confirmation):
    """A confirmation whose rounds are rotations. Each has seeds of its own, and baselines fitted on its people.

    The key of a training has the fingerprint of its rotation, which no other K and no other rotation shares.

    Args:
        of: Rotations K, from 3 to the number of people.
        more: As for a `Confirmation`.

    Raises:
        ConfigError: If these rotations are impossible.
    """

    stored_as = StudyAttr.rotation
    rotations: int

    def __init__(self, *more: Any, of: int) -> None:
        self.rotations = of
        super().__init__(*more)
        pairs = min(len(data.parts["train"]) for data in self._rounds)
        for candidate in self.picked:
            if (size := candidate.config.batch_size) > pairs:
                raise ConfigError(
                    f"{candidate.name} has batch_size = {size}, and one of {of} rotations has {pairs} training pairs",
                    "more rotations leave more people to train",
                )

    @property
    def parts(self) -> list[FaceData]:
        """Return the data of every rotation, in the order in which `by_person` joins their judged people."""
        return list(self._rounds)

    def _cut(self, data: FaceData, seed: int) -> Sequence[FaceData]:
        return rotations(data, self.rotations, seed=seed)

    def _seed(self, seed: int, place: int, number: int) -> int:
        return seeds.derive(seed, "rotate", self.rotations, place, number)

    def _chosen_by(self, row: Mapping[str, Any]) -> Any:
        """Return the value in the study: here the validation people of one rotation judge in another.

        A documented preset without a trial has only what it reaches on validation people.
        """
        chosen = chosen_by(row)
        return (chosen["value"] is not None, chosen["validation"] if chosen["value"] is None else chosen["value"])

    def _described(self) -> dict[str, Any]:
        """Return K, and for each repetition the seeds of its rotations."""
        return {"rotations": self.rotations, "seeds": self.seeds}

    def _compare(self, one: intervals.Values, other: intervals.Values) -> dict[str, Any]:
        blocks = np.repeat(np.arange(len(self._rounds)), [len(data.people["test"]) for data in self._rounds])
        return intervals.compare_blocks(one, other, blocks)

    def _fit(self, kind: Blended, data: FaceData) -> Fitted:
        return fit_one(kind, data)  # what the study chose had people in training who are judged here
