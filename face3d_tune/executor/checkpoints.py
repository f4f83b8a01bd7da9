"""Checkpoints of running trials, so that the next worker of a trial resumes it at its next epoch.

`Checkpoints` knows where and how often, and can be sent to other processes; a `Saver` saves those of one process.

STUDY/running/KEY.…   the last two epochs of a running trial, sealed
STUDY/best/NAME.pth   the best weights of a finished trial, in the users' format (trainer contract §4)
"""

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from face3d_tune.config import TrialConfig
from face3d_tune.data.provenance import DataUse
from face3d_tune.device import Precision
from face3d_tune.errors import ArtifactError, TrainingError
from face3d_tune.executor.tasks import Event, Note, Resumed, Task
from face3d_tune.storage.artifacts import Artifacts, best_weights, study_folder
from face3d_tune.training import checkpoint_file
from face3d_tune.training.base import EpochResult, Training, best_epoch, precision_for
from face3d_tune.training.checkpoint_file import checkpoint_args
from face3d_tune.training.inputs import BASELINE

_TROUBLE = (ArtifactError, RuntimeError, MemoryError)  # torch reports a lack of memory as RuntimeError
_PAUSE = 30.0  # seconds without another try after a failed save, which may itself have taken long
_AGAIN = "restarts at epoch 1: "

T = TypeVar("T", bound=Training)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The checkpoint found for a training; `snapshot` is None if nothing of it is usable, and `note` says why."""

    precision: Precision  # of the resumed training
    snapshot: Mapping[str, Any] | None = None  # for Training.restore
    best: Mapping[str, Tensor] | None = None  # weights of its best epoch
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one study.

    A trial's key names the trial in which the training first began, whichever worker resumed it since. The methods that
    write or remove return what went wrong in one line, or None; they never raise.
    """

    artifacts: Artifacts
    study: str  # different for every study that shares the artifacts
    every: float = 0.0  # seconds between two checkpoints of a trial; 0: every epoch
    use: DataUse | None = None  # the data, for the `args` of the best weights

    def save(self, key: str, training: Training, *, best: Mapping[str, Tensor] | None = None) -> str | None:
        """Save the state after the last epoch and keep the one before it; `best` are the weights of an earlier, best
        epoch.
        """
        stem, last = self._stem(key, training.config, training.seed, training.precision), len(training.history)
        try:
            content = {
                "config": training.config.to_dict(),
                "seed": training.seed,
                "precision": training.precision,
                "snapshot": training.snapshot(),
                "best": None if training.history[-1].is_best or best is None else dict(best),
            }
            self.artifacts.write(f"{stem}{last:06d}", checkpoint_file.seal(content))
            training_of = self._prefix(key, training.config, training.seed)
            epochs = {name: _epoch(name) for name in self._names(key) if name.startswith(training_of)}
            before = max((epoch for name, epoch in epochs.items() if name.startswith(stem) and epoch < last), default=0)
            for name, epoch in epochs.items():  # a later epoch is from a worker to which this trial was reassigned
                if epoch < before or not name.startswith(stem):
                    self.artifacts.remove(name)
        except _TROUBLE as error:
            return f"could not save a checkpoint: {_reason(error)}"
        return None

    def load(self, key: str, task: Task) -> Loaded | None:
        """Load the newest intact checkpoint of this training; None if there is no checkpoint at all.

        A training that became NaN in mixed precision began again without it, and resumes without it. A checkpoint saved
        under another config or seed belongs to another training. If the artifacts cannot be listed, only a retry has
        lost something.
        """
        usual = precision_for(task.config, task.precision)
        try:
            stored = self._names(key)
        except ArtifactError as error:
            return Loaded(usual, note=f"{_AGAIN}{error.message}") if task.retry else None
        precisions: tuple[Precision, ...] = ("off", usual)
        stems = [self._stem(key, task.config, task.seed, precision) for precision in precisions]
        for precision, stem in zip(precisions, stems, strict=True):
            if names := sorted((name for name in stored if name.startswith(stem)), reverse=True):
                content, note = self._newest(names)
                if content is None:
                    return Loaded(precision, note=f"{_AGAIN}{note}")
                return Loaded(precision, content["snapshot"], _best_weights(content), note)
        return None

    def finish(self, key: str, name: str, of: tuple[TrialConfig, int] | None = None) -> str | None:
        """Turn the checkpoints of a finished trial into its best weights, `best_name(name)`.

        Only those of this config and seed, if given: after a failover another trial may have had this number.

        The best epoch is that of the newest checkpoint. It is the best of the whole training if training ended by
        itself or every epoch is saved. The `optimizer_state_dict` has the learning rate of the next epoch but no
        moments: checkpoints lack those of the best epoch. After a crash in between, `tidy` can repeat the step.
        """
        try:
            names = self._names(key)
            if of is not None:
                names = [each for each in names if each.startswith(self._prefix(key, *of))]
            if not names:
                return None
            content, note = self._newest(sorted(names, key=lambda name: (".off." in name, _epoch(name)), reverse=True))
            if content is not None:  # else the checkpoints stay: perhaps only the storage was unreadable
                whole = io.BytesIO()
                config, weights = TrialConfig(**content["config"]), _best_weights(content)
                if weights is None:
                    raise RuntimeError("its checkpoint does not have them")  # memory did not suffice for them
                torch.save(in_users_format(config, content["snapshot"], weights, self.use), whole)
                self.artifacts.write(self.best_name(name), whole.getvalue())
                self._remove(names)
                note = None
        except _TROUBLE as error:
            note = _reason(error)
        return note and f"could not keep the best weights of {name}: {note}"

    def discard(self, key: str) -> str | None:
        """Remove every checkpoint of a trial that will not be resumed."""
        try:
            self._remove(self._names(key))
        except ArtifactError as error:
            return f"could not remove checkpoints: {error.message}"
        return None

    def tidy(self, ended: Mapping[str, str | None]) -> str | None:
        """Finish, or without a name discard, the leftovers of trials after a crash or an abandoned epoch.

        `ended` maps the key of every ended trial that will not be resumed to its name.
        """
        notes = []
        try:
            running = self.artifacts.names(f"{self._folder}/running/")
            left = {name.rpartition("/")[2].partition(".")[0] for name in running}
            for key in sorted(left & ended.keys()):
                name = ended[key]
                done = name is None or self.artifacts.names(self.best_name(name))
                notes.append(self.discard(key) if done or name is None else self.finish(key, name))
        except ArtifactError as error:
            notes.append(f"could not tidy up checkpoints: {error.message}")
        return next(filter(None, notes), None)

    def keep_best(self, ranked_names: Sequence[str], keep: int) -> str | None:
        """Remove the best weights of all but the first `keep` of these trials, best first."""
        beyond = {self.best_name(name) for name in ranked_names[keep:]}
        try:
            self._remove(beyond.intersection(self.artifacts.names(f"{self._folder}/best/")))
        except ArtifactError as error:
            return f"could not remove checkpoints: {error.message}"
        return None

    def best_name(self, name: str) -> str:
        """Return the name of the artifact with a trial's best weights."""
        return best_weights(self.study, name)

    @property
    def _folder(self) -> str:
        return study_folder(self.study)

    def _stem(self, key: str, config: TrialConfig, seed: int, precision: Precision) -> str:
        """Return the prefix of the names of all checkpoints of one training; their epoch follows."""
        return f"{self._prefix(key, config, seed)}{precision}."

    def _prefix(self, key: str, config: TrialConfig, seed: int) -> str:
        """Return the prefix of these names in every precision."""
        what = json.dumps([config.identity(), seed], sort_keys=True)
        return f"{self._folder}/running/{key}.{hashlib.sha256(what.encode()).hexdigest()[:12]}."

    def _names(self, key: str) -> list[str]:
        return self.artifacts.names(f"{self._folder}/running/{key}.")

    def _newest(self, names: Iterable[str]) -> tuple[dict[str, Any] | None, str | None]:
        """Return the first intact checkpoint, and what was wrong with those before it."""
        torn: list[str] = []
        for name in names:
            try:
                sealed = self.artifacts.read(name)
                if sealed is not None:  # else another worker has just removed it
                    return checkpoint_file.unseal(sealed), "; ".join(torn) or None
            except (TrainingError, *_TROUBLE) as error:
                torn.append(f"the checkpoint of epoch {_epoch(name)} cannot be used, {_reason(error)}")
        return None, "; ".join(torn) or "its checkpoints have been removed"

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.artifacts.remove(name)


def in_users_format(
    config: TrialConfig, snapshot: Mapping[str, Any], weights: Mapping[str, Tensor], use: DataUse | None
) -> dict[str, Any]:
    """Return the best epoch of a training as a checkpoint in the users' format (trainer contract §4).

    Its optimizer has the learning rate of the next epoch but no moments: `snapshot` has those of the last epoch.

    Args:
        config: Of the training.
        snapshot: Of its last epoch.
        weights: Of its best epoch.
        use: The data, for the `args`.
    """
    history = [EpochResult.of(result) for result in snapshot["history"]]
    best = best_epoch(history)
    assert best is not None  # its weights are there
    until = history[: best.epoch]
    groups = [{**group, "lr": best.next_lr} for group in snapshot["optimizer"]["param_groups"]]
    return {
        **{name: snapshot[name] for name in (BASELINE,) if name in snapshot},
        "epoch": best.epoch - 1,  # from 0 there
        "model_state_dict": dict(weights),
        "optimizer_state_dict": {"state": {}, "param_groups": groups},
        "best_val_loss": best.val_loss,
        "args": config.to_dict() if use is None else checkpoint_args(config, use),
        "train_loss_history": [result.train_loss for result in until],
        "val_loss_history": [result.val_loss for result in until],
        "val_cosine_sim_history": [result.val_cosine for result in until],
    }


def _best_weights(content: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    snapshot = content["snapshot"]
    weights: Mapping[str, Tensor] | None = snapshot["model"] if snapshot["history"][-1]["is_best"] else content["best"]
    return weights


def _epoch(name: str) -> int:
    return int(name.rpartition(".")[2])


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


@dataclass(slots=True)
class _Entry:
    """The record of one training in a process, beside its state."""

    saved: float  # time.monotonic
    best: Mapping[str, Tensor] | None = None  # weights of its best epoch, on the CPU


class Saver:
    """The saver of the checkpoints in one process; does nothing without `checkpoints` or for a task without key.

    A failed save ends no training. Each reason is reported once, and the next save waits for a while.
    """

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self._checkpoints = checkpoints
        self._entries: dict[int, _Entry] = {}
        self._all, self._not_before = False, 0.0
        self._reported: set[str] = set()

    def save_next(self) -> None:
        """Save at the end of every epoch from now on."""
        self._all = True

    def find(self, task: Task) -> Loaded | None:
        """Find the checkpoint of a training that is about to begin.

        A retry without a checkpoint gets a note that says why.
        """
        if self._checkpoints is None or task.key is None:
            missing = "no checkpoints are kept"
        elif loaded := self._checkpoints.load(task.key, task):
            return loaded
        else:
            missing = f"{self._checkpoints.artifacts} has no checkpoint of it"
        return Loaded(task.precision, note=f"{_AGAIN}{missing}") if task.retry else None

    def resume(self, task: Task, loaded: Loaded | None, training: T, afresh: Callable[[], T]) -> tuple[T, list[Event]]:
        """Resume a training that has just begun from its checkpoint, or begin it `afresh` if the checkpoint does not
        fit.
        """
        entry = self._entries[task.number] = _Entry(time.monotonic())
        if loaded is None:
            return training, []
        note = loaded.note
        if loaded.snapshot is not None:
            try:
                training.restore(loaded.snapshot)
                entry.best = loaded.best
            except (KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
                training, note = afresh(), f"{_AGAIN}its checkpoint does not fit, {error}"
        if not training.history and self._checkpoints is not None and task.key is not None:
            self._checkpoints.discard(task.key)  # else they would pass for later ones
        return training, [Event(task.number, Resumed(tuple(training.history), training.precision, note))]

    def after_epoch(self, task: Task, training: Training) -> list[Event]:
        """Save what is due, before the epoch is reported; return a note if saving failed."""
        if self._checkpoints is None or task.key is None:
            return []
        now, ended, entry = time.monotonic(), training.stop_reason is not None, self._entries[task.number]
        problem = None
        if self._all or ended or (now - entry.saved >= self._checkpoints.every and now >= self._not_before):
            entry.saved = now
            if problem := self._checkpoints.save(task.key, training, best=entry.best):
                self._not_before = time.monotonic() + _PAUSE
        if training.history[-1].is_best and not ended:
            entry.best = None  # one copy in memory is enough
            try:
                weights = training.model_state()
                entry.best = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
            except _TROUBLE as error:
                problem = f"could not keep the weights of the best epoch in memory: {_reason(error)}"
        if problem is None or problem in self._reported:
            return []
        self._reported.add(problem)
        return [Event(task.number, Note(problem))]

    def forget(self, number: int) -> None:
        """Forget an ended training."""
        self._entries.pop(number, None)
