"""The members of an export: the kept weights of a trial or given checkpoints, and the data they were trained on."""

from collections.abc import Sequence
from pathlib import Path

import torch

from face3d_tune.data.face_data import SAMPLE_NAME, FaceData, load
from face3d_tune.data.pairs import TURN_ANGLES
from face3d_tune.errors import CheckpointError, DataError
from face3d_tune.refit.inference.ensemble import ExportedMember
from face3d_tune.refit.judge import likely_unit, require_fit
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.kept_weights import kept_weights
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import kept_value
from face3d_tune.training import checkpoint_file
from face3d_tune.training.inputs import BASELINE_FILE
from face3d_tune.training.predictor import Predictor

_CPU = torch.device("cpu")


def of_trial(stored: StoredTrial, artifacts: Artifacts | None) -> ExportedMember:
    """Read the best weights of a trial that a search kept. Raises ArtifactError, and CheckpointError without any."""
    trial, attrs = stored.trial, stored.study_attrs
    model = kept_weights(stored, artifacts, _CPU)
    assert model.pose_unit is not None, "a search records it"
    objective = Objective.of_study(attrs)
    source = {"study": stored.study, "trial": trial.number, objective.name: kept_value(trial, attrs)}
    source |= {"seed": TrialAttr.seed.get(trial.user_attrs)}
    return ExportedMember(model, model.pose_unit, source)


def of_checkpoints(predictors: Sequence[Predictor], data: FaceData | None) -> list[ExportedMember]:
    """Find the unit of the poses of each checkpoint: recorded, or the better one on the training people of `data`.

    `data` may be None where every checkpoint records its unit. Raises CheckpointError if a model takes embeddings of
    another size.
    """
    members = []
    for each in predictors:
        if data is not None:
            require_fit(each, data)
        unit = each.pose_unit
        if unit is None:
            assert data is not None, "a checkpoint without a unit needs its data"
            unit = likely_unit(each, data)
        members.append(ExportedMember(each, unit, {"checkpoint": str(each.path)}))
    return members


def recorded_data(predictors: Sequence[Predictor], folder: Path | None) -> FaceData:
    """Load the data in `folder`, or those that the first checkpoint records, with its limits.

    A checkpoint of a script or of an earlier version records the limits of the script alone.

    Raises DataError if they cannot be read, and CheckpointError if they hold a baseline's outputs, not raw views.
    """
    first = predictors[0]
    source, turn = first.data_dir, first.args.get("turn_angle")
    if folder is None and source != SAMPLE_NAME:
        if source is None:
            raise DataError(f"{first.path} does not record its data", "give the training data with --data-dir")
        folder = Path(source)
    if folder is not None and (folder / BASELINE_FILE).exists():
        raise CheckpointError(
            f"{folder} holds the outputs of a baseline: the exported folder gets raw views",
            f"give {folder / BASELINE_FILE} with --baseline, and the data that it was made from with --data-dir",
        )
    low, high = (first.args.get(name, first.args.get(f"{name}_angle")) for name in ("min_yaw", "max_yaw"))
    return load(
        folder,
        min_yaw=checkpoint_file.number(low) or 0.0,
        max_yaw=checkpoint_file.number(high),
        turn_angle=turn if turn in TURN_ANGLES else "first",
    )
