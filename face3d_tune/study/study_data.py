"""The data that a study was made on, loaded again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from face3d_tune.data.face_data import SAMPLE_NAME, FaceData, load, recorded_selection
from face3d_tune.errors import StudyError
from face3d_tune.study.attrs import StudyAttr


def study_data(study: str, attrs: Mapping[str, Any], data_dir: Path | None) -> FaceData:
    """Load the data that a study was made on. Raises DataError, and StudyError if `data_dir` holds other data."""
    attr, fingerprint = StudyAttr.data.of(attrs), StudyAttr.data_fingerprint.of(attrs)
    if data_dir is None and attr["source"] != SAMPLE_NAME:
        data_dir = Path(attr["source"])
    data = load(data_dir, **recorded_selection(attr))
    if data.fingerprint() != fingerprint:
        raise StudyError(
            f"study {study!r} was made on other data ({fingerprint}) than {data.source} ({data.fingerprint()})",
            "give the study's data with --data-dir",
        )
    return data
