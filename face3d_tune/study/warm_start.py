"""The warm start of a study, as in the guide's stages: it begins at the best of the study before.

Every parameter that the next study does not search keeps the best trial's value. Its first trials are that config and
four near it. The warm start is stored with the new study, which then continues without the old one.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage

from face3d_tune import seeds
from face3d_tune.config import PARAMETERS, TrialConfig, resolve
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import alike, study_names
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.described_data import describe_data
from face3d_tune.study.growth import as_grown
from face3d_tune.study.lookup import find_study, pick_trial
from face3d_tune.study.objective import Objective
from face3d_tune.study.other_programs import is_own_study
from face3d_tune.study.presets import PRESETS, Preset
from face3d_tune.study.settings import DEFAULT_SEED, Settings, as_made, missing_options, study_attrs
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.study_file import BoundStudyFile, StudyFile
from face3d_tune.study.trials import repeatable_config

_NEIGHBOURS = 4
_TRIES = 100  # attempts at finding that many: a space of few choices has fewer


def take_up(
    place: Storage, name: str, before: str | None, data: FaceData, file: BoundStudyFile, settings: Settings
) -> tuple[BoundStudyFile, WarmStart | None]:
    """Return the study file as study `name` continues itself or study `before`, and the warm start.

    Raises StudyError, as `find` does, and StorageError.
    """
    if before is None and not place.holds_studies():
        return file, None
    with place.opened() as storage:
        if (own := _own_study(storage, name)) is not None:
            file = as_made(file, own.user_attrs)
        stage = find(storage, name, before, data, file, settings)
        if stage is not None:
            file = follow(file, stage, _seed(storage, name, settings))
        return file if own is None else as_grown(file, StudyAttr.settings.of(own.user_attrs)), stage


def find(
    storage: BaseStorage, name: str, before: str | None, data: FaceData, file: StudyFile, settings: Settings
) -> WarmStart | None:
    """Find the warm start of study `name`: the stored one if the study exists, else the best of study `before`.

    None without a study before. Raises StudyError if `before` is another study than the stored one, or cannot be
    followed.
    """
    before = before and (alike(before, study_names(storage)) or before)
    if (own := _own_study(storage, name)) is not None:
        return _stored_start(name, own.user_attrs, before)
    if before is None:
        return None
    if before == name:
        raise StudyError(
            f"study {name!r} cannot follow itself", "name the study of the stage before, or this one: --study-name NEW"
        )
    study = find_study(storage, before)
    _check_comparable(study, study_attrs(data, file, settings))
    best = pick_trial(study, None)
    objective = Objective.of_study(study.user_attrs).name
    return WarmStart(before, best.number, float(best.value or 0.0), repeatable_config(best).to_dict(), objective)


def _own_study(storage: BaseStorage, name: str) -> optuna.Study | None:
    """Return study `name`; None if there is none, its process died too early, or another program made it."""
    if name not in study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    return study if is_own_study(study) else None


def _stored_start(name: str, attrs: Mapping[str, Any], before: str | None) -> WarmStart | None:
    start = WarmStart.of(attrs)
    if before is not None and (start is None or start.study != before):
        follows = "follows no other" if start is None else f"follows {start.study!r}, not {before!r}"
        raise StudyError(
            f"study {name!r} {follows}",
            "omit --from to continue it, or start another study with --study-name NEW",
        )
    return start


def _check_comparable(study: optuna.Study, wanted: Mapping[str, Any]) -> None:
    own, name = study.user_attrs, study.study_name
    if StudyAttr.script.held_by(own):
        raise StudyError(
            f"study {name!r} searches a script of your own, whose flags are not the parameters of the built-in trainer",
            "omit --from, or name a study of the built-in trainer",
        )
    if StudyAttr.data_fingerprint.of(own) != StudyAttr.data_fingerprint.of(wanted):
        raise StudyError(
            f"study {name!r} was made on other data: {describe_data(own)}; now {describe_data(wanted)}",
            f"give the data it was made on{missing_options(own, wanted)}; its best need not be good for others",
        )
    layouts = [StudyAttr.settings.of(attrs)["layout"] for attrs in (own, wanted)]
    if layouts[0] != layouts[1]:
        raise StudyError(
            f"study {name!r} was made with layout = {layouts[0]}, now it is {layouts[1]}", f"add --layout {layouts[0]}"
        )


def _seed(storage: BaseStorage, name: str, settings: Settings) -> int:
    """Return the seed that study `name` has, or will have."""
    if settings.seed is not None:
        return settings.seed
    own = _own_study(storage, name)
    return DEFAULT_SEED if own is None else StudyAttr.settings.of(own.user_attrs)["seed"]


def follow(file: BoundStudyFile, stage: WarmStart, seed: int) -> BoundStudyFile:
    """Return the study file with the fixed values and first trials of a warm start.

    The best and its neighbours, no two of them equal, replace the guide's presets. Presets of the file's own come after
    them.
    """
    values = _values(stage.config, file)
    fixed = {name: value for name, value in values.items() if name not in file.space}
    start = {name: nearest(row, values[name]) for name, row in file.space.items()}
    best = start | _exact(stage.config, {**fixed, **start}, file.feature_size)
    near = {f"{stage.study}-near-{number}": each for number, each in enumerate(_neighbours(file, start, seed), 1)}
    own = {name: preset for name, preset in file.presets.items() if name not in PRESETS}
    presets: dict[str, Preset] = {f"{stage.study}-best": best, **near, **own}
    return replace(file, fixed=fixed, presets=presets, near=tuple(near))


def moved(file: BoundStudyFile, stage: WarmStart) -> dict[str, tuple[Any, Any]]:
    """Return searched parameters whose best value is outside the space, each with the value it begins at instead."""
    values = _values(stage.config, file)
    starts = {name: (values[name], nearest(row, values[name])) for name, row in file.space.items()}
    return {name: pair for name, pair in starts.items() if pair[0] != pair[1]}


def nearest(row: BaseDistribution, value: Any) -> Any:
    """Return `value` if the space contains it, else the nearest end or choice; of unordered choices the first.

    So the sampler sees every searched value of every trial. A value that it does not see, as a preset's 0, would never
    be sampled together with the others.
    """
    if space_module.contains(row, value):
        return value
    ends = space_module.ends(row)
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (*ends, value))
    return min(ends, key=lambda end: abs(end - value)) if numbers else ends[0]


def _values(config: Mapping[str, Any], file: BoundStudyFile) -> dict[str, Any]:
    """Convert a config to parameters of a study file. Values that follow from others there are omitted."""
    values = {name: value for name, value in config.items() if name in PARAMETERS}
    d_model = values["d_model"]
    if values["dim_feedforward"] == 4 * d_model and "dim_feedforward" not in file.space:
        del values["dim_feedforward"]
    if "width" in file.space:
        values["width"] = d_model / file.feature_size
    if "d_model" not in file.space and ("width" in file.space or d_model == file.feature_size):
        del values["d_model"]
    if "cosine_weight" in file.space and "mse_weight" not in file.space:
        del values["mse_weight"]
    return values


def _exact(config: Mapping[str, Any], values: Mapping[str, Any], feature_size: int) -> dict[str, Any]:
    """Return the best's weight of the mean squared error, where it is not 1 - cosine_weight to the last digit."""
    whole = TrialConfig(**config)
    made = resolve(values, feature_size=feature_size, epochs=whole.epochs, layout=whole.layout)
    same = made.cosine_weight == whole.cosine_weight and made.mse_weight != whole.mse_weight
    return {"mse_weight": whole.mse_weight} if same else {}


def _neighbours(file: StudyFile, start: Mapping[str, Any], seed: int) -> Sequence[dict[str, Any]]:
    """Return up to four points near `start`, which follow from the seed."""
    rng, points = random.Random(seeds.derive(seed, "neighbours")), [dict(start)]
    for _ in range(_TRIES):
        point = {name: space_module.neighbour(row, start[name], rng) for name, row in file.space.items()}
        if point not in points and len(points) <= _NEIGHBOURS:
            points.append(point)
    return points[1:]
