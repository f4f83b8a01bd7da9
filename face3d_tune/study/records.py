"""The trials of a study as plain records: for Python, and for the tables of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.causes import QUEUED_AGAIN, cause
from face3d_tune.study.exclusions import is_excluded, read_trials, said
from face3d_tune.study.history import History
from face3d_tune.study.objective import Objective
from face3d_tune.study.other_programs import own_trials
from face3d_tune.study.trials import origin

_NUMBERS = (TrialAttr.val_loss, TrialAttr.val_loss_equal, TrialAttr.train_loss)  # of the best epoch


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial, as it was when it was read. Unknown values are None or empty."""

    number: int
    state: str  # complete, pruned, fail, running, waiting
    value: float | None  # of the objective, at the best epoch; a pruned trial has it too
    origin: str  # a preset's name, `tried by hand`, `imported` or `sampled`
    preset: str | None
    params: Mapping[str, Any]  # what the study searches
    config: Mapping[str, Any] = field(repr=False)  # everything that it trains with; a script's flags
    seed: int | None
    best_epoch: int | None  # from 1; its weights are kept
    epochs: int  # trained
    seconds: float | None  # of training
    numbers: Mapping[str, float]  # at the best epoch, by name
    curves: Mapping[str, tuple[float, ...]] = field(repr=False)  # one number an epoch from epoch 1 on, by name
    stop_reason: str | None
    cause: str | None  # of a failure; `queued_again`: another trial has its place
    error: str | None
    excluded: str | None  # who took it out of the study, when and why; None: it counts
    started: datetime | None
    optuna: FrozenTrial = field(repr=False, compare=False)


def records(study: optuna.Study) -> list[Trial]:
    """Return the trials of a study by number, without those of other programs."""
    attrs = study.user_attrs
    objective, space = Objective.of_study(attrs), StudyAttr.settings.of(attrs)["space"]
    return [record(trial, objective, space) for trial in own_trials(read_trials(study))]


def record(trial: FrozenTrial, objective: Objective, space: Mapping[str, Any]) -> Trial:
    """Return one trial; `space` names the searched parameters."""
    attrs = trial.user_attrs
    config = {**TrialAttr.config.get(attrs, {}), **TrialAttr.overrides.get(attrs, {}), **trial.params}
    curves = _curves(History.of(trial, objective))
    failed = trial.state == TrialState.FAIL
    return Trial(
        number=trial.number,
        state=trial.state.name.lower(),
        value=objective.of_trial(attrs),
        origin=origin(trial),
        preset=TrialAttr.preset.get(attrs),
        params={name: config[name] for name in space if name in config},
        config=config,
        seed=TrialAttr.seed.get(attrs),
        best_epoch=TrialAttr.best_epoch.get(attrs),
        epochs=TrialAttr.epochs_run.get(attrs, max(map(len, curves.values()), default=0)),
        seconds=TrialAttr.seconds.get(attrs),
        numbers=_numbers(attrs),
        curves=curves,
        stop_reason=TrialAttr.stop_reason.get(attrs),
        cause=(cause(trial) or QUEUED_AGAIN) if failed else None,
        error=TrialAttr.error.get(attrs),
        excluded=said(trial.number, TrialAttr.excluded.of(attrs)) if is_excluded(trial) else None,
        started=trial.datetime_start,
        optuna=trial,
    )


def _numbers(attrs: Mapping[str, Any]) -> dict[str, float]:
    """Return what a trial reached at its best epoch, under the names that its curves have."""
    if TrialAttr.numbers.held_by(attrs):
        return dict(TrialAttr.numbers.of(attrs))
    reached = {} if (cosine := TrialAttr.val_cosine.get(attrs)) is None else {"cosine": cosine}
    reached |= {attr.key: attr.of(attrs) for attr in _NUMBERS if attr.held_by(attrs)}
    recognised = (TrialAttr.recognition.get(attrs) or {}).get("all", {})
    return reached | {name: rate for name, rate in recognised.items() if name != "cosine" and rate is not None}


def _curves(history: History) -> dict[str, tuple[float, ...]]:
    curves = {each.name: getattr(history, each.name) for each in fields(history) if each.name != "numbers"}
    return {name: curve for name, curve in {**curves, **history.numbers}.items() if curve}
