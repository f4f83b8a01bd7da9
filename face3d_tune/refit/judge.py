"""Checkpoints judged on one part of the people: recognition and cosine, beside methods that need no training.

Every number is defined in `training/recognition`. Differences are paired over people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from face3d_tune import __version__
from face3d_tune.analysis.recognising import only_raises_cosine
from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Part
from face3d_tune.errors import CheckpointError, ConfigError
from face3d_tune.refit import doubts, intervals
from face3d_tune.refit.baselines import NAMES, Blended, Fitted, fit
from face3d_tune.training import ensemble
from face3d_tune.training.predictor import Predictor
from face3d_tune.training.recognition import ALL, RATES, Gallery, Scores

VERSION = 1  # of the keys of a judgement
COMPARED = ("cosine", "rank1_enrolled")  # rates whose differences are shown
_UNITS: tuple[PoseUnit, ...] = ("degrees", "radians")
_ENOUGH = 2000  # training pairs to tell the unit of the poses by


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One method: a baseline, a checkpoint, the ensemble of all checkpoints, or its blend with a baseline."""

    name: str
    kind: Literal["baseline", "checkpoint", "ensemble", "blend"]
    scores: Scores
    predictor: Predictor | None = None  # of a checkpoint
    unit: PoseUnit | None = None  # of the poses at its input
    baseline: str | None = None  # of a blend
    weight: float | None = None  # of that baseline
    given: bool = False  # whether the weight was given; else validation people chose it

    def rate(self, name: str) -> float | None:
        """Return one of RATES over all views."""
        value: float | None = getattr(self.scores.summary().all, name)
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The results of checkpoints on one part of the people: of baselines, checkpoints, their ensemble, and a blend."""

    data: FaceData
    part: Part
    rows: tuple[Row, ...]

    @property
    def judged(self) -> tuple[Row, ...]:
        """Return the rows that are no baseline."""
        return tuple(row for row in self.rows if row.kind != "baseline")

    def warnings(self) -> list[str]:
        """Return a sentence for each row that raises the cosine, but recognises people no better."""
        rates = {row.name: (row.rate("cosine"), row.rate("rank1_enrolled")) for row in self.rows}
        baselines = {row.name: rates[row.name] for row in self.rows if row.kind == "baseline"}
        sentences = {row.name: only_raises_cosine(*rates[row.name], baselines) for row in self.judged}
        return [f"{name} {sentence}." for name, sentence in sentences.items() if sentence]

    def differences(self) -> list[dict[str, Any]]:
        """Compare each row with the baseline that is best at a rate, for each of COMPARED; see `intervals.compare`."""
        differences = []
        for rate in COMPARED:
            baselines = [row for row in self.rows if row.kind == "baseline"]
            best = max(baselines, key=lambda row: row.rate(rate) or 0.0)
            for row in self.judged:
                compared = intervals.compare(_table(row, rate), _table(best, rate))
                differences.append({"of": row.name, "rate": rate, "name": best.name, **compared})
        return differences

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        gallery = self.rows[0].scores.gallery
        return {
            "version": VERSION,
            "face3d_tune": __version__,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "part": self.part,
            "data": {"source": self.data.source, "fingerprint": self.data.fingerprint()},
            "people": len(gallery.people),
            "views": len(gallery.owner),
            "gallery": {"judged": gallery.judged, "enrolled": gallery.enrolled},
            "rows": [_row(row, self.data) for row in self.rows],
            "differences": self.differences(),
            "warnings": self.warnings(),
        }


def judge(
    predictors: Sequence[Predictor],
    data: FaceData,
    part: Part,
    *,
    unit: PoseUnit | None,
    device: torch.device,
    blends: Sequence[Blended] = (),
    weight: float | None = None,
    fitted: Mapping[str, Fitted] | None = None,
    names: Sequence[str] | None = None,
) -> Judgement:
    """Judge checkpoints on one part of the people of `data`, and with several of them their ensemble.

    Args:
        predictors: Of the checkpoints; without one, only the baselines are judged.
        data: Its training people fit the baselines.
        part: Whose people are judged.
        unit: Of the poses at the input of a model whose checkpoint records none. None: the one with the higher cosine
            on training people.
        device: Of the scores.
        blends: Baselines to blend with the checkpoints, each alone. Validation people choose a weight for either part.
        weight: Of the baseline in every blend, instead of the chosen ones.
        fitted: The result of `baselines.fit`, if it is there already.
        names: Of the checkpoints; without them, their paths.

    Raises:
        ConfigError: The part has no people, or there is a blend without a checkpoint.
        CheckpointError: A model takes embeddings of another size, or predicts no direction for a view.
    """
    if not len(data.parts[part]):
        raise ConfigError(f"--part {part}: with --split {data.split} it has no people", "omit --split")
    if blends and not predictors:
        raise ConfigError(f"--blend {blends[0]} needs a checkpoint to blend with", "name a best_model.pth, or a folder")
    for each in predictors:
        require_fit(each, data)
    units = [each.pose_unit or unit or likely_unit(each, data) for each in predictors]

    def made(of: Part) -> list[NDArray[np.float32]]:
        return [predictions(each, data, of, own) for each, own in zip(predictors, units, strict=True)]

    gallery, members = Gallery(data, part, device), made(part)
    fitted = fit(data) if fitted is None else fitted
    names = [str(each.path) for each in predictors] if names is None else names
    rows = [Row(name, "baseline", gallery.scores(each.predict(data, part))) for name, each in fitted.items()]
    rows += [
        Row(name, "checkpoint", gallery.scores(predicted), each, own)
        for name, each, own, predicted in zip(names, predictors, units, members, strict=True)
    ]
    if len(members) > 1:
        rows.append(Row(f"ensemble of {len(members)}", "ensemble", gallery.scores(ensemble.average(members))))
    choosing = blends and weight is None
    judging = made("validation") if choosing and part != "validation" else members
    for name in map(NAMES.__getitem__, blends):
        own = weight
        if own is None:
            own = ensemble.choose_weight(judging, fitted[name].predict(data, "validation"), data, device)
        scores = gallery.scores(ensemble.blend(members, fitted[name].predict(data, part), own))
        named = f"blend, {own:.2f} {name}"
        rows.append(Row(named, "blend", scores, baseline=name, weight=own, given=weight is not None))
    return Judgement(data, part, tuple(rows))


def notes(judgement: Judgement) -> list[str]:
    """Say what makes numbers doubtful: judged people in a training or in the choice of a weight, or a guessed input."""
    lines = []
    for row in judgement.rows:
        if row.predictor is not None and row.unit is not None:
            lines += [f"{row.name}: {doubt}" for doubt in doubts.find(row.predictor, row.unit, judgement.data)]
    if judgement.part == "validation":
        chosen = [row.name for row in judgement.rows if row.kind == "blend" and not row.given]
        lines += [f"{name}: its weight was chosen on the people judged here, which flatters it" for name in chosen]
    return lines


def require_fit(predictor: Predictor, data: FaceData) -> None:
    """Raise CheckpointError unless the model takes embeddings of this size."""
    if predictor.feature_size != data.feature_size:
        raise CheckpointError(
            f"{predictor.path} takes {predictor.feature_size} numbers per embedding, {data.source} has "
            f"{data.feature_size}",
            "give data of the network that the model was trained on",
        )


def predictions(predictor: Predictor, data: FaceData, part: Part, unit: PoseUnit) -> NDArray[np.float32]:
    """Predict the frontal embedding of each pair of a part, [pairs, F], unit length; `unit` is that of the poses.

    Raises CheckpointError if a prediction has no direction.
    """
    return predict(predictor, data, data.parts[part], unit)


def predict(predictor: Predictor, data: FaceData, pairs: NDArray[np.int64], unit: PoseUnit) -> NDArray[np.float32]:
    """Predict the frontal embedding of each of these pairs, [pairs, F]. Raises CheckpointError."""
    rows, place = np.unique(pairs[:, 1], return_inverse=True)
    predicted = predictor.predict_all(data.video_features, data.landmarks, data.poses, unit, rows)
    if len(bad := np.flatnonzero(~np.isfinite(predicted).all(axis=1))):
        raise CheckpointError(
            f"{predictor.path} predicts no finite embedding for row {rows[bad[0]]} of video_feature.npy",
            "use another checkpoint",
        )
    by_pair: NDArray[np.float32] = predicted[place]
    return by_pair


def likely_unit(predictor: Predictor, data: FaceData) -> PoseUnit:
    """Return the unit of the poses that gives the higher cosine on training people, who are never judged."""
    pairs = data.parts["train"]
    pairs = pairs[:: -(-len(pairs) // _ENOUGH)]
    front = data.front_features[pairs[:, 0]]
    front = front / np.linalg.norm(front, axis=1, keepdims=True)
    return max(_UNITS, key=lambda unit: float((predict(predictor, data, pairs, unit) * front).sum(axis=1).mean()))


def _table(row: Row, rate: str) -> NDArray[np.float64]:
    """Return one of RATES for each person over all views, [1, people]."""
    values: NDArray[np.float64] = row.scores.person_means()[ALL][RATES.index(rate)]
    return values[None]


def _row(row: Row, data: FaceData) -> dict[str, Any]:
    content: dict[str, Any] = {"name": row.name, "kind": row.kind}
    if row.predictor is not None:
        fingerprint = row.predictor.data_fingerprint
        content |= {
            "path": str(row.predictor.path),
            "sha256": row.predictor.sha256,
            "epoch": row.predictor.epoch,
            "layout": row.predictor.layout,
            "pose_unit": row.unit,
            "inputs": row.predictor.inputs,
            "trained_on_these_data": None if fingerprint is None else fingerprint == data.fingerprint(),
        }
    if row.kind == "blend":
        content |= {"baseline": row.baseline, "weight": row.weight}
    return content | {"recognition": row.scores.summary().to_dict()}
