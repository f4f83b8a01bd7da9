"""What makes the numbers of a checkpoint doubtful, in the same words for every command that measures with it."""

from pathlib import Path

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import FaceData
from face3d_tune.training.inputs import BASELINE_FILE
from face3d_tune.training.predictor import Predictor


def find(model: Predictor, unit: PoseUnit, data: FaceData) -> list[str]:
    """Say which people of `data` it may have been trained on, and which input was guessed or differs.

    Args:
        model: As its checkpoint was read.
        unit: Of the poses at its input; doubtful where the checkpoint records none.
        data: On whose people it is measured.
    """
    doubts = of_inputs(model, Path(data.source))
    fingerprint, own = model.data_fingerprint, data.fingerprint()
    if fingerprint is None:
        doubts.append("it does not record its data, so people measured here may be among those it was trained on")
    elif fingerprint != own:
        doubts.append(
            f"it records other data, or another split or limits ({fingerprint}; these are {own}), so people measured "
            "here may be among those it was trained on"
        )
    if model.pose_unit is None:
        doubts.append(f"it does not record the unit of its poses; it gets {unit}")
    scale = model.landmark_scale
    if model.needs_landmarks and scale is not None and scale != data.landmark_scale:
        doubts.append(f"its landmarks were scaled by {scale:g}, these are by {data.landmark_scale or 1:g}")
    return doubts


def of_inputs(model: Predictor, folder: Path) -> list[str]:
    """Say that a model gets raw views in place of a baseline's outputs, or the other way round.

    A copy of `data convert --inputs` is known by its BASELINE_FILE. Nothing is known of a training whose folder is not
    recorded, or not here any more.

    Args:
        model: As its checkpoint was read, perhaps with a baseline that was given.
        folder: Of the views.
    """
    outputs = (folder / BASELINE_FILE).exists()
    if model.baseline is not None:
        again = f"{folder} holds the outputs of a baseline, and its own baseline is applied to them once more"
        return [again] if outputs else []
    trained = None if model.data_dir is None else Path(model.data_dir)
    if trained is None or not trained.is_dir():
        return []
    baseline = trained / BASELINE_FILE
    if baseline.exists() and not outputs:
        return [
            f"it was trained on {trained}, the outputs of a baseline, and gets raw views without --baseline {baseline}"
        ]
    if outputs and not baseline.exists():
        return [f"it was trained on {trained}, raw views, and gets the outputs of a baseline, which {folder} holds"]
    return []
