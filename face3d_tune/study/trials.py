"""A study as read: its trials, the best one, the config of each. Nothing here writes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.config import TrialConfig
from face3d_tune.study.attrs import Effort, StoredStop, StudyAttr, TrialAttr
from face3d_tune.study.exclusions import is_excluded, read_trials
from face3d_tune.study.objective import Objective
from face3d_tune.study.other_programs import is_foreign, is_own_study, own_trials

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
TRIED = "tried by hand"  # the name of a trial that a person queued
IMPORTED = "imported"  # the `origin` of a trial that was trained elsewhere
REQUEUED = TrialAttr.requeued.key


@dataclass(frozen=True, slots=True)
class PresetRow:
    """One line of the guide's before/after table, measured. `trial` is None before there is one."""

    name: str
    trial: FrozenTrial | None
    same_as: str | None = None  # another preset with equal values, which was trained for both


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the completed trial with the best value; None if none has completed.

    An imported trial whose value the study could not confirm does not count, nor one that a person excluded.
    """
    return next(iter(completed_trials(study)), None)


def completed_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the completed trials that count, best first."""
    found = filter(is_complete, read_trials(study, (TrialState.COMPLETE,)))
    objective = Objective.of_study(study.user_attrs)
    return sorted(found, key=lambda trial: objective.key(trial.value), reverse=True)


def trained_best_first(trials: Iterable[FrozenTrial], objective: Objective) -> list[FrozenTrial]:
    """Return the trials that finished here, best first: completed, pruned, then excluded ones.

    Of equal ones the earliest is first, as in `completed_trials`, so the best trial of both is the same.
    """

    def rank(trial: FrozenTrial) -> tuple[bool, bool, float]:
        value = objective.key(objective.of_trial(trial.user_attrs))
        return not is_excluded(trial), trial.state == TrialState.COMPLETE, value

    return sorted(filter(trained_here, trials), key=rank, reverse=True)


def counts(trial: FrozenTrial) -> bool:
    """Tell whether a finished trial may be the best, or be compared with it.

    A trial of another program may not, nor an imported one whose value the study could not confirm, nor one that a
    person excluded.
    """
    own = trial.state in FINISHED and not is_foreign(trial) and not is_excluded(trial)
    return own and bool(TrialAttr.confirmed.get(trial.user_attrs, True))


def is_complete(trial: FrozenTrial) -> bool:
    """Return whether a trial has completed and counts, so that its value may be compared with others."""
    return trial.state == TrialState.COMPLETE and trial.value is not None and counts(trial)


def is_imported(trial: FrozenTrial) -> bool:
    """Return whether a trial was trained elsewhere, as an earlier run."""
    return bool(TrialAttr.origin.get(trial.user_attrs) == IMPORTED)


def trained_here(trial: FrozenTrial) -> bool:
    """Tell whether a trial has finished and was neither imported nor made by another program: the budget has it."""
    return trial.state in FINISHED and not is_foreign(trial) and not is_imported(trial)


def kept_cosine(trial: FrozenTrial) -> float | None:
    """Return the mean validation cosine of the checkpoint that training kept, for a pruned trial too."""
    return TrialAttr.val_cosine.get(trial.user_attrs)  # to Optuna, a pruned trial's value is its last epoch's


def kept_value(trial: FrozenTrial, study_attrs: Mapping[str, Any]) -> float | None:
    """Return the value of that checkpoint: what the study's objective gives it."""
    return Objective.of_study(study_attrs).of_trial(trial.user_attrs)


def effort_of(study_attrs: Mapping[str, Any]) -> Effort:
    """Return budget, target, sampler and pruner of a study's last run; empty if no run is recorded."""
    return StudyAttr.effort.get(study_attrs) or {}


def stopped(study_attrs: Mapping[str, Any]) -> StoredStop | None:
    """Return the request to stop the search; None if there was none, or the search went on since."""
    stop = StudyAttr.stop.get(study_attrs)
    return stop if stop and not stop["over"] else None


def budget_of(study_attrs: Mapping[str, Any]) -> int | None:
    """Return the budget of a study's last run: its total number of finished trials; None if that is not recorded."""
    return effort_of(study_attrs).get("trials")


def folds_of(study_attrs: Mapping[str, Any]) -> int:
    """Return the number of folds over which the values of a study's trials are means; 1: the ordinary split."""
    settings = StudyAttr.settings.get(study_attrs)
    return settings.get("folds", 1) if settings else 1


def config_of(trial: FrozenTrial) -> TrialConfig:
    """Return the config that a trial began with."""
    return TrialConfig(**TrialAttr.config.of(trial.user_attrs))


def repeatable_config(trial: FrozenTrial) -> TrialConfig:
    """Return the config that repeats a trial's value.

    It omits the mixed precision that failed, and ends at the epoch at which reaching the target ended the trial.
    """
    config, attrs = config_of(trial), trial.user_attrs
    if TrialAttr.retried_without_amp.get(attrs):
        config = replace(config, use_mixed_precision=False)
    if TrialAttr.stop_reason.get(attrs) == "target":
        config = replace(config, epochs=TrialAttr.epochs_run.of(attrs))
    return config


def preset_rows(study: optuna.Study) -> list[PresetRow]:
    """Return every preset of a study with its latest trial, in queued order; none whose trial a person excluded."""
    return [row for row in every_preset(study) if row.trial is None or not is_excluded(row.trial)]


def every_preset(study: optuna.Study) -> list[PresetRow]:
    """Return the same, those with an excluded trial among them."""
    trials: dict[str, FrozenTrial] = {}
    for trial in own_trials(read_trials(study)):
        if isinstance(preset := TrialAttr.preset.get(trial.user_attrs), str):
            trials[preset] = trial  # a later trial is the retry of an earlier one
    aliases = StudyAttr.preset_aliases.get(study.user_attrs, {})
    rows = [PresetRow(name, trial) for name, trial in trials.items()]
    return rows + [PresetRow(name, trials.get(first), first) for name, first in aliases.items()]


def origin(trial: FrozenTrial) -> str:
    """Return the origin of a trial's config: a name, `tried by hand`, `imported` or `sampled`.

    The name is that of a preset, of a point near the best of the study before, or `like STUDY trial N`.
    """
    return str(queued_name(trial.user_attrs) or TrialAttr.origin.get(trial.user_attrs) or "sampled")


def queued_name(attrs: Mapping[str, Any]) -> str | None:
    """Return the name of a trial that was queued, as `origin` does; None: it was sampled."""
    named = TrialAttr.preset.get(attrs) or TrialAttr.near.get(attrs)
    if winner := TrialAttr.like.get(attrs):
        return f"like {winner['study']} trial {winner['trial']}"
    return named or (TRIED if TrialAttr.tried.held_by(attrs) else None)


def queued_by_request(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that a person tried or took from another study, without retried and excluded ones."""
    kinds = (TrialAttr.tried, TrialAttr.like)
    return [
        trial
        for trial in own_trials(read_trials(study))
        if any(kind.held_by(trial.user_attrs) for kind in kinds)
        and not TrialAttr.requeued.held_by(trial.user_attrs)
        and not is_excluded(trial)
    ]


def count_imported(study: optuna.Study) -> int:
    """Count the trials that were trained elsewhere, which are outside every budget."""
    return sum(map(is_imported, read_trials(study)))


def count_states(study: optuna.Study) -> dict[str, int]:
    """Count trials by state, every state named: complete, pruned, fail, running, waiting.

    In a study of this program, trials of others are omitted.
    """
    trials = read_trials(study)
    states = [trial.state for trial in (own_trials(trials) if is_own_study(study) else trials)]
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    return {state.name.lower(): states.count(state) for state in order}
