"""The members of an export: the kept weights of a trial or given checkpoints, and the data they were trained on."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from face3d_tune.data.face_data import SAMPLE_NAME, FaceData, load
from face3d_tune.data.pairs import TURN_ANGLES
from face3d_tune.errors import CheckpointError, DataError
from face3d_tune.refit.inference.ensemble import ExportedMember
from face3d_tune.refit.judge import likely_unit, require_fit
from face3d_tune.storage.artifacts import Artifacts, best_weights, unique_name
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.objective import Objective
from face3d_tune.study.trials import StoredTrial, is_imported, kept_value
from face3d_tune.training import checkpoint_file, predictor
from face3d_tune.training.inputs import BASELINE_FILE
from face3d_tune.training.predictor import Predictor

_CPU = torch.device("cpu")


def of_trial(stored: StoredTrial, artifacts: Artifacts | None) -> ExportedMember:
    """Read the best weights of a trial that a search kept. Raises ArtifactError, and CheckpointError without any."""
    trial, attrs = stored.trial, stored.study_attrs
    if is_imported(trial):
        raise CheckpointError(
            f"trial {trial.number} was trained elsewhere, so study {stored.study!r} has no weights of it",
            f"give its checkpoint: {TrialAttr.imported_from.get(trial.user_attrs)}",
        )
    file = best_weights(unique_name(stored.study, StudyAttr.id.of(attrs)), f"trial-{trial.number}")
    content = None if artifacts is None else artifacts.read(file)
    if content is None:
        raise CheckpointError(
            f"--artifacts {artifacts or 'none'} has no weights of trial {trial.number} of study {stored.study!r}",
            "name where the search kept them; or train it again with `face3d-tune train`, and give its best_model.pth",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"trial-{trial.number}.pth"
        path.write_bytes(content)
        try:
            model = predictor.read(path, _CPU)
        except CheckpointError as error:
            raise CheckpointError(error.message.replace(str(path), f"{artifacts}: {file}"), error.hint) from error
    assert model.pose_unit is not None, "a search records it"
    objective = Objective.of_study(attrs)
    source = {"study": stored.study, "trial": trial.number, objective.name: kept_value(trial, attrs)}
    source |= {"seed": TrialAttr.seed.get(trial.user_attrs)}
    return ExportedMember(model, model.pose_unit, source)


def of_checkpoints(predictors: Sequence[Predictor], data: FaceData | None) -> list[ExportedMember]:
    """Find the unit of the poses of each checkpoint: recorded, or the better one on the training people of `data`.

    Raises CheckpointError if it can be found in neither way, or if a model takes embeddings of another size.
    """
    members = []
    for each in predictors:
        if data is not None:
            require_fit(each, data)
        unit = each.pose_unit
        if unit is None:
            if data is None:
                raise CheckpointError(
                    f"{each.path} does not record the unit of its poses, and its data cannot be read to find it",
                    "give the training data with --data-dir",
                )
            unit = likely_unit(each, data)
        members.append(ExportedMember(each, unit, {"checkpoint": str(each.path)}))
    return members


def recorded_data(predictors: Sequence[Predictor], folder: Path | None) -> FaceData:
    """Load the data in `folder`, or those that the first checkpoint records, with its limits.

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
    return load(
        folder,
        min_yaw=checkpoint_file.number(first.args.get("min_yaw_angle")) or 0.0,
        max_yaw=checkpoint_file.number(first.args.get("max_yaw_angle")),
        turn_angle=turn if turn in TURN_ANGLES else "first",
    )
