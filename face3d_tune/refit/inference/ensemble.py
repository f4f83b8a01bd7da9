"""An ensemble to export: its members, the baseline of its blend, and what it reaches on validation people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import CheckpointError
from face3d_tune.refit import baselines
from face3d_tune.refit.judge import predict
from face3d_tune.training import ensemble
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.predictor import Predictor
from face3d_tune.training.recognition import Gallery, Recognition


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One trained model, and what it was made of."""

    predictor: Predictor
    unit: PoseUnit  # of the poses at its input
    source: Mapping[str, Any]  # plain values: study and trial, or the path of a checkpoint

    @property
    def baseline(self) -> Baseline | None:
        """Return the baseline whose output the model gets; None: it gets raw views."""
        return self.predictor.baseline

    @property
    def needs_landmarks(self) -> bool:
        """Tell whether a prediction depends on the landmarks."""
        return self.predictor.needs_landmarks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """Members whose unit predictions are averaged, and blended with a baseline if there is one."""

    members: tuple[Member, ...]
    baseline: Baseline | None  # of the blend
    weight: float  # of that baseline, 0 to 1
    data: FaceData | None  # whose training people fit the baseline
    validation: Recognition | None  # of the validation people of `data`

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return self.members[0].predictor.feature_size

    @property
    def needs_landmarks(self) -> bool:
        """Tell whether a member or the baseline of the blend reads landmarks."""
        of_blend = self.baseline is not None and self.baseline.needs_landmarks
        return of_blend or any(member.needs_landmarks for member in self.members)

    @property
    def landmark_scale(self) -> float | None:
        """Return the factor of the landmarks in training; None if it is not known, or if it had other landmarks."""
        recorded = {member.predictor.landmark_scale for member in self.members} - {None}
        return next(iter(recorded), None if self.data is None else self.data.landmark_scale)


def require_alike(predictors: Sequence[Predictor]) -> None:
    """Raise CheckpointError unless all models take embeddings of one size and landmarks of one scale."""
    first = predictors[0]
    for each in predictors:
        if each.feature_size != first.feature_size:
            raise CheckpointError(
                f"{first.path} takes {first.feature_size} numbers per embedding, {each.path} takes {each.feature_size}",
                "export members that were trained on the same data",
            )
    scales = {each.landmark_scale: each for each in predictors if each.layout == "keypoint" and each.landmark_scale}
    if len(scales) > 1:
        (scale, one), (other_scale, other) = list(scales.items())[:2]
        raise CheckpointError(
            f"{one.path} was trained with landmarks times {scale:g}, {other.path} with landmarks times {other_scale:g}",
            "export members that were trained on the same data",
        )


def assemble(
    members: Sequence[Member],
    data: FaceData | None,
    blend: baselines.Blended | None,
    attrs: Mapping[str, Any] | None = None,
) -> Ensemble:
    """Fit the baseline of the blend, choose its weight, and measure the result on the validation people.

    Args:
        members: At least one.
        data: None only without a blend; then nothing is measured.
        blend: The baseline of the blend.
        attrs: User attributes of a study on these data: what it chose for its baselines is not chosen again.

    Raises:
        CheckpointError: A model predicts no direction for a view.
    """
    if data is None:
        assert blend is None, "a baseline is fitted to data"
        return Ensemble(members=tuple(members), baseline=None, weight=0.0, data=None, validation=None)
    predicted = [predict(member.predictor, data, data.parts["validation"], member.unit) for member in members]
    baseline, weight, mean = None, 0.0, ensemble.average(predicted)
    if blend is not None:
        baseline = Baseline(baselines.fit_one(blend, data, attrs))
        simple = baseline.fitted.predict(data, "validation")
        weight = ensemble.choose_weight(predicted, simple, data)
        mean = ensemble.blend(predicted, simple, weight)
    reached = Gallery(data, "validation").scores(mean).summary()
    return Ensemble(members=tuple(members), baseline=baseline, weight=weight, data=data, validation=reached)
