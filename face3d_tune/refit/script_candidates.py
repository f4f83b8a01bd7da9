"""The trials and presets of a study of the user's own script that the script trains again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.refit.candidates import best_trials, tried_presets
from face3d_tune.script.export_trial import values_of
from face3d_tune.study.objective import Objective


@dataclass(frozen=True, slots=True)
class ScriptCandidate:
    """A trial or a preset to train again."""

    name: str
    config: Mapping[str, Any]  # values by flag
    trial: int
    preset: bool
    value: float | None  # of the metric in the study, at the kept epoch
    aliases: tuple[str, ...] = ()  # presets with equal values
    pruned: bool = False


def script_candidates(study: optuna.Study, top: int) -> list[ScriptCandidate]:
    """Choose the `top` best completed trials with distinct values that no preset has, then the presets.

    Raises StudyError if no trial has completed that is not a preset.
    """
    attrs, objective = study.user_attrs, Objective.of_study(study.user_attrs)

    def config(trial: FrozenTrial) -> Mapping[str, Any]:
        return values_of(attrs, trial.user_attrs)

    def candidate(name: str, trial: FrozenTrial, preset: bool, aliases: tuple[str, ...] = ()) -> ScriptCandidate:
        value, pruned = objective.of_trial(trial.user_attrs), trial.state == TrialState.PRUNED
        return ScriptCandidate(name, config(trial), trial.number, preset, value, aliases, pruned)

    presets = [candidate(name, trial, True, aliases) for name, trial, aliases in tried_presets(study)]
    best = best_trials(study, top, config, [preset.config for preset in presets])
    return [*(candidate(f"trial {trial.number}", trial, False) for trial in best), *presets]
