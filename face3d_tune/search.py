"""A search: open or continue a study, try its presets, then ask Optuna and tell it, until the budget is spent.

This is the only module that changes a study. A trial ends in one place, `_tell`, whatever ended it. As many trials are
in training as there are slots, and the next one is asked for when a slot is free.
"""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from face3d_tune import seeds
from face3d_tune.algorithms import make_pruner, make_sampler
from face3d_tune.conditions import Settings, check_same, study_attrs
from face3d_tune.config import TrialConfig
from face3d_tune.device import device_name
from face3d_tune.errors import ConfigError, TrainingError
from face3d_tune.judge import CompletedTrials, TrialJudge
from face3d_tune.objective import Outcome, Setup, TrialRun
from face3d_tune.results import FINISHED, best_value
from face3d_tune.slots import Event, PlainSlot, Slots
from face3d_tune.space import suggest
from face3d_tune.storage import one_at_a_time
from face3d_tune.study_file import SeedTrial, StudyFile
from face3d_tune.training import EpochResult

METRIC = "val_cosine"
PUT_BACK = "put_back"  # user attribute of a trial whose parameters were queued again
_FAILURES_IN_A_ROW = 5  # after so many the cause is not the configuration


class Watcher(Protocol):
    """Someone who watches a search: a terminal, or a test."""

    def trial_started(self, number: int, preset: str | None, config: TrialConfig) -> None:
        """A trial begins to train."""

    def epoch_ended(self, number: int, result: EpochResult) -> None:
        """One epoch is trained and validated. What this raises interrupts the trial."""

    def trial_ended(self, trial: FrozenTrial) -> None:
        """A trial has been told to Optuna."""


@dataclass(slots=True)
class _Running:
    """A trial between ask and tell; `run` is None until its parameters are known."""

    trial: optuna.Trial
    run: TrialRun | None = None
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Ended:
    trial: optuna.Trial
    outcome: Outcome


class Search:
    """One study with the file that defines it and the data it is about.

    Opening creates the study if it is new. Raises StudyError if it was made under other conditions, StudyFileError or
    ConfigError if the file does not fit; then nothing has been stored.
    """

    def __init__(self, storage: RDBStorage, name: str, file: StudyFile, settings: Settings, setup: Setup) -> None:
        self.file, self.settings, self.setup = file.for_layout(settings.layout), settings, setup
        self._engine = storage.engine
        check(file, settings, setup)
        self._seed_trials, self._aliases = self._distinct_presets()
        pruner = make_pruner(self.file)
        attrs = {"preset_aliases": self._aliases, **study_attrs(setup.data, self.file, settings)}
        with one_at_a_time(self._engine):
            self.study = optuna.create_study(
                study_name=name, storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
            )
            foreign = self.study.direction != StudyDirection.MAXIMIZE or self.study.get_trials(deepcopy=False)
            if "settings" in self.study.user_attrs or foreign:
                check_same(name, self.study.user_attrs, attrs, settings)
            else:  # new, or whoever created it died before this was done
                self._describe(attrs)
        self.seed: int = self.study.user_attrs["settings"]["seed"]
        self._completed = CompletedTrials(self.study)

    def _describe(self, attrs: Mapping[str, Any]) -> None:
        """Say in a new study what it is about."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study.set_metric_names([METRIC])
        for key, value in attrs.items():
            self.study.set_user_attr(key, value)

    def finished(self) -> int:
        """Trials that count towards the budget: completed or pruned."""
        return len(self.study.get_trials(deepcopy=False, states=FINISHED))

    def target_reached(self) -> bool:
        """Whether a completed trial has reached the target."""
        if self.setup.target is None:
            return False  # without reading the study
        value = best_value(self.study)
        return value is not None and value >= self.setup.target

    def take_back_abandoned(self) -> int:
        """Fail every RUNNING trial and put it in the queue again; how many there were.

        Only for a caller that knows no other process is searching, so that whoever ran them is dead.
        """
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            self._put_back(trial, "its process ended without a word")
        return len(running)

    def enqueue_presets(self) -> None:
        """Put every preset that the study does not hold yet in the queue, in the order of the study file."""
        with one_at_a_time(self._engine):
            held = {trial.user_attrs.get("preset") for trial in self.study.get_trials(deepcopy=False)}
            for seed_trial in self._seed_trials:
                if seed_trial.name not in held:
                    attrs = {"preset": seed_trial.name, "overrides": dict(seed_trial.overrides)}
                    self.study.enqueue_trial(dict(seed_trial.params), user_attrs=attrs)

    def run(self, trials: int, watcher: Watcher, *, slots: Slots | None = None, deadline: float = math.inf) -> None:
        """Search until the study holds `trials` finished trials, the target is reached, or no time is left.

        Every free slot gets the next trial, as long as those in training could not be enough. Trials that run at
        `deadline` (of time.monotonic) are still finished. Whatever interrupts, the target included, puts the running
        trials back in the queue. Raises TrainingError if several trials in a row fail. Without `slots`, trials train
        one after another with the plain trainer.
        """
        slots = slots or PlainSlot(self.setup.data, self.setup.device)
        running: dict[int, _Running] = {}
        failures = 0
        try:
            while True:
                while len(running) < slots.count and self._wanted(trials, len(running), deadline):
                    trial = self.study.ask()
                    running[trial.number] = _Running(trial)
                    if ended := self._begin(running[trial.number], slots, watcher):
                        failures = self._end(ended, running, watcher, failures)
                if not running:
                    return
                for event in slots.wait():
                    if event.number in running and (ended := self._take(event, running[event.number], slots, watcher)):
                        failures = self._end(ended, running, watcher, failures)
                if self.target_reached():
                    self._abandon(running, slots, "another trial reached the target")
                    return
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self._abandon(running, slots, "interrupted" if interrupted else f"{type(error).__name__}: {error}")
            raise

    def _wanted(self, trials: int, running: int, deadline: float) -> bool:
        """Whether another trial should start beside those that run."""
        return time.monotonic() < deadline and self.finished() + running < trials and not self.target_reached()

    def _begin(self, entry: "_Running", slots: Slots, watcher: Watcher) -> "_Ended | None":
        """Sample what no preset has set, and start to train; a config that cannot be trained ends the trial."""
        trial, number = entry.trial, entry.trial.number
        preset, overrides = trial.user_attrs.get("preset"), trial.user_attrs.get("overrides", {})
        seed = trial.user_attrs.get("seed", self._trial_seed(number))
        # Two workers never start from one seed; and Optuna asks the sampler only now.
        self.study.sampler = make_sampler(self.file, seeds.derive(self.seed, "sampler", self._ordinal(number)))
        params = {name: suggest(trial, name, row) for name, row in self.file.space.items() if name not in overrides}
        try:
            config = self._config(params, overrides)
        except ConfigError as error:  # it would come again, so it is not put back
            return _Ended(trial, Outcome("error", None, {"stop_reason": "error", "error": str(error)}))
        device = device_name(self.setup.device)
        attrs = {"preset": preset, "config": config.to_dict(), "seed": seed, "device": device, "engine": slots.engine}
        _set_attrs(trial, attrs)
        judge = TrialJudge(trial, self._completed)
        entry.run = TrialRun(number, config, self.setup, seed=seed, judge=judge)
        watcher.trial_started(number, preset, config)
        slots.start(entry.run.task)
        return None

    def _take(self, event: Event, entry: "_Running", slots: Slots, watcher: Watcher) -> "_Ended | None":
        """Hand an event to its trial; what it says if the trial has ended."""
        if entry.run is None:
            return None
        verdict = entry.run.take(event, lambda result: watcher.epoch_ended(event.number, result))
        if isinstance(verdict, Outcome):
            slots.drop(event.number)
            verdict.attrs["seconds"] = round(time.monotonic() - entry.started, 3)
            return _Ended(entry.trial, verdict)
        if verdict is not None:
            slots.drop(event.number)
            slots.start(verdict)
        return None

    def _end(self, ended: "_Ended", running: "dict[int, _Running]", watcher: Watcher, failures: int) -> int:
        """Tell Optuna how a trial ended; the number of trials that have now failed in a row."""
        frozen = self._tell(ended.trial, ended.outcome)
        self._completed.forget()
        del running[frozen.number]
        watcher.trial_ended(frozen)
        if frozen.state != TrialState.FAIL:
            return 0
        if failures + 1 == _FAILURES_IN_A_ROW:
            raise TrainingError(
                f"{failures + 1} trials in a row failed; the last: {frozen.user_attrs.get('error', 'no reason given')}",
                "mend the cause and run the same command again; finished trials are kept",
            )
        return failures + 1

    def _abandon(self, running: "dict[int, _Running]", slots: Slots, reason: str) -> None:
        """Put back whatever still runs, in the order in which it was asked for."""
        for number in sorted(running):
            slots.drop(number)
            trial = self.study.get_trials(deepcopy=False)[number]
            if trial.state == TrialState.RUNNING:  # not one that was being told when the interrupt came
                self._put_back(trial, reason)

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> FrozenTrial:
        _set_attrs(trial, outcome.attrs)
        match outcome.stop_reason:
            case "pruned":
                return self.study.tell(trial, state=TrialState.PRUNED)
            case "non_finite" | "error":
                return self.study.tell(trial, state=TrialState.FAIL)
            case _:
                return self.study.tell(trial, outcome.value)

    def _put_back(self, trial: FrozenTrial, reason: str) -> None:
        """Fail a trial and queue the same parameters and seed again, so that its successor ends as it would have.

        In this order a crash in between leaves a RUNNING trial with a successor, which the next run recognises.
        """
        sampled = trial.params if "config" in trial.user_attrs else {}  # else a part of them, if any
        params = {**trial.system_attrs.get("fixed_params", {}), **sampled}
        successors = {other.user_attrs.get("retry_of") for other in self.study.get_trials(deepcopy=False)}
        if params and trial.number not in successors:
            attrs: dict[str, Any] = {"seed": self._trial_seed(trial.number), "retry_of": trial.number}
            inherited = ("preset", "overrides", "seed")
            attrs |= {key: trial.user_attrs[key] for key in inherited if key in trial.user_attrs}
            self.study.enqueue_trial(params, user_attrs=attrs)
        mark = {"stop_reason": "error", "error": reason, PUT_BACK: True}
        for key, value in mark.items():  # Optuna has no public way to write to a trial that another process asked for
            self.study._storage.set_trial_user_attr(trial._trial_id, key, value)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _trial_seed(self, number: int) -> int:
        return seeds.derive(self.seed, "trial", self._ordinal(number))

    def _ordinal(self, number: int) -> int:
        """Which trial this is, from 0, if one that was put back and its successor count once, where the first stood.

        Seeds follow from it, so an interrupted study goes on as if it had not been interrupted. (A sampler that
        started from one seed after each interruption would repeat its first suggestions.)
        """
        trials = self.study.get_trials(deepcopy=False)
        succeeded = {trial.user_attrs.get("retry_of") for trial in trials}
        return sum(
            "retry_of" not in trial.user_attrs and (PUT_BACK not in trial.user_attrs or trial.number in succeeded)
            for trial in trials[:number]
        )

    def _config(self, params: Mapping[str, Any], overrides: Mapping[str, Any]) -> TrialConfig:
        config = self.file.config(
            params,
            overrides,
            feature_size=self.setup.data.feature_size,
            epochs=self.settings.epochs,
            layout=self.settings.layout,
        )
        return config if self.setup.use_amp else replace(config, use_mixed_precision=False)

    def _distinct_presets(self) -> tuple[list[SeedTrial], dict[str, str]]:
        """The presets without those that equal an earlier one, and for these the name of the earlier one."""
        first_of: dict[TrialConfig, str] = {}
        distinct, aliases = [], {}
        for seed_trial in self.file.seed_trials():
            config = self._config(seed_trial.params, seed_trial.overrides)
            if config in first_of:
                aliases[seed_trial.name] = first_of[config]
            else:
                first_of[config] = seed_trial.name
                distinct.append(seed_trial)
        return distinct, aliases


def check(file: StudyFile, settings: Settings, setup: Setup) -> None:
    """Raise StudyFileError if the file cannot be searched on these data: before a storage is opened or made."""
    file = file.for_layout(settings.layout)
    file.check(setup.data.feature_size, settings.layout, len(setup.data.parts["train"]))
    make_pruner(file)
    make_sampler(file, 0)


def _set_attrs(trial: optuna.Trial, attrs: Mapping[str, Any]) -> None:
    for key, value in attrs.items():
        trial.set_user_attr(key, value)
