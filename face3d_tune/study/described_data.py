"""The data of a study, and how its baselines were fitted, in words."""

from collections.abc import Mapping
from typing import Any

from face3d_tune.data.face_data import recorded_selection
from face3d_tune.data.pairs import PARTS
from face3d_tune.study.attrs import StudyAttr


def describe_data(attrs: Mapping[str, Any]) -> str:
    """Describe the data of a study in one phrase."""
    data = StudyAttr.data.of(attrs)
    parts = PARTS if data["split"] == "person" else PARTS[:1]
    people, pairs = (sum(data[key][part] for part in parts) for key in ("people", "pairs"))
    yaw = "" if data["min_yaw"] == 0 and data["max_yaw"] is None else f", |yaw| {data['min_yaw']}–{data['max_yaw']}"
    yaw += f", {angle}" if (angle := describe_yaw(data)) else ""
    split = f"split {data['split']}{yaw} ({StudyAttr.data_fingerprint.of(attrs)})"
    return f"{data['source']}, {people} people, {pairs} pairs, {split}"


def describe_yaw(data: Mapping[str, Any]) -> str:
    """Say which angle a study's yaw is, from its `data` attribute; "" for the first, which files call yaw."""
    turn = recorded_selection(data)["turn_angle"]
    return "" if turn == "first" else f"yaw is the {turn} angle"


def describe_kernel_ridge(attrs: Mapping[str, Any]) -> str:
    """Say that kernel ridge was fitted with fewer centres than views; "" if with all, or not at all."""
    choice = StudyAttr.kernel_ridge_choice.get(attrs, {})
    few = choice and choice["centres"] < choice["views"]
    return f"kernel ridge with {choice['centres']} of its {choice['views']} training views as centres" if few else ""
