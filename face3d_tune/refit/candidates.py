"""The trials and presets of a study that are trained again to confirm their values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.config import TrialConfig, resolve
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import ConfigError, StudyError
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.objective import COSINE, IDENTITY
from face3d_tune.study.presets import PRESETS
from face3d_tune.study.trials import completed_trials, config_of, preset_rows


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial or a preset to train again."""

    name: str
    config: TrialConfig
    trial: int | None  # None: a preset without a trial in the study
    preset: bool
    value: float | None  # mean validation cosine in the study
    identity: float | None = None  # there
    aliases: tuple[str, ...] = ()  # presets with equal values
    pruned: bool = False  # its value in the study is the least that it would have reached


def candidates(study: optuna.Study, data: FaceData, top: int) -> list[Candidate]:
    """Choose the `top` best completed trials with distinct configs that no preset has, then the presets.

    A study without presets is compared with the documented ones that its data can train. Raises StudyError if no trial
    has completed that is not a preset.
    """
    tried = [_candidate(name, trial, True, aliases) for name, trial, aliases in tried_presets(study)]
    presets = tried or _documented(study, data)
    best = best_trials(study, top, config_of, [preset.config for preset in presets])
    return [*(_candidate(f"trial {trial.number}", trial, False) for trial in best), *presets]


def tried_presets(study: optuna.Study) -> list[tuple[str, FrozenTrial, tuple[str, ...]]]:
    """Return each preset whose trial has begun: its name, its trial, and the names of presets with equal values."""
    rows = [
        row for row in preset_rows(study) if row.trial is not None and TrialAttr.config.held_by(row.trial.user_attrs)
    ]
    return [
        (row.name, row.trial, tuple(each.name for each in rows if each.same_as == row.name))
        for row in rows
        if row.same_as is None and row.trial is not None
    ]


def best_trials(
    study: optuna.Study, top: int, config_of_trial: Callable[[FrozenTrial], Any], of_presets: Sequence[Any]
) -> list[FrozenTrial]:
    """Return the `top` best completed trials with distinct configs that no preset has; `of_presets` are theirs.

    Raises StudyError if no trial has completed that is not a preset.
    """
    taken, best = list(of_presets), list[FrozenTrial]()
    for trial in completed_trials(study):
        if len(best) == top:
            break
        config = config_of_trial(trial)
        if config not in taken and not TrialAttr.preset.get(trial.user_attrs):
            taken.append(config)
            best.append(trial)
    if not best:
        raise StudyError(
            f"study {study.study_name!r} has no completed trial that is not a preset, so there is nothing to confirm",
            "let `face3d-tune run` complete some first",
        )
    return best


def _candidate(name: str, trial: FrozenTrial, preset: bool, aliases: tuple[str, ...] = ()) -> Candidate:
    cosine, identity = (objective.of_trial(trial.user_attrs) for objective in (COSINE, IDENTITY))
    pruned = trial.state == TrialState.PRUNED
    return Candidate(name, config_of(trial), trial.number, preset, cosine, identity, aliases, pruned)


def _documented(study: optuna.Study, data: FaceData) -> list[Candidate]:
    settings = StudyAttr.settings.of(study.user_attrs)
    names: dict[TrialConfig, list[str]] = {}
    for name, preset in PRESETS.items():
        values = dict(preset)
        if settings["layout"] == "pose":
            values["use_spatial_attention"] = False  # the pose layout has no such part
        try:
            config = resolve(
                values, feature_size=data.feature_size, epochs=settings["epochs"], layout=settings["layout"]
            )
        except ConfigError:  # no preset for embeddings of this size
            continue
        if config.batch_size <= len(data.parts["train"]):
            names.setdefault(config, []).append(name)
    return [Candidate(first, config, None, True, None, None, tuple(rest)) for config, (first, *rest) in names.items()]
