"""An ensemble to export: its members, the baseline of its blend, and what it reaches on validation people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import CheckpointError
from face3d_tune.refit.judge import predictions
from face3d_tune.training import ensemble, prediction_file
from face3d_tune.training.prediction_file import Blend
from face3d_tune.training.predictor import Predictor
from face3d_tune.training.recognition import Gallery, Recognition


@dataclass(frozen=True, slots=True, eq=False)
class ExportedMember(prediction_file.Member):
    """One trained model, and what it was made of."""

    source: Mapping[str, Any]  # plain values: study and trial, or the path of a checkpoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """Members whose unit predictions are averaged, and blended with a baseline if there is one."""

    members: tuple[ExportedMember, ...]
    blend: Blend | None
    data: FaceData | None  # that the members were trained on
    validation: Recognition | None  # of the validation people of `data`

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return self.members[0].predictor.feature_size

    @property
    def needs_landmarks(self) -> bool:
        """Tell whether a member or the baseline of the blend reads landmarks."""
        of_blend = self.blend is not None and self.blend.baseline.needs_landmarks
        return of_blend or any(member.predictor.needs_landmarks for member in self.members)

    @property
    def landmark_scale(self) -> float | None:
        """Return the factor of the landmarks in training; None if it is not known, or if it had other landmarks."""
        recorded = [member.predictor.landmark_scale for member in self.members]
        recorded += [] if self.blend is None else [self.blend.landmark_scale]
        recorded += [] if self.data is None else [self.data.landmark_scale]
        return next((scale for scale in recorded if scale is not None), None)


def require_alike(predictors: Sequence[Predictor]) -> None:
    """Raise CheckpointError unless all models take embeddings of one size and landmarks of one scale."""
    first = predictors[0]
    for each in predictors:
        if each.feature_size != first.feature_size:
            raise CheckpointError(
                f"{first.path} takes {first.feature_size} numbers per embedding, {each.path} takes {each.feature_size}",
                "export members that were trained on the same data",
            )
    scales = {each.landmark_scale: each for each in predictors if each.needs_landmarks and each.landmark_scale}
    if len(scales) > 1:
        (scale, one), (other_scale, other) = list(scales.items())[:2]
        raise CheckpointError(
            f"{one.path} was trained with landmarks times {scale:g}, {other.path} with landmarks times {other_scale:g}",
            "export members that were trained on the same data",
        )


def assemble(members: Sequence[ExportedMember], blend: Blend | None, data: FaceData | None) -> Ensemble:
    """Measure members and blend on the validation people of `data`; without data nothing is measured.

    Raises CheckpointError if a model predicts no direction for a view.
    """
    reached = None
    if data is not None:
        mean = ensemble.average(predicted := _predictions(members, data))
        if blend is not None:
            simple = blend.baseline.fitted.predict(data, "validation")
            mean = ensemble.blend(predicted, simple, blend.weight)
        reached = Gallery(data, "validation").scores(mean).summary()
    return Ensemble(members=tuple(members), blend=blend, data=data, validation=reached)


def _predictions(members: Sequence[ExportedMember], data: FaceData) -> list[NDArray[np.float32]]:
    return [predictions(each.predictor, data, "validation", each.unit) for each in members]
