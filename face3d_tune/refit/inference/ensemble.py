"""An ensemble to export: members, the baselines that they or a blend need, and what it reaches on validation people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Part
from face3d_tune.errors import CheckpointError
from face3d_tune.refit import baselines
from face3d_tune.training import ensemble
from face3d_tune.training.baseline_file import Baseline, Kind
from face3d_tune.training.predictor import Predictor
from face3d_tune.training.recognition import Gallery, Recognition

VIEW = "view"  # the `inputs` of a model that gets the view's own embedding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One trained model, and what it was made of."""

    predictor: Predictor
    unit: PoseUnit  # of the poses at its input
    source: Mapping[str, Any]  # plain values: study and trial, or the path of a checkpoint

    @property
    def inputs(self) -> str:
        """Return what the model gets in place of the raw view: VIEW, or a kind of baseline."""
        return str(self.predictor.args.get("inputs") or VIEW)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """Members whose unit predictions are averaged, and blended with a baseline if `blend` names one."""

    members: tuple[Member, ...]
    baselines: Mapping[Kind, Baseline]
    blend: Kind | None
    weight: float  # of the blend's baseline, 0 to 1
    data: FaceData | None  # whose training people fit the baselines
    validation: Recognition | None  # of the validation people of `data`

    @property
    def feature_size(self) -> int:
        """Return the numbers per embedding."""
        return self.members[0].predictor.feature_size

    @property
    def needs_landmarks(self) -> bool:
        """Tell whether a member or a baseline reads landmarks."""
        layouts = [member.predictor.layout for member in self.members]
        return "keypoint" in layouts or any(baseline.needs_landmarks for baseline in self.baselines.values())

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


def needed_baselines(members: Sequence[Member], blend: Kind | None) -> list[Kind]:
    """Return the baselines that a blend or the inputs of a member need."""
    needed = {blend, *(member.inputs for member in members)}
    return [kind for kind in baselines.NAMES if kind in needed]


def assemble(
    members: Sequence[Member], data: FaceData | None, blend: Kind | None, attrs: Mapping[str, Any] | None = None
) -> Ensemble:
    """Fit the baselines, choose the weight of the blend, and measure the result on the validation people.

    Args:
        members: At least one.
        data: None only if neither a blend nor the inputs of a member need it; then nothing is measured.
        blend: The baseline of the blend.
        attrs: User attributes of a study on these data: what it chose for its baselines is not chosen again.

    Raises:
        CheckpointError: A model predicts no direction for a view.
    """
    kinds = needed_baselines(members, blend)
    if data is None:
        assert not kinds, "a baseline is fitted to data"
        return Ensemble(members=tuple(members), baselines={}, blend=None, weight=0.0, data=None, validation=None)
    fitted = {kind: Baseline(baselines.fit_one(kind, data, attrs)) for kind in kinds}
    predicted = [_predict(member, fitted, data, "validation") for member in members]
    weight, mean = 0.0, ensemble.average(predicted)
    if blend is not None:
        simple = fitted[blend].fitted.predict(data, "validation")
        weight = ensemble.choose_weight(predicted, simple, data)
        mean = ensemble.blend(predicted, simple, weight)
    return Ensemble(
        members=tuple(members),
        baselines=fitted,
        blend=blend,
        weight=weight,
        data=data,
        validation=Gallery(data, "validation").scores(mean).summary(),
    )


def _predict(member: Member, fitted: Mapping[Kind, Baseline], data: FaceData, part: Part) -> NDArray[np.float32]:
    """Predict the frontal embedding of each pair of a part, [pairs, F], unit length."""
    rows, place = np.unique(data.parts[part][:, 1], return_inverse=True)
    source, landmarks, poses = data.video_features[rows], data.landmarks[rows], data.poses[rows]
    for kind, baseline in fitted.items():
        if member.inputs == kind:
            source = baseline.predict(source, landmarks, poses).astype(np.float32)
    predicted = member.predictor.predict_all(source, landmarks, poses, member.unit, np.arange(len(rows)))
    if len(bad := np.flatnonzero(~np.isfinite(predicted).all(axis=1))):
        raise CheckpointError(
            f"{member.predictor.path} predicts no finite embedding for row {rows[bad[0]]} of video_feature.npy",
            "use another checkpoint",
        )
    by_pair: NDArray[np.float32] = predicted[place]
    return by_pair
