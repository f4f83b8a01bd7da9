"""The data that a config was trained on, as commands and checkpoints name it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from face3d_tune.config import PoseUnit
from face3d_tune.data.face_data import SAMPLE_NAME, FaceData, recorded_selection
from face3d_tune.data.pairs import Split, TurnAngle

SAMPLE_FOLDER = "faces160"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUse:
    """The data that a config was trained on."""

    data_dir: str
    feature_size: int  # numbers per embedding
    file_pose_unit: PoseUnit  # of the poses as they stand in data_dir
    min_yaw: float = 0.0  # degrees, of |yaw|; 0 = no limit
    max_yaw: float | None = None  # degrees, of |yaw|
    turn_angle: TurnAngle = "first"  # the angle that is yaw; the script always limits the first angle
    split: Split = "person"
    landmark_scale: float | None = None  # factor of landmarks_3d_original; None: not known, or other landmarks
    fingerprint: str | None = None  # of numbers, pairs and split; None: not known

    @property
    def script_limits(self) -> tuple[float, float | None]:
        """Return the limits of the first angle, the only ones that the script accepts."""
        return (self.min_yaw, self.max_yaw) if self.turn_angle == "first" else (0.0, None)

    @classmethod
    def of(cls, data: FaceData) -> Self:
        """Describe data as it was read."""
        return cls(
            data_dir=data.source,
            feature_size=data.feature_size,
            file_pose_unit=data.file_pose_unit,
            min_yaw=data.min_yaw,
            max_yaw=data.max_yaw,
            turn_angle=data.turn_angle,
            split=data.split,
            landmark_scale=data.landmark_scale,
            fingerprint=data.fingerprint(),
        )

    @classmethod
    def of_study(cls, recorded: Mapping[str, Any], data_dir: str | None = None) -> Self:
        """Describe the `data` attribute of a study.

        The bundled sample gets the folder name that `data sample` is told to write.
        """
        source = SAMPLE_FOLDER if recorded["source"] == SAMPLE_NAME else recorded["source"]
        return cls(
            data_dir=data_dir or source,
            feature_size=recorded["feature_size"],
            file_pose_unit=recorded["pose_unit"],
            **recorded_selection(recorded),
        )
