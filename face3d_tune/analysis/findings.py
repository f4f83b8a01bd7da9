"""The findings of a study, worked out once for report, dashboard and terminal. Nothing here writes."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis.importance import Importance, importances
from face3d_tune.analysis.likely_best import LikelyBest, likely_best
from face3d_tune.study.attrs import StoredScript, StoredSettings, StudyAttr, TrialAttr
from face3d_tune.study.exclusions import is_excluded, read_trials
from face3d_tune.study.growth import values_before
from face3d_tune.study.objective import Objective
from face3d_tune.study.other_programs import own_trials
from face3d_tune.study.presets import OF_SCRIPT
from face3d_tune.study.trials import (
    FINISHED,
    PresetRow,
    best_trial,
    count_states,
    counts,
    is_complete,
    preset_rows,
    trained_here,
)

_RUNNERS_UP = 4  # trials after the best that are shown


@dataclass(frozen=True, slots=True)
class Improvement:
    """A trial that was the best so far when it completed."""

    trial: int
    finished: int  # trials by then, this one included
    seconds: float  # of searching by then, without pauses, in which no trial ran
    value: float


@dataclass(frozen=True, slots=True)
class Pruning:
    """Pruned trials and the epochs saved: the median of completed trials minus those trained."""

    trials: int
    epochs: int  # trained by the pruned trials
    saved_epochs: int
    saved_seconds: float  # of training, at each trial's own seconds an epoch
    raced: int = 0  # trials that the race between folds ended


@dataclass(frozen=True, slots=True)
class Findings:
    """One study at one moment."""

    name: str
    attrs: Mapping[str, Any]  # the study's user attributes
    trials: Sequence[FrozenTrial]  # of this program, by number, without excluded ones
    excluded: Sequence[FrozenTrial]  # that people took out, counted within budget, states and effort alone
    by_hand: int  # trials of other programs, counted nowhere else
    states: Mapping[str, int]  # trials by state: complete, pruned, fail, running, waiting
    best: FrozenTrial | None
    likely_best: LikelyBest | None  # what it would likely reach again; None: the noise is not known
    presets: Sequence[PresetRow]
    runners_up: Sequence[FrozenTrial]  # the next best without presets, best first
    improvements: Sequence[Improvement]  # in order of completion
    seconds: float  # of searching, without pauses
    epochs: int  # trained by finished trials
    pruning: Pruning
    importances: Sequence[Importance]  # of searched parameters among completed trials; empty if these are too few

    @property
    def finished(self) -> int:
        """Count the completed and pruned trials that were trained here, excluded ones too."""
        return len(_own([*self.trials, *self.excluded], FINISHED))

    @property
    def objective(self) -> Objective:
        """Return what a trial's value is."""
        return Objective.of_study(self.attrs)

    @property
    def script(self) -> StoredScript | None:
        """Return the user's own script that the study searches; None if it trains with the built-in trainer."""
        return StudyAttr.script.get(self.attrs)

    @property
    def lines(self) -> dict[str, float]:
        """Return the values of no model, ridge and kernel ridge, by name; an earlier version lacks some."""
        return self.objective.of_baselines(self.attrs)

    @property
    def no_model(self) -> float:
        """Return the no-model baseline: the mean validation cosine of the side-view embeddings."""
        value: float = StudyAttr.no_model_cosine.of(self.attrs)
        return value

    @property
    def ridge(self) -> float | None:
        """Return the mean validation cosine of ridge regression; None for a study of an earlier version."""
        value: float | None = StudyAttr.ridge_cosine.get(self.attrs)
        return value

    @property
    def kernel_ridge(self) -> float | None:
        """Return that of kernel ridge, the line to pass; None for a study of an earlier version."""
        value: float | None = StudyAttr.kernel_ridge_cosine.get(self.attrs)
        return value

    @property
    def confirmation(self) -> Mapping[str, Any] | None:
        """Return the confirmation on the test people, if the study has one."""
        confirmation: Mapping[str, Any] | None = StudyAttr.confirmation.get(self.attrs)
        return confirmation

    @property
    def rotation(self) -> Mapping[str, Any] | None:
        """Return the confirmation by all people, if the study has one."""
        return StudyAttr.rotation.get(self.attrs)

    @property
    def script_confirmation(self) -> Mapping[str, Any] | None:
        """Return the confirmation with the user's own script, if the study has one."""
        return StudyAttr.script_confirmation.get(self.attrs)

    @property
    def confirmed_best(self) -> bool:
        """Tell whether the confirmation included the trial that is best now; false without a confirmation."""
        return self._included(self.confirmation or self.script_confirmation)

    @property
    def rotated_best(self) -> bool:
        """Tell the same of the confirmation by all people."""
        return self._included(self.rotation)

    def _included(self, confirmation: Mapping[str, Any] | None) -> bool:
        candidates = [each["trial"] for each in confirmation["candidates"]] if confirmation else []
        return self.best is not None and self.best.number in candidates

    @property
    def defaults(self) -> PresetRow | None:
        """Return the preset that has a script's own defaults; None if there is no such preset."""
        return next((row for row in self.presets if self.script and row.name == OF_SCRIPT), None)

    @property
    def best_preset(self) -> PresetRow | None:
        """Return the preset with the best value: the one to beat."""
        completed = [
            (self.objective.key(row.trial.value), row)
            for row in self.presets
            if row.trial and row.trial.state == TrialState.COMPLETE
        ]
        return max(completed, key=lambda pair: pair[0])[1] if completed else None

    @property
    def notable(self) -> list[FrozenTrial]:
        """Return the trials worth a note: the best, the presets, the runners-up; each once, in this order."""
        presets = [row.trial for row in self.presets if row.trial and row.same_as is None]
        trials = [*([self.best] if self.best else []), *presets, *self.runners_up]
        return list({trial.number: trial for trial in trials}.values())

    def with_records(self, records: Mapping[int, FrozenTrial]) -> "Findings":
        """Return the same findings with these records of some trials, by number."""

        def of(trial: FrozenTrial) -> FrozenTrial:
            return records.get(trial.number, trial)

        return replace(
            self,
            trials=[*map(of, self.trials)],
            best=self.best and of(self.best),
            presets=[replace(row, trial=row.trial and of(row.trial)) for row in self.presets],
            runners_up=[*map(of, self.runners_up)],
        )


def find(study: optuna.Study) -> Findings:
    """Read a study of face3d-tune once, and work out its findings."""
    all_trials = read_trials(study)
    own = own_trials(all_trials)
    trials = [trial for trial in own if not is_excluded(trial)]
    best = best_trial(study)
    completed = list(filter(is_complete, trials))
    sampled = [trial for trial in completed if trial is not best and not TrialAttr.preset.get(trial.user_attrs)]
    searching = _searching(own)
    objective = Objective.of_study(study.user_attrs)
    return Findings(
        name=study.study_name,
        attrs=study.user_attrs,
        trials=trials,
        excluded=[trial for trial in own if is_excluded(trial)],
        by_hand=len(all_trials) - len(own),
        states=count_states(study),
        best=best,
        likely_best=likely_best(study),
        presets=preset_rows(study),
        runners_up=sorted(sampled, key=lambda trial: objective.key(trial.value), reverse=True)[:_RUNNERS_UP],
        improvements=_improvements(own, searching, objective),
        seconds=sum((end - start).total_seconds() for start, end in searching),
        epochs=sum(TrialAttr.epochs_run.get(trial.user_attrs, 0) for trial in _own(own, FINISHED)),
        pruning=_pruning(own),
        importances=importances(*searched(completed, StudyAttr.settings.of(study.user_attrs))),
    )


def searched(trials: Sequence[FrozenTrial], settings: StoredSettings) -> tuple[dict[str, list[Any]], list[float]]:
    """Return every searched parameter's value in each trial of a study with these settings, and the trials' values.

    A preset's value outside the space stays as it is. A trial that lacks a parameter is omitted; one from before a
    parameter was searched has the value of that time.
    """
    space, before = settings["space"], values_before(settings)
    configs = [
        {
            **before,
            **TrialAttr.config.of(trial.user_attrs),
            **TrialAttr.overrides.get(trial.user_attrs, {}),
            **trial.params,
        }
        for trial in trials
    ]
    whole = [number for number, values in enumerate(configs) if space.keys() <= values.keys()]
    return {name: [configs[number][name] for number in whole] for name in space}, [_value(trials[n]) for n in whole]


def _own(trials: Sequence[FrozenTrial], states: Container[TrialState]) -> list[FrozenTrial]:
    """Return the trials in these states that were trained here."""
    return [trial for trial in trials if trial.state in states and trained_here(trial)]


def _value(trial: FrozenTrial) -> float:
    return float("-inf") if trial.value is None else trial.value


def _searching(trials: Sequence[FrozenTrial]) -> list[tuple[datetime, datetime]]:
    """Return the time spans in which a trial ran, in order and disjoint."""
    times = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    spans: list[tuple[datetime, datetime]] = []
    # A clock that was set back may let a trial end before it began; that trial then takes no time.
    for start, end in sorted((start, max(start, end)) for start, end in times if start and end):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], end)
        else:
            spans.append((start, end))
    return spans


def _improvements(
    trials: Sequence[FrozenTrial], searching: Sequence[tuple[datetime, datetime]], objective: Objective
) -> tuple[Improvement, ...]:
    spent = (trial for trial in trials if counts(trial) or (is_excluded(trial) and trial.state in FINISHED))
    ended = [(trial.datetime_complete, trial) for trial in spent]
    improvements: list[Improvement] = []
    in_order = sorted(((when, trial) for when, trial in ended if when), key=lambda pair: (pair[0], pair[1].number))
    for finished, (when, trial) in enumerate(in_order, 1):
        if is_complete(trial) and objective.better(trial.value, improvements[-1].value if improvements else None):
            seconds = sum((min(end, when) - start).total_seconds() for start, end in searching if start < when)
            improvements.append(Improvement(trial.number, finished, seconds, _value(trial)))
    return tuple(improvements)


def _pruning(trials: Sequence[FrozenTrial]) -> Pruning:
    attrs = {state: [trial.user_attrs for trial in _own(trials, (state,))] for state in FINISHED}
    run = [values["epochs_run"] for values in attrs[TrialState.COMPLETE] if "epochs_run" in values]
    pruned = [values for values in attrs[TrialState.PRUNED] if values.get("epochs_run")]
    expected = median(run) if run else 0
    saved = [max(0.0, expected - values["epochs_run"]) for values in pruned]
    pace = [values.get("seconds", 0.0) / values["epochs_run"] for values in pruned]  # seconds an epoch
    return Pruning(
        trials=len(attrs[TrialState.PRUNED]),
        raced=sum("raced_out_after_fold" in values for values in attrs[TrialState.PRUNED]),
        epochs=sum(values["epochs_run"] for values in pruned),
        saved_epochs=round(sum(saved)),
        saved_seconds=sum(epochs * each for epochs, each in zip(saved, pace, strict=True)),
    )
