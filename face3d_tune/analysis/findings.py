"""What a study shows, worked out once for report, dashboard and terminal. Nothing here writes."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis.importance import Importance, importances
from face3d_tune.study.attrs import CONFIRMATION
from face3d_tune.study.foreign import own_trials
from face3d_tune.study.trials import (
    FINISHED,
    PresetRow,
    best_trial,
    config_of,
    count_states,
    counts,
    preset_rows,
    trained_here,
)

_RUNNERS_UP = 4  # trials after the best that are worth a look


@dataclass(frozen=True, slots=True)
class Improvement:
    """A trial that was the best so far when it completed."""

    trial: int
    finished: int  # trials by then, this one included
    seconds: float  # of searching by then; pauses, in which no trial ran, left out
    value: float


@dataclass(frozen=True, slots=True)
class Pruning:
    """What was pruned, and what that saved: the epochs that completed trials had more, by their median."""

    trials: int
    epochs: int  # that the pruned trials trained
    saved_epochs: int
    saved_seconds: float  # of training, at each trial's own pace
    raced: int = 0  # of these trials, how many lost the race between folds


@dataclass(frozen=True, slots=True)
class Findings:
    """One study at one moment."""

    name: str
    attrs: Mapping[str, Any]  # the study's user attributes
    trials: Sequence[FrozenTrial]  # of this program, by number
    by_hand: int  # trials of other programs, which are in nothing else here
    states: Mapping[str, int]  # trials by state: complete, pruned, fail, running, waiting
    best: FrozenTrial | None
    presets: Sequence[PresetRow]
    runners_up: Sequence[FrozenTrial]  # the next best that no preset made, the best first
    improvements: Sequence[Improvement]  # in the order of time
    seconds: float  # of searching, pauses left out
    epochs: int  # trained by finished trials
    pruning: Pruning
    importances: Sequence[Importance]  # of searched parameters, among completed trials; empty if they are too few

    @property
    def finished(self) -> int:
        """Completed and pruned trials that were trained here."""
        return len(_own(self.trials, FINISHED))

    @property
    def no_model(self) -> float:
        """Mean validation cosine of the side-view embeddings as they are."""
        value: float = self.attrs["no_model_cosine"]
        return value

    @property
    def ridge(self) -> float | None:
        """The same of ridge regression; None for a study of an earlier version."""
        value: float | None = self.attrs.get("ridge_cosine")
        return value

    @property
    def confirmation(self) -> Mapping[str, Any] | None:
        """What `confirm` found on the test people, if it was asked."""
        held: Mapping[str, Any] | None = self.attrs.get(CONFIRMATION)
        return held

    @property
    def confirmed_best(self) -> bool:
        """Whether the confirmation, if there is one, was asked about the trial that is the best now."""
        held = self.confirmation
        asked = [each["trial"] for each in held["candidates"]] if held else []
        return self.best is not None and self.best.number in asked

    @property
    def best_preset(self) -> PresetRow | None:
        """The preset with the highest value: the one to beat."""
        completed = [
            (_value(row.trial), row) for row in self.presets if row.trial and row.trial.state == TrialState.COMPLETE
        ]
        return max(completed, key=lambda pair: pair[0])[1] if completed else None

    @property
    def notable(self) -> list[FrozenTrial]:
        """Worth a word each: the best, the presets, the runners-up; each once, in this order."""
        presets = [row.trial for row in self.presets if row.trial and row.same_as is None]
        trials = [*([self.best] if self.best else []), *presets, *self.runners_up]
        return list({trial.number: trial for trial in trials}.values())


def find(study: optuna.Study) -> Findings:
    """Read a study that face3d-tune made, once, and work out what it shows."""
    held = study.get_trials(deepcopy=False)
    trials = own_trials(held)
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE and counts(trial)]
    best = best_trial(study)
    sampled = [trial for trial in completed if trial is not best and not trial.user_attrs.get("preset")]
    searching = _searching(trials)
    return Findings(
        name=study.study_name,
        attrs=study.user_attrs,
        trials=trials,
        by_hand=len(held) - len(trials),
        states=count_states(study),
        best=best,
        presets=preset_rows(study),
        runners_up=sorted(sampled, key=_value, reverse=True)[:_RUNNERS_UP],
        improvements=_improvements(trials, searching),
        seconds=sum((end - start).total_seconds() for start, end in searching),
        epochs=sum(trial.user_attrs.get("epochs_run", 0) for trial in _own(trials, FINISHED)),
        pruning=_pruning(trials),
        importances=importances(*searched(completed, study.user_attrs["settings"]["space"])),
    )


def searched(trials: Sequence[FrozenTrial], space: Mapping[str, Any]) -> tuple[dict[str, list[Any]], list[float]]:
    """The values of every searched parameter in each trial, and the trials' cosines.

    A preset's value outside the space counts as what it is; a trial that lacks a parameter is left out.
    """
    settings = [
        {**config_of(trial).to_dict(), **trial.user_attrs.get("overrides", {}), **trial.params} for trial in trials
    ]
    whole = [number for number, values in enumerate(settings) if space.keys() <= values.keys()]
    return {name: [settings[number][name] for number in whole] for name in space}, [_value(trials[n]) for n in whole]


def _own(trials: Sequence[FrozenTrial], states: Container[TrialState]) -> list[FrozenTrial]:
    """Those in these states that were trained here."""
    return [trial for trial in trials if trial.state in states and trained_here(trial)]


def _value(trial: FrozenTrial) -> float:
    return float("-inf") if trial.value is None else trial.value


def _searching(trials: Sequence[FrozenTrial]) -> list[tuple[datetime, datetime]]:
    """The spans of time in which some trial ran, in their order, none touching another."""
    known = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    spans: list[tuple[datetime, datetime]] = []
    # A clock that was set back may let a trial end before it began; it then counts for no time.
    for start, end in sorted((start, max(start, end)) for start, end in known if start and end):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], end)
        else:
            spans.append((start, end))
    return spans


def _improvements(
    trials: Sequence[FrozenTrial], searching: Sequence[tuple[datetime, datetime]]
) -> tuple[Improvement, ...]:
    counted = filter(counts, trials)
    ended = [(trial.datetime_complete, trial) for trial in counted]
    found: list[Improvement] = []
    in_order = sorted(((when, trial) for when, trial in ended if when), key=lambda pair: (pair[0], pair[1].number))
    for finished, (when, trial) in enumerate(in_order, 1):
        if trial.state == TrialState.COMPLETE and _value(trial) > (found[-1].value if found else float("-inf")):
            seconds = sum((min(end, when) - start).total_seconds() for start, end in searching if start < when)
            found.append(Improvement(trial.number, finished, seconds, _value(trial)))
    return tuple(found)


def _pruning(trials: Sequence[FrozenTrial]) -> Pruning:
    attrs = {state: [trial.user_attrs for trial in _own(trials, (state,))] for state in FINISHED}
    run = [held["epochs_run"] for held in attrs[TrialState.COMPLETE] if "epochs_run" in held]
    pruned = [held for held in attrs[TrialState.PRUNED] if held.get("epochs_run")]
    expected = median(run) if run else 0
    saved = [max(0.0, expected - held["epochs_run"]) for held in pruned]
    pace = [held.get("seconds", 0.0) / held["epochs_run"] for held in pruned]  # seconds an epoch
    return Pruning(
        trials=len(attrs[TrialState.PRUNED]),
        raced=sum("raced_out_after_fold" in held for held in attrs[TrialState.PRUNED]),
        epochs=sum(held["epochs_run"] for held in pruned),
        saved_epochs=round(sum(saved)),
        saved_seconds=sum(epochs * each for epochs, each in zip(saved, pace, strict=True)),
    )
