"""Searches replayed on the surrogate, with Optuna's own samplers and pruners: seconds instead of hours.

A search runs as `face3d-tune run` would with one slot: the study file's sampler and pruner, a sampler seeded anew for
every trial, presets queued first, a value reported after every epoch, early stopping before pruning. What it spends is
counted in epochs. What it has found is the truth (`benchmarks.surrogate`) of the trial it would recommend, the best
completed one by the objective: not the value that it saw.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import optuna
import torch
from optuna.pruners import NopPruner, PercentilePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from benchmarks.packed import read, study_of
from benchmarks.priors import AroundSampler
from benchmarks.surrogate import FEATURE_SIZE, PEOPLE, Ended, Space, Surrogate
from face3d_tune import seeds
from face3d_tune.config import TrialConfig
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.search.extrapolation import ExtrapolationPruner
from face3d_tune.search.racing import is_lost
from face3d_tune.search.shape_pruner import ShapePruner
from face3d_tune.study.objective import ObjectiveName
from face3d_tune.study.space import suggest
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.study_file import StudyFile
from face3d_tune.study.tables import Component
from face3d_tune.study.warm_start import follow

RESULTS = Path("build/replays")
_AROUND = ("share", "half_life", "best_share", "width")  # options of AroundSampler, beside those of the sampler itself


@dataclass(frozen=True, slots=True)
class Setting:
    """How to search; everything that a replay depends on, besides the curves and the seed."""

    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    presets: Literal["trials", "none"] = "trials"  # as the first trials
    stopping: bool = True  # early stopping, the trial's own
    study: str = "default"  # whose space; "A > B" for one after the other
    fixed: Mapping[str, Any] = field(default_factory=dict)  # instead of what the study fixes or searches
    on: str = ""  # the study whose surrogate is searched, if not its own
    objective: ObjectiveName | None = None  # None: the study's
    folds: int = 0  # trained on; 0: all people there are validate every training
    race: bool = True  # between trials, after each fold
    pruned_as_completed: bool = False  # to the sampler, with the highest value that was reached
    people: int = PEOPLE  # who validate in each fold

    @property
    def stages(self) -> list[str]:
        """The studies, one after the other."""
        return self.study.split(" > ")

    def file(self) -> StudyFile:
        """Return the study file of this variant."""
        return self.applied(study_of(self.study))

    def applied(self, file: StudyFile) -> StudyFile:
        """Make a study file that searches in this way."""
        own = {key: value for key, value in self.sampler_options.items() if key not in _AROUND}
        return replace(
            file,
            objective=self.objective or file.objective,
            fixed={**file.fixed, **self.fixed},
            space={name: row for name, row in file.space.items() if name not in self.fixed},
            presets={name: {**preset, **self.fixed} for name, preset in file.presets.items()},
            sampler=Component(self.sampler, own),
            pruner=Component(self.pruner, self.pruner_options),
        )

    def make_sampler(self, file: StudyFile, seed: int) -> BaseSampler:
        """As the project makes it."""
        base = make_sampler(file, seed)
        around = {key: value for key, value in self.sampler_options.items() if key in _AROUND}
        if not around:
            return base
        presets = [dict(s.params) for s in file.initial_trials() if s.name != "quickstart"]
        return AroundSampler(base, file.space, seed % 2**32, presets, **around)


class _Completed:
    """What a pruner that looks at completed trials alone asks of a study (see `face3d_tune.search.pruning`)."""

    direction = StudyDirection.MAXIMIZE

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []

    def get_trials(self, deepcopy: bool = False, states: object = None) -> list[FrozenTrial]:
        return self.trials


Truths = Mapping[ObjectiveName, float]  # of one trial, for every objective that has one
Trace = list[tuple[int, Truths]]  # epochs spent when another trial became the best, and its truths


class Replay:
    """One search: ask, train, report, tell, until the epochs are spent."""

    def __init__(self, surrogate: Surrogate, setting: Setting, seed: int, file: StudyFile | None = None) -> None:
        self.surrogate, self.setting, self.seed = surrogate, setting, seed
        self.file = file or setting.file()
        self.space = Space(self.file)
        self.pruner = make_pruner(self.file)
        self.study = optuna.create_study(direction="maximize", pruner=self.pruner)
        self.completed = _Completed()
        self.spent, self.trace, self._best = 0, Trace(), -np.inf
        self.best_config: TrialConfig | None = None  # of the trial that it would recommend
        self.counts = {"complete": 0, "pruned": 0}
        self.raced: list[list[float]] = []  # values of every completed trial, by fold
        # Which of the three folds comes first is luck, and so differs from search to search.
        order = np.random.default_rng((seed, 3)).permutation(3).tolist()
        self._folds: list[int | None] = order[: setting.folds] or [None]
        self._stretch = (PEOPLE / setting.people) ** 0.5  # of a mean over fewer people
        if setting.presets == "trials":
            for initial_trial in self.file.initial_trials():
                if initial_trial.name != "quickstart":  # equals `recommended`
                    self.study.enqueue_trial(dict(initial_trial.params), {"overrides": dict(initial_trial.overrides)})

    def run(self, epochs: int) -> Trace:
        """Search until so many epochs are spent; the trial in training then is still finished."""
        while self.spent < epochs:
            self._trial()
        return self.trace

    def _trial(self) -> None:
        trial = self.study.ask()
        self.study.sampler = self.setting.make_sampler(self.file, seeds.derive(self.seed, "sampler", trial.number))
        overrides = trial.user_attrs.get("overrides", {})
        params = {name: suggest(trial, name, row) for name, row in self.file.space.items() if name not in overrides}
        config = self.space.config(params, overrides)
        if not self.setting.stopping:
            config = replace(config, early_stopping_patience=0)
        self._train(trial, config)

    def _train(self, trial: optuna.Trial, config: TrialConfig) -> None:
        rng = np.random.default_rng((self.seed, trial.number))
        values: list[float] = []
        curves: list[dict[int, float]] = []
        for fold in self._folds:
            metrics = self.surrogate.train(config, rng, fold, self._stretch)
            ended = Ended.of(config, metrics["cosine"].tolist(), metrics["mse"].tolist())
            seen = metrics[self.file.objective].tolist()
            curves.append(dict(enumerate(seen[: ended.epochs], start=1)))
            if not values and (pruned_at := self._pruned_at(trial, curves[0])):
                self.spent += pruned_at
                self._give_up(trial, curves[0], pruned_at)
                return
            self.spent += ended.epochs
            values.append(seen[ended.kept])
            if self.setting.race and len(values) < len(self._folds) and is_lost(values, self.raced):
                self._give_up(trial, curves[-1], ended.epochs)
                return
        self.counts["complete"] += 1
        value = fmean(values)
        self.study.tell(trial, value)
        self.completed.trials.append(_frozen(trial.number, TrialState.COMPLETE, curves[0], value))
        self.raced.append(values)
        if value > self._best:
            self._best, self.best_config = value, config
            truths = self.surrogate.truths(config)
            self.trace.append((self.spent, {name: round(truth, 5) for name, truth in truths.items()}))

    def _give_up(self, trial: optuna.Trial, curve: Mapping[int, float], epoch: int) -> None:
        self.counts["pruned"] += 1
        if self.setting.pruned_as_completed:
            self.study.tell(trial, max(value for step, value in curve.items() if step <= epoch))
            return
        if self._by_completed:  # else all was reported; samplers look at the last, or at the highest
            highest = max(range(1, epoch + 1), key=curve.__getitem__)
            for step in sorted({highest, epoch}):
                trial.report(curve[step], step)
        self.study.tell(trial, state=TrialState.PRUNED)

    @property
    def _by_completed(self) -> bool:
        return isinstance(self.pruner, NopPruner | PercentilePruner | ExtrapolationPruner | ShapePruner)

    def _pruned_at(self, trial: optuna.Trial, curve: Mapping[int, float]) -> int | None:
        """Return the epoch after which the pruner stops the trial. It is not asked after the last one."""
        if isinstance(self.pruner, NopPruner):
            return None
        last = len(curve)
        if not self._by_completed:
            for step, value in curve.items():
                trial.report(value, step)
                if step < last and trial.should_prune():
                    return step
            return None
        running = _frozen(trial.number, TrialState.RUNNING, {}, None)
        for step, value in curve.items():
            running.intermediate_values[step] = value
            if step < last and self.pruner.prune(self.completed, running):  # type: ignore[arg-type]
                return step
        return None


def _frozen(number: int, state: TrialState, curve: Mapping[int, float], value: float | None) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=state,
        value=value,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values=dict(curve),
        trial_id=number,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """What so many searches of one setting found."""

    setting: Setting
    epochs: int
    traces: list[Trace]
    objective: ObjectiveName  # that was searched for
    best: Truths  # the best truth there is for each objective, not of the same configuration

    def regret(self, spent: int, objective: ObjectiveName | None = None) -> np.ndarray:
        """Return the best truth less that of the recommended trial, [searches]; 1 for a search that has none yet.

        Of the objective that was searched for, or of another one.
        """
        name = objective or self.objective
        return np.array([_regret(trace, spent, name, self.best[name]) for trace in self.traces])

    def median(self, spent: int) -> float:
        """Of the regret."""
        return float(np.median(self.regret(spent)))

    def epochs_to(self, regret: float) -> float:
        """Epochs after which the median regret is and stays at most `regret`; NaN if it does not come there."""
        grid = np.arange(10, self.epochs + 1, 10)
        medians = np.array([self.median(int(spent)) for spent in grid])
        above = np.flatnonzero(medians > regret)
        first = 0 if len(above) == 0 else above[-1] + 1
        return float(grid[first]) if first < len(grid) else float("nan")


def _regret(trace: Trace, spent: int, objective: ObjectiveName, best: float) -> float:
    return next((best - truths[objective] for epochs, truths in reversed(trace) if epochs <= spent), 1.0)


@lru_cache(maxsize=4)
def surrogate_of(study: str, packed: Path) -> Surrogate:
    """One that this process has read."""
    torch.set_num_threads(1)
    return Surrogate(read(packed), study)


def staged(surrogate: Surrogate, setting: Setting, seed: int, epochs: int) -> Trace:
    """Several studies, an equal part of the epochs each: the best of one is where the next begins (`run --from`)."""
    spent, trace, best, names = 0, Trace(), None, setting.stages
    for number, name in enumerate(names, start=1):
        file = study_of(name)
        if best is not None:
            start = WarmStart(names[number - 2], 0, 0.0, best.to_dict())
            file = follow(file.bind("keypoint", FEATURE_SIZE, file.epochs), start, seed)
        stage = Replay(surrogate, setting, seeds.derive(seed, name), setting.applied(file))
        trace += [(spent + at, truths) for at, truths in stage.run(number * epochs // len(names) - spent)]
        spent, best = spent + stage.spent, stage.best_config or best
    return trace


def _one(setting: Setting, seed: int, epochs: int, packed: Path) -> Trace:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate = surrogate_of(_space_of(setting), packed)
    if len(setting.stages) > 1:
        return staged(surrogate, setting, seed, epochs)
    return Replay(surrogate, setting, seed).run(epochs)


def _space_of(setting: Setting) -> str:
    return setting.on or setting.study


def run(
    settings: Mapping[str, Setting], *, epochs: int, searches: int, packed: Path, workers: int = 1
) -> dict[str, Result]:
    """Replay every setting so many times, seeds 0 and up; what is on disk is not replayed again."""
    found: dict[str, Result] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_last) as pool:
        for name, setting in settings.items():
            surrogate = surrogate_of(_space_of(setting), packed)
            path = RESULTS / surrogate.key / f"{_key(setting, epochs)}.json"
            traces: list[Trace] = json.loads(path.read_text())["traces"] if path.exists() else []
            missing = range(len(traces), searches)
            ones = len(missing)
            traces += pool.map(_one, [setting] * ones, missing, [epochs] * ones, [packed] * ones, chunksize=1)
            if ones:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"name": name, "setting": asdict(setting), "traces": traces}))
            objective = setting.objective or surrogate.objective
            best = {each: surrogate.best(each)[0] for each in surrogate.objectives}
            found[name] = Result(setting, epochs, traces[:searches], objective, best)
    return found


def _last() -> None:
    """Let everything else on the machine go first."""
    os.nice(15)


def _key(setting: Setting, epochs: int) -> str:
    return hashlib.sha256(json.dumps([asdict(setting), epochs], sort_keys=True).encode()).hexdigest()[:16]
