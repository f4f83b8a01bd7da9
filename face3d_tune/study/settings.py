"""The settings that all trials of a study share, so that they compare; stored with it and checked when it continues."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import optuna
import torch

from face3d_tune import __version__
from face3d_tune.config import Layout
from face3d_tune.data.face_data import FaceData, mean_by_yaw, recorded_selection
from face3d_tune.data.pairs import PARTS
from face3d_tune.errors import StudyError
from face3d_tune.storage.study_names import ANOTHER
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import StoredSettings, StudyAttr
from face3d_tune.study.builtin import STUDIES
from face3d_tune.study.described_data import describe_data
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.study.study_file import BoundStudyFile, StudyFile
from face3d_tune.study.summary import mean_by_band, mean_of_records
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.recognition import Gallery, Predictions

DEFAULT_SEED = 42


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a whole study, from the user."""

    layout: Layout
    epochs: int
    seed: int | None  # None: the study's own, or DEFAULT_SEED for a new one
    folds: int = 1  # of people, over which a trial's value is the mean; 1: the ordinary split
    objective: Objective = COSINE


def study_attrs(data: FaceData, file: StudyFile, settings: Settings) -> dict[str, Any]:
    """Build the user attributes of a study. `settings` comes last: a study that has it has them all.

    The no-model baseline is measured like a trial: the mean over folds of their validation people.
    """
    folds = data.folds(settings.folds)
    return {
        StudyAttr.data_fingerprint.key: data.fingerprint(),
        StudyAttr.data.key: {
            "source": data.source,
            "feature_size": data.feature_size,
            "pose_unit": data.file_pose_unit,
            "split": data.split,
            "min_yaw": data.min_yaw,
            "max_yaw": data.max_yaw,
            "turn_angle": data.turn_angle,
            "people": {part: len(data.people[part]) for part in PARTS},
            "pairs": {part: len(data.parts[part]) for part in PARTS},
        },
        StudyAttr.no_model_cosine.key: fmean(fold.no_model_cosine("validation") for fold in folds),
        StudyAttr.no_model_by_yaw.key: mean_by_band([fold.no_model_by_yaw("validation") for fold in folds]),
        StudyAttr.versions.key: {
            "face3d_tune": __version__,
            "optuna": optuna.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        StudyAttr.settings.key: settings_record(file, settings),
    }


def settings_record(file: StudyFile, settings: Settings) -> StoredSettings:
    """Build the attribute `settings` of a study."""
    return {
        "study_file": file.name,
        "layout": settings.layout,
        "epochs": settings.epochs,
        "folds": settings.folds,
        "objective": settings.objective.name,
        "seed": DEFAULT_SEED if settings.seed is None else settings.seed,
        "fixed": dict(file.fixed),
        "space": space_module.to_stored(file.space),
    }


def no_model_attrs(data: FaceData, folds: int) -> dict[str, Any]:
    """Measure how well the views' own embeddings recognise the validation people, as user attributes of a study.

    It is the mean over folds. A study of an earlier version gets these attributes when it is opened again, as those of
    the next two functions.
    """
    parts = data.folds(folds)
    predictions = [part.no_model_predictions("validation") for part in parts]
    return {StudyAttr.no_model_recognition.key: _recognised(predictions, parts)}


def ridge_attrs(data: FaceData, folds: int) -> dict[str, Any]:
    """Measure ridge regression on the validation people, as user attributes of a study; the last says that all are
    stored.

    It is the mean over folds; the penalty is that of the first, the ordinary split where that fits.
    """
    parts = data.folds(folds)
    fitted = [ridge.fit(part) for part in parts]
    by_yaw, cosine, recognition = _validated(fitted, parts)
    return {
        StudyAttr.ridge_penalty.key: fitted[0].penalty,
        StudyAttr.ridge_by_yaw.key: by_yaw,
        StudyAttr.ridge_cosine.key: cosine,
        StudyAttr.ridge_recognition.key: recognition,
    }


def kernel_ridge_attrs(data: FaceData, folds: int) -> dict[str, Any]:
    """Measure kernel ridge regression in the same way."""
    parts = data.folds(folds)
    fitted = [kernel_ridge.fit(part) for part in parts]
    by_yaw, cosine, recognition = _validated(fitted, parts)
    size = {"views": fitted[0].views, "centres": len(fitted[0].weights)}
    return {
        StudyAttr.kernel_ridge_choice.key: asdict(fitted[0].choice) | size,
        StudyAttr.kernel_ridge_by_yaw.key: by_yaw,
        StudyAttr.kernel_ridge_cosine.key: cosine,
        StudyAttr.kernel_ridge_recognition.key: recognition,
    }


def _validated(
    fitted: Sequence[ridge.Ridge | kernel_ridge.KernelRidge], parts: Sequence[FaceData]
) -> tuple[dict[str, float | None], float, dict[str, Any]]:
    """Return what fits reach on the validation people, each on its own data, mean over fits.

    Cosine by band of |yaw|, cosine over all, and recognition.
    """
    cosines = [each.cosines(part, "validation") for each, part in zip(fitted, parts, strict=True)]
    bands = [
        mean_by_yaw(values, part.yaw[part.parts["validation"][:, 1]])
        for values, part in zip(cosines, parts, strict=True)
    ]
    predictions = [each.predict(part, "validation") for each, part in zip(fitted, parts, strict=True)]
    return mean_by_band(bands), fmean(float(values.mean()) for values in cosines), _recognised(predictions, parts)


def _recognised(predictions: Sequence[Predictions], parts: Sequence[FaceData]) -> dict[str, Any]:
    """Return recognition of the validation people by predictions, each on its own data, mean over them."""
    scores = [Gallery(part, "validation").scores(each) for each, part in zip(predictions, parts, strict=True)]
    return mean_of_records([each.summary().to_dict() for each in scores])


def check_same(name: str, record: Mapping[str, Any], wanted: Mapping[str, Any], settings: Settings) -> None:
    """Raise StudyError with the difference, unless study `name` with attributes `record` may continue as `wanted`."""
    if StudyAttr.data_fingerprint.of(record) != StudyAttr.data_fingerprint.of(wanted):
        raise StudyError(
            f"study {name!r} was made on other data: {describe_data(record)}; now {describe_data(wanted)}",
            f"give the data it was made on{missing_options(record, wanted)}, or {ANOTHER}",
        )
    require_same_optuna(name, record, wanted)
    # An older study says neither how many folds it has nor its objective.
    older = {"folds": 1, "objective": COSINE.name}
    before, now = ({**older, **StudyAttr.settings.of(attrs)} for attrs in (record, wanted))
    refuse_differences(name, before, now, settings.seed)


def refuse_differences(name: str, before: Mapping[str, Any], now: Mapping[str, Any], seed: int | None) -> None:
    """Raise StudyError with the first difference between two `settings`; without a seed, the study's own is meant."""
    free = {"study_file", "grown"} | ({"seed"} if seed is None else set())
    for key, was, is_now in differences(before, now):
        if key not in free:
            if was is None:
                told = f"study {name!r} was made without {key}, now it is {_told(key, is_now)}"
                raise StudyError(told, _hint(key, was))
            told = f"study {name!r} was made with {key} = {_told(key, was)}"
            if is_now is None:
                raise StudyError(f"{told}, now without it", ANOTHER)
            told = f"{told}, now it is {_told(key, is_now)}"
            raise StudyError(told, ANOTHER if "layout" not in before and key == "objective" else _hint(key, was))


def _told(key: str, value: Any) -> str:
    """Format a setting; of a searched parameter its range."""
    if not key.startswith("space."):
        return str(value)
    return space_module.describe(space_module.from_stored({key: value})[key])


def require_same_optuna(name: str, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise StudyError if study `name` is of another major version of Optuna, to which its times mean other things."""
    versions = [StudyAttr.versions.of(attrs)["optuna"] for attrs in (record, wanted)]
    if len({version.split(".")[0] for version in versions}) > 1:
        raise StudyError(f"study {name!r} was made with Optuna {versions[0]}, this is {versions[1]}", ANOTHER)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs between two tables: `space.lr`, its value before and now, None where it is missing."""
    old, new = _flat(before), _flat(now)
    yield from ((key, old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key))


def as_made(file: BoundStudyFile, record: Mapping[str, Any]) -> BoundStudyFile:
    """Return a built-in file without the parameters that the study with attributes `record` was made without.

    A later version may search more, and a study that an earlier one began must be able to end. A file of the user's own
    is taken as it is, since its author changed it.
    """
    stored = StudyAttr.settings.of(record)
    if file.path.parent != STUDIES or stored["study_file"] != file.name:
        return file
    return replace(file, space={name: row for name, row in file.space.items() if name in stored["space"]})


def _hint(key: str, before: object) -> str:
    """Say how to continue a study in which one setting was `before`."""
    if key == "folds":
        return f"means over folds and values of one split do not compare; {ANOTHER}"
    if key == "objective":
        return f"values of two objectives do not compare: continue it with --objective {before}, or {ANOTHER}"
    if key.startswith("space."):
        return f"the ranges of a study only grow, by --space FILE.toml; or {ANOTHER}"
    return f"continue it with --{key} {before}, or {ANOTHER}" if key in ("epochs", "layout", "seed") else ANOTHER


def missing_options(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the options that choose the pairs of `record` and were given otherwise; "" without such a difference."""
    before, now = (recorded_selection(StudyAttr.data.of(attrs)) for attrs in (record, wanted))
    words = []
    for name in (name for name in before if before[name] != now[name]):
        flag, value = f"--{name.replace('_', '-')}", before[name]
        text = f"{value:g}" if isinstance(value, float) else value
        words.append(f"without {flag}" if value is None else f"{flag} {text}")
    return f" with {', '.join(words)}" if words else ""


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten `{"space": {"lr": …}}` to `{"space.lr": …}`."""
    flat = {}
    for key, value in settings.items():
        inner = {f"{key}.{name}": row for name, row in value.items()} if isinstance(value, Mapping) else {key: value}
        flat.update(inner)
    return flat
