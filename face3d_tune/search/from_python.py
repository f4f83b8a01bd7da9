"""A search from Python: `face3d_tune.run` with the options of the command, and a callback in place of the terminal."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from optuna.trial import FrozenTrial

from face3d_tune.config import Layout
from face3d_tune.data.pairs import Split, TurnAngle
from face3d_tune.device import Amp
from face3d_tune.errors import ConfigError
from face3d_tune.executor.plan import Engine
from face3d_tune.search.checked_options import check
from face3d_tune.search.retention import DEFAULT_KEEP
from face3d_tune.search.run_search import OpenSearch, run_search
from face3d_tune.search.search_options import (
    BudgetOptions,
    DataOptions,
    DeviceOptions,
    SearchOptions,
    StudyOptions,
    WorkerOptions,
)
from face3d_tune.search.watcher import ShownEpoch
from face3d_tune.storage.database import Storage
from face3d_tune.storage.defaults import (
    ARTIFACTS_VARIABLE,
    DEFAULT_ARTIFACTS,
    DEFAULT_STORAGE,
    NO_ARTIFACTS,
    STORAGE_VARIABLE,
)
from face3d_tune.study.exclusions import read_trials
from face3d_tune.study.loaded_study import Study, load_study, quiet_optuna, told_in_python
from face3d_tune.study.objective import ObjectiveName
from face3d_tune.study.trials import best_trial, trained_here
from face3d_tune.system import notices, signals

_log = logging.getLogger("face3d_tune")
_log.addHandler(logging.NullHandler())  # a program that configures no logging gets nothing on its terminal


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing that happens in a search.

    Attributes:
        event: `trial_started`, `epoch`, `trial_ended`, or `note` for everything else that `run` would print.
        done: Finished trials of the study.
        budget: Finished trials to reach.
        best: The best value so far; None before there is one.
        trial: Its number; None in a note.
        epoch: The epoch that ended, from 1; None in other events.
        value: Of the epoch, or of the trial at its best epoch; None if there is none.
        text: Of a note; the preset of a trial that started; the state of one that ended: complete, pruned, fail.
    """

    event: Literal["trial_started", "epoch", "trial_ended", "note"]
    done: int
    budget: int
    best: float | None
    trial: int | None = None
    epoch: int | None = None
    value: float | None = None
    text: str = ""


def run(
    study: str | Path = "default",
    *,
    study_name: str | None = None,
    before: str | None = None,
    like: str | None = None,
    space: str | Path | None = None,
    storage: str | None = None,
    script: str | Path | None = None,
    accept_changed_script: bool = False,
    objective: ObjectiveName | None = None,
    layout: Layout = "keypoint",
    folds: int = 1,
    seed: int | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    timeout: float | None = None,
    target: float | None = None,
    target_epochs: int | None = None,
    data_dir: str | Path | None = None,
    split: Split = "person",
    min_yaw: float = 0.0,
    max_yaw: float | None = None,
    turn_angle: TurnAngle = "first",
    device: str = "auto",
    amp: Amp = "auto",
    engine: Engine | None = None,
    slots: int | None = None,
    artifacts: str | None = None,
    checkpoint_every: float = 0.0,
    keep_checkpoints: int = DEFAULT_KEEP,
    worker_timeout: float | None = None,
    trial_timeout: float | None = None,
    storage_timeout: float | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Study:
    """Search for better hyperparameters, or continue a search, as `face3d-tune run` does; return the study at its end.

    `study` is a built-in study file, or a path that ends in .toml. `progress` is called for each event, while the
    search waits; a note may come from another thread.

    Options, defaults and environment variables are those of the command (docs/commands.md); `before` is its `--from`.
    Times are in seconds. Nothing is printed: notes and warnings go to `progress`, and to the logger `face3d_tune`.

    In the main thread the first Ctrl-C lets the epochs in training end, and a second one stops at once; both raise
    KeyboardInterrupt. Trials in training are queued again, so the same call resumes. An exception from `progress` stops
    the search at once, and is raised here. In another thread that is how to stop it, or `face3d-tune stop`.

    Raises:
        ConfigError, DataError, StudyFileError, StorageError, ArtifactError, StudyError, ScriptError: Bad input.
        TrainingError: Several trials in a row failed.
        StorageAwayError: The database did not answer for too long.
    """
    options = SearchOptions(
        StudyOptions(
            study_name_or_file=str(study),
            study_name=study_name,
            before=before,
            storage=storage or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE,
            layout=layout,
            folds=folds,
            seed=seed,
            objective=objective,
            script=_path(script),
            accept_changed_script=accept_changed_script,
            like=like,
            space=_path(space),
        ),
        BudgetOptions(trials=trials, epochs=epochs, timeout=timeout, target=target, target_epochs=target_epochs),
        DataOptions(
            data_dir=_path(data_dir or os.environ.get("FACE3D_TUNE_DATA_DIR")),
            split=split,
            min_yaw=min_yaw,
            max_yaw=max_yaw,
            turn_angle=turn_angle,
        ),
        DeviceOptions(device=device, amp=amp, engine=engine or _engine(), slots=_slots() if slots is None else slots),
        WorkerOptions(
            artifacts=_artifacts(artifacts),
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            worker_timeout=worker_timeout,
            trial_timeout=trial_timeout,
            storage_timeout=storage_timeout,
        ),
    )
    view = _View(progress or (lambda happened: None))
    with told_in_python(), _left_as_it_was(), notices.printed_with(view.note):
        check(options, given=[name for name, value in (("data_dir", data_dir), ("engine", engine)) if value])
        run_search(options, view)
        return load_study(options.search.storage, view.study)


def _path(typed: str | Path | None) -> Path | None:
    return Path(typed).expanduser() if typed else None


def _artifacts(place: str | None) -> str | None:
    chosen = place or os.environ.get(ARTIFACTS_VARIABLE) or DEFAULT_ARTIFACTS
    return None if chosen == NO_ARTIFACTS else chosen


def _engine() -> Any:
    return os.environ.get("FACE3D_TUNE_ENGINE") or "auto"


def _slots() -> int | None:
    typed = os.environ.get("FACE3D_TUNE_SLOTS") or "auto"
    if typed != "auto" and not typed.isdecimal():
        raise ConfigError(f"FACE3D_TUNE_SLOTS = {typed!r} is not in range; expected auto or a whole number")
    return None if typed == "auto" else int(typed)


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Give back what a search changes in this process: torch's threads, and what Optuna logs."""
    threads = torch.get_num_threads()
    try:
        with quiet_optuna():
            yield
    finally:
        torch.set_num_threads(threads)


class _View:
    """The view and the watcher of a search (`run_search.View`): both tell the callback."""

    def __init__(self, tell: Callable[[Progress], object]) -> None:
        self._tell = tell
        self._interrupt = signals.InterruptRequest(self.note)
        self._opened: OpenSearch | None = None
        self._done = 0
        self._best: float | None = None

    @property
    def study(self) -> str:
        """Return the name of the study that was searched."""
        assert self._opened is not None
        return self._opened.search.study.study_name

    def warning(self, line: str) -> None:
        """Tell of something odd about the data, the device or the script."""
        _log.warning("%s", line)
        self._say("note", text=f"warning: {line}")

    def connecting(self, storage: Storage) -> None:
        """Say to which server it connects."""
        if storage.sqlite_file is None:
            self.note(f"connecting to {storage}")

    def opening(self, what: str) -> AbstractContextManager[object]:
        """Say what takes time in opening the study."""
        self.note(what)
        return nullcontext()

    def opened(self, opened: OpenSearch) -> "_View":
        """Take the search, whose trials this watches."""
        self._opened = opened
        self._count()
        self.note(f"engine: {opened.plan}")
        return self

    def interrupted(self, opened: OpenSearch) -> None:
        """Do nothing: the exception says it."""

    def ended(self, opened: OpenSearch) -> None:
        """Do nothing: the caller has the study."""

    def shown(self) -> AbstractContextManager[object]:
        """Catch interrupts until the block ends."""
        return self._interrupt.caught()

    def trial_started(self, number: int, preset: str | None, config: Mapping[str, Any]) -> None:
        """Tell that a trial begins."""
        self._say("trial_started", trial=number, text=preset or "sampled")

    def fold_started(self, number: int, fold: int, folds: int) -> None:
        """Tell that a fold begins."""
        self._say("note", trial=number, text=f"fold {fold} of {folds}")

    def epoch_ended(self, number: int, result: ShownEpoch) -> None:
        """Tell of an epoch."""
        assert self._opened is not None
        value = self._opened.search.objective.of_epoch(result)
        self._say("epoch", trial=number, epoch=result.epoch, value=value)

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Tell of a trial's end."""
        assert self._opened is not None
        self._count()
        value = self._opened.search.objective.of_trial(trial.user_attrs)
        self._say("trial_ended", trial=trial.number, value=value, text=trial.state.name.lower())

    def trial_lost(self, number: int, reason: str) -> None:
        """Tell that another worker has the trial."""
        self._say("note", trial=number, text=reason)

    def note(self, line: str) -> None:
        """Tell of anything else."""
        _log.info("%s", line)
        self._say("note", text=line)

    def stopping(self) -> bool:
        """Tell whether Ctrl-C was pressed."""
        return self._interrupt.requested

    def _count(self) -> None:
        assert self._opened is not None
        study = self._opened.search.study
        best = best_trial(study)
        self._done = sum(map(trained_here, read_trials(study)))
        self._best = None if best is None else best.value

    def _say(self, event: Any, **content: Any) -> None:
        budget = 0 if self._opened is None else self._opened.search.queue.budget
        self._tell(Progress(event, self._done, budget, self._best, **content))
