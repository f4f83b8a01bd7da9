"""The content of a report, in numbers and without words: the JSON report, and the source of the other forms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from face3d_tune.analysis import recognising
from face3d_tune.analysis.diagnostics import Reading, read
from face3d_tune.analysis.findings import Findings, searched
from face3d_tune.analysis.importance import Importance
from face3d_tune.analysis.likely_best import LikelyBest
from face3d_tune.report.commands import data_of, to_search_again, to_train
from face3d_tune.study.attrs import Attr, Effort, StoredScript, StoredSettings, StudyAttr, TrialAttr
from face3d_tune.study.causes import cause, count_causes
from face3d_tune.study.growth import values_before
from face3d_tune.study.history import History
from face3d_tune.study.objective import Direction, Objective
from face3d_tune.study.trials import FINISHED, budget_of, config_of, effort_of, folds_of, is_imported, kept_cosine

VERSION = 1  # of the keys below; a new key leaves it, a changed or dropped key raises it
_PRUNED_CURVES = 40  # at most
_FAILURES = 5  # shown


@dataclass(frozen=True, slots=True)
class Entry:
    """A trial that the report shows. Unknown values are None or empty."""

    name: str | None  # of its preset; None: sampled or imported
    same_as: str | None  # a preset with equal values, which was trained for both
    trial: int
    state: str  # complete, pruned, fail, running, waiting
    imported: bool  # trained elsewhere
    value: float | None  # of the objective, at the kept epoch
    cosine: float | None  # mean validation cosine of the kept epoch
    numbers: Mapping[str, float]  # of a script at the kept epoch, by name
    loss: float | None  # validation loss of the kept epoch with weights 0.5 / 0.5: comparable between trials
    by_yaw: Mapping[str, float | None]  # cosine by band of |yaw|, degrees
    recognition: Mapping[str, Any] | None  # as `Recognition.to_dict` gives it; None: not measured
    kept_epoch: int | None
    epochs: int
    folds: Sequence[Mapping[str, Any]]  # value and kept epoch of each, in a study with several; history is the first's
    seconds: float | None  # of training
    seed: int | None
    config: Mapping[str, Any]
    history: History
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class Gain:
    """The lead of the best trial, and how many others confirm it: positive where it is better, also if lower is."""

    over_no_model: float | None  # None: no such baseline
    over_preset: float | None  # over the best preset; 0 if the best is that preset
    preset: str | None
    over_runner_up: float | None
    others: int  # completed trials that are neither the best nor a preset
    others_above: int  # of these, above every preset


@dataclass(frozen=True, slots=True)
class Point:
    """A finished trial as a dot: its place in the search, its value, its searched parameters."""

    trial: int
    state: str
    value: float  # of the objective
    cosine: float | None
    rank1: float | None  # among all enrolled; None: not measured
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """The keys of the JSON report. Times in seconds, angles in degrees, cosines and shares as fractions.

    A study of a script of the user's own lacks what only face data can say: there it is None or empty.
    """

    version: int
    study: str
    made: str  # date and time of the report, ISO 8601
    confirmation: Mapping[str, Any] | None  # on the test people, as `refit.confirm` stores it; None: no confirmation
    rotation: Mapping[str, Any] | None  # on all people, as `refit.rotate` stores it; None: never rotated
    confirmed_best: bool  # whether the confirmation included the trial that is best now
    rotated_best: bool  # the same of `rotation`
    states: Mapping[str, int]
    causes: Mapping[str, int]  # failed trials by cause
    follows: Mapping[str, Any] | None  # the study before: study, trial, value, config
    budget: int | None  # total number of finished trials to reach; None: not recorded
    epochs: int  # trained by finished trials
    seconds: float  # of searching, without pauses
    imported: int  # trials that were trained elsewhere
    by_hand: int  # trials of other programs, counted nowhere else
    folds: int  # of people, over which values are means; 1: the ordinary split
    objective: str  # what a value is: cosine, identity, or the name of a script's number
    direction: Direction  # of its better values
    script: StoredScript | None  # the user's own script; None: the built-in trainer
    script_confirmation: Mapping[str, Any] | None  # as `refit.script_confirm` stores it; None: no confirmation
    script_versions: Sequence[str]  # hashes of its files, of all trials; more than one if it changed
    over_time: int  # trials of a script that its time limit ended
    failures: Sequence[Mapping[str, Any]]  # of a script, the last ones: trial, cause, error
    lines: Mapping[str, float]  # the values of no model, ridge and kernel ridge, as far as they are known
    no_model: float | None
    no_model_by_yaw: Mapping[str, float | None]
    ridge: float | None  # validation cosine of ridge regression; None: a study of an earlier version
    ridge_by_yaw: Mapping[str, float | None]
    kernel_ridge: float | None  # the line to pass; None: a study of an earlier version
    kernel_ridge_by_yaw: Mapping[str, float | None]
    kernel_ridge_choice: Mapping[str, Any] | None  # landmarks, gamma, penalty; views and centres of the fit
    recognition: Mapping[str, Mapping[str, Any]]  # of no model, ridge and kernel ridge; empty: not measured
    no_better_than: Sequence[str]  # those that recognise people as well as the best trial, which raises the cosine
    best: Entry | None
    likely_best: LikelyBest | None  # what it would likely reach again; None: the noise is not known
    presets: Sequence[Entry]
    runners_up: Sequence[Entry]
    gain: Gain | None
    like: Sequence[Mapping[str, Any]]  # trials with the config of a winner elsewhere: trial, value, study, of, there
    improvements: Sequence[Mapping[str, Any]]
    importances: Sequence[Importance]
    pruning: Mapping[str, Any]
    excluded: Sequence[Mapping[str, Any]]  # trials that people took out: trial, state, by, at, reason
    trials: Sequence[Point]
    pruned_curves: Sequence[Sequence[float]]
    commands: Sequence[Sequence[str]]  # to train the best, each a list of arguments
    not_in_commands: Sequence[str]
    repeat: Sequence[str]  # the command that searches again
    data: Mapping[str, Any]
    settings: StoredSettings
    effort: Effort
    versions: Mapping[str, str]
    devices: Sequence[str]
    engines: Sequence[str]

    @property
    def measure(self) -> Objective:
        """Return what a value is, and which one is better."""
        return Objective(self.objective, self.direction, script=self.script is not None)

    @property
    def completed(self) -> int:
        """Count the completed trials without excluded ones."""
        return self.states["complete"] - [each["state"] for each in self.excluded].count("complete")

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values, ready for JSON, which has no NaN and no infinity."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain


def content(found: Findings, made: datetime) -> Content:
    """Collect everything that a report on a study shows."""
    attrs, best = found.attrs, found.best
    finished = [trial for trial in found.trials if trial.state in FINISHED and _measured(trial, found.objective)]
    pruned = [trial for trial in finished if trial.state == TrialState.PRUNED]
    every = max(1, -(-len(pruned) // _PRUNED_CURVES))
    trained, missing = to_train(found)
    return Content(
        version=VERSION,
        study=found.name,
        made=made.isoformat(timespec="minutes"),
        confirmation=found.confirmation,
        rotation=found.rotation,
        confirmed_best=found.confirmed_best,
        rotated_best=found.rotated_best,
        states=found.states,
        causes=count_causes([*found.trials, *found.excluded]),
        follows=StudyAttr.follows.get(attrs),
        budget=budget_of(attrs),
        epochs=found.epochs,
        seconds=found.seconds,
        imported=sum(is_imported(trial) for trial in (*found.trials, *found.excluded)),
        by_hand=found.by_hand,
        folds=folds_of(attrs),
        objective=found.objective.name,
        direction=found.objective.direction,
        script=found.script,
        script_confirmation=found.script_confirmation,
        script_versions=_distinct(found.trials, TrialAttr.script_version),
        over_time=sum(TrialAttr.stop_reason.get(trial.user_attrs) == "over_time" for trial in found.trials),
        failures=_failures(found) if found.script else [],
        lines=found.lines,
        no_model=StudyAttr.no_model_cosine.get(attrs),
        no_model_by_yaw=StudyAttr.no_model_by_yaw.get(attrs, {}),
        ridge=found.ridge,
        ridge_by_yaw=StudyAttr.ridge_by_yaw.get(attrs, {}),
        kernel_ridge=found.kernel_ridge,
        kernel_ridge_by_yaw=StudyAttr.kernel_ridge_by_yaw.get(attrs, {}),
        kernel_ridge_choice=StudyAttr.kernel_ridge_choice.get(attrs),
        recognition=recognising.of_baselines(attrs),
        no_better_than=recognising.no_better_than(best, attrs),
        best=_entry(best, found) if best else None,
        likely_best=found.likely_best,
        presets=[_entry(row.trial, found, row.name, row.same_as) for row in found.presets if row.trial],
        runners_up=[_entry(trial, found) for trial in found.runners_up],
        gain=_gain(found),
        like=_like(found),
        improvements=[asdict(step) for step in found.improvements],
        importances=found.importances,
        pruning=asdict(found.pruning),
        excluded=[
            {"trial": trial.number, "state": trial.state.name.lower(), **TrialAttr.excluded.of(trial.user_attrs)}
            for trial in found.excluded
        ],
        trials=_points(finished, StudyAttr.settings.of(attrs), found.objective),
        pruned_curves=[History.of(trial).values(found.objective) for trial in pruned[::every]],
        commands=trained,
        not_in_commands=missing,
        repeat=to_search_again(found),
        data=data_of(attrs),
        settings=StudyAttr.settings.of(attrs),
        effort=effort_of(attrs),
        versions=StudyAttr.versions.of(attrs),
        devices=_distinct(found.trials, TrialAttr.device),
        engines=_distinct(found.trials, TrialAttr.engine),
    )


def _entry(trial: FrozenTrial, found: Findings, name: str | None = None, same_as: str | None = None) -> Entry:
    attrs, objective = trial.user_attrs, found.objective
    config, history = TrialAttr.config.get(attrs, {}), History.of(trial, objective)
    return Entry(
        name=name or TrialAttr.preset.get(attrs),
        same_as=same_as,
        trial=trial.number,
        state=trial.state.name.lower(),
        imported=is_imported(trial),
        value=objective.of_trial(attrs),
        cosine=kept_cosine(trial),
        numbers=TrialAttr.numbers.get(attrs, {}),
        loss=TrialAttr.val_loss_equal.get(attrs),
        by_yaw=TrialAttr.cosine_by_yaw.get(attrs, {}),
        recognition=recognising.of_trial(trial),
        kept_epoch=TrialAttr.best_epoch.get(attrs),
        epochs=TrialAttr.epochs_run.get(attrs, len(history.values(objective))),
        folds=TrialAttr.folds.get(attrs, ()),
        seconds=TrialAttr.seconds.get(attrs),
        seed=TrialAttr.seed.get(attrs),
        config=_whole(config, found) if objective.script or not config else config_of(trial).to_dict(),
        history=history,
        readings=read(history, config_of(trial)) if config and not objective.script else (),
    )


def _whole(config: Mapping[str, Any], found: Findings) -> Mapping[str, Any]:
    """Return a script's flags; one that was not searched when the trial began has the value of that time."""
    return {**values_before(StudyAttr.settings.of(found.attrs)), **config} if config else config


def _gain(found: Findings) -> Gain | None:
    best, preset, key = found.best, found.best_preset, found.objective.key
    if best is None or best.value is None:
        return None
    reached, without = key(best.value), found.lines.get("no model")
    to_beat = key(preset.trial.value) if preset and preset.trial else None
    others = [
        key(trial.value)
        for trial in found.trials
        if trial.state == TrialState.COMPLETE and trial.value is not None and not TrialAttr.preset.get(trial.user_attrs)
        if trial.number != best.number
    ]
    nearest = key(found.runners_up[0].value) if found.runners_up else None
    return Gain(
        over_no_model=None if without is None else reached - without,
        over_preset=None if to_beat is None else reached - to_beat,
        preset=preset.name if preset else None,
        over_runner_up=None if nearest is None else reached - nearest,
        others=len(others),
        others_above=0 if to_beat is None else sum(value > to_beat for value in others),
    )


def _points(trials: Sequence[FrozenTrial], settings: StoredSettings, objective: Objective) -> list[Point]:
    points = []
    for trial in trials:
        if (value := objective.of_trial(trial.user_attrs)) is None:
            continue
        columns, _ = searched([trial], settings)
        values = {name: column[0] for name, column in columns.items() if column}
        cosine, rank1 = kept_cosine(trial), recognising.rank1(recognising.of_trial(trial))
        points.append(Point(trial.number, trial.state.name.lower(), value, cosine, rank1, values))
    return points


def _measured(trial: FrozenTrial, objective: Objective) -> bool:
    """Tell whether a trial has a value at its kept epoch; one of an earlier version may have its cosine alone."""
    return kept_cosine(trial) is not None or objective.of_trial(trial.user_attrs) is not None


def _like(found: Findings) -> list[dict[str, Any]]:
    """Return the trials that have the config of a winner of another study, without those that a retry replaces."""
    rows = []
    for trial in found.trials:
        attrs = trial.user_attrs
        if (winner := TrialAttr.like.get(attrs)) and not TrialAttr.requeued.held_by(attrs):
            of = {"study": winner["study"], "of": winner["trial"], "there": winner["value"]}
            rows.append({"trial": trial.number, "value": found.objective.of_trial(attrs), **of})
    return rows


def _failures(found: Findings) -> list[dict[str, Any]]:
    """Return the last trials that failed, each with the diagnosis of what the script printed."""
    failed = [(trial, cause(trial)) for trial in found.trials]
    rows = [
        {"trial": trial.number, "cause": why, "error": TrialAttr.error.get(trial.user_attrs)}
        for trial, why in failed
        if why is not None
    ]
    return rows[-_FAILURES:]


def finite(value: Any) -> Any:
    """Return plain values for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distinct(trials: Sequence[FrozenTrial], attr: Attr[str]) -> list[str]:
    return sorted({attr.of(trial.user_attrs) for trial in trials if attr.held_by(trial.user_attrs)})
