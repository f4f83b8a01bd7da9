"""What makes the numbers of a checkpoint doubtful, in the same words for every command that measures with it."""

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import FaceData
from face3d_tune.training.predictor import Predictor


def find(model: Predictor, unit: PoseUnit, data: FaceData) -> list[str]:
    """Say which people of `data` it may have been trained on, and which input was guessed or differs.

    Args:
        model: As its checkpoint was read.
        unit: Of the poses at its input; doubtful where the checkpoint records none.
        data: On whose people it is measured.
    """
    doubts = []
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
