"""Slots that take a training each and return one event an epoch, whatever engine trains.

A training with a checkpoint resumes from it, and reports that before anything else.

`PlainSlot` and `BatchedSlots` train in this process; `processes` puts slots into other processes.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

import torch

from face3d_tune.config import InputsName
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import ConfigError, NonFiniteError, TrainingError
from face3d_tune.executor.checkpoints import Checkpoints, Saver
from face3d_tune.executor.tasks import Event, Failure, Task
from face3d_tune.training.batched.batch import Batch, BatchedTraining, Data, structure
from face3d_tune.training.inputs import seen
from face3d_tune.training.plain import Trainer

WAIT = 1.0  # seconds that other processes are waited for: their epochs may last hours, a request to stop cannot wait


class Slots(Protocol):
    """Slots for trainings. A training ends by its own stop_reason, by a failure, or because it is dropped."""

    engine: str  # "plain" or "batched"
    count: int  # trainings at once

    def start(self, task: Any) -> None:
        """Begin a training; the caller never starts more than `count`."""

    def drop(self, number: int) -> None:
        """Drop a training; an event of it may still come."""

    def wait(self) -> list[Event]:
        """Return the events since the last call. Other processes are waited for `WAIT` seconds, perhaps for none."""

    def save_next(self) -> bool:
        """Save a checkpoint at the end of every epoch from now on, however recent the last one is.

        Return False if that changes nothing: what trains saves when it wants to.
        """

    def close(self) -> None:
        """End all trainings."""


class PlainSlot:
    """One plain trainer after another, in this process: the specification."""

    engine, count = "plain", 1

    def __init__(self, data: FaceData, device: torch.device, checkpoints: Checkpoints | None = None) -> None:
        self._source, self._device, self._saver = data, device, Saver(checkpoints)
        self._folds: dict[tuple[int, int], FaceData] = {}  # each keeps the baselines that are fitted to it
        self._task: Task | None = None
        self._trainer: Trainer | None = None

    def start(self, task: Task) -> None:
        """Begin a training."""
        self._task, self._trainer = task, None

    def drop(self, number: int) -> None:
        """Forget the training."""
        self._task = self._trainer = None
        self._saver.forget(number)

    @property
    def busy(self) -> bool:
        """Tell whether a training runs."""
        return self._task is not None

    def wait(self, stop: Callable[[], bool] = lambda: False) -> list[Event]:
        """Resume the training from its checkpoint, or train one epoch, which `stop` does not cut off."""
        if self._task is None:
            return []
        task = self._task
        try:
            events = self._next(task)
        except (NonFiniteError, TrainingError, ConfigError, RuntimeError, MemoryError) as error:
            self._task = self._trainer = None
            return [Event(task.number, _failure(error))]
        if self._trainer is not None and self._trainer.stop_reason is not None:
            self._task = self._trainer = None
        return events

    def _next(self, task: Task) -> list[Event]:
        """Return the events of the next step."""
        if self._trainer is None:
            self._trainer, resumed = self._begin(task)
            if resumed:
                return resumed
        result = self._trainer.train_epoch()
        return [*self._saver.after_epoch(task, self._trainer), Event(task.number, result)]

    def save_next(self) -> bool:
        """Save at the end of every epoch from now on."""
        self._saver.save_next()
        return True

    def close(self) -> None:
        """Do nothing: a plain slot has nothing to end."""

    def _begin(self, task: Task) -> tuple[Trainer, list[Event]]:
        loaded = self._saver.find(task)
        precision = loaded.precision if loaded else task.precision

        def afresh() -> Trainer:
            data = self._folds.setdefault((task.fold, task.folds), self._source.fold(task.fold, of=task.folds))
            return Trainer(task.config, data, seed=task.seed, device=self._device, precision=precision)

        return self._saver.resume(task, loaded, afresh(), afresh)


class BatchedSlots:
    """Slots for up to `count` trainings in this process, batched by structure and fold; first in, first out.

    If memory runs out in training, `count` is halved. The trainings of this process begin again or resume from their
    checkpoints, those without a place later. A training for which the others leave no room waits.
    """

    engine = "batched"

    def __init__(
        self, data: FaceData, device: torch.device, count: int, checkpoints: Checkpoints | None = None
    ) -> None:
        self.count = count
        self._source, self._device, self._saver = data, device, Saver(checkpoints)
        self._data: dict[tuple[int, int, InputsName], Data] = {}  # by fold, number of folds and inputs
        self._waiting: list[Task] = []
        self._tasks: dict[BatchedTraining, Task] = {}
        self._batches: dict[Hashable, Batch] = {}
        self._ended: list[BatchedTraining] = []  # still in their place, for the next training of their structure

    @property
    def busy(self) -> bool:
        """Tell whether a training runs or waits."""
        return bool(self._waiting or self._tasks)

    def start(self, task: Task) -> None:
        """Begin a training at the next epoch."""
        self._waiting.append(task)

    def give(self, task: Task, data: FaceData) -> None:
        """Take the data of a task's fold and inputs from the parent, which fits each baseline once for all children."""
        self._data[_rows(task)] = Data(data, self._device)

    def drop(self, number: int) -> None:
        """Free the place of a training."""
        self._waiting = [task for task in self._waiting if task.number != number]
        for member in [member for member, task in self._tasks.items() if task.number == number]:
            self._end(member)

    def wait(self, stop: Callable[[], bool] = lambda: False) -> list[Event]:
        """Train one epoch of every training; return no events if `stop` asked for the processor."""
        return self._place_waiting() or self._train(stop)

    def save_next(self) -> bool:
        """Save at the end of every epoch from now on."""
        self._saver.save_next()
        return True

    def close(self) -> None:
        """Free everything."""
        self._waiting, self._tasks, self._batches, self._ended = [], {}, {}, []
        self._free()

    def _place_waiting(self) -> list[Event]:
        """Give free places to waiting tasks, those of ended trainings first.

        The events are of resumed trainings, and of failed ones that cannot be built.
        """
        events = []
        while self._waiting and len(self._tasks) < self.count:
            task = self._waiting[0]
            loaded = self._saver.find(task)
            training = (task.config, task.seed, loaded.precision if loaded else task.precision)
            key = *_rows(task), structure(task.config, training[2])
            try:
                batch = self._batches.get(key) or Batch(task.config, self._data_of(task), training[2])
                old = next((member for member in self._ended if member.batch is batch), None)
                member = batch.add(*training) if old is None else batch.replace(old, *training)
                afresh = partial(batch.replace, member, *training)
                member, resumed = self._saver.resume(task, loaded, member, afresh)
            except (ConfigError, RuntimeError, MemoryError) as error:  # torch reports a full device as RuntimeError
                if self._tasks and _out_of_memory(error):
                    self.count = len(self._tasks)  # the task waits until one of these ends
                    break
                events.append(Event(task.number, _failure(error)))
            else:
                self._batches[key], self._tasks[member] = batch, task
                if old is not None:
                    self._ended.remove(old)
                events += resumed
                if member.stop_reason:  # it has already ended
                    self._end(member)
            del self._waiting[0]
        for batch in list(self._batches.values()):
            if ended := [member for member in self._ended if member.batch is batch]:
                batch.remove(*ended)
        self._ended = []
        self._batches = {key: batch for key, batch in self._batches.items() if batch.members}
        return events

    def _data_of(self, task: Task) -> Data:
        """Return the data of a task's fold and inputs, made when the first training needs them."""
        rows = _rows(task)
        if rows not in self._data:
            fold = self._source.fold(task.fold, of=task.folds)
            self._data[rows] = Data(seen(fold, task.config.inputs), self._device)
        return self._data[rows]

    def _train(self, stop: Callable[[], bool]) -> list[Event]:
        """Train one epoch of every batch in turn."""
        events: list[Event] = []
        for batch in self._batches.values():
            try:
                results = batch.train_epoch(stop)
            except (RuntimeError, MemoryError) as error:
                events += self._broken(batch, error)
                break
            if results is None:
                return []
            for member, result in zip(batch.members, results, strict=True):
                task, failed = self._tasks[member], isinstance(result, NonFiniteError)
                events += [] if failed else self._saver.after_epoch(task, member)
                events.append(Event(task.number, _failure(result) if isinstance(result, NonFiniteError) else result))
                if failed or member.stop_reason:
                    self._end(member)
        return events

    def _broken(self, batch: Batch, error: Exception) -> list[Event]:
        """Fail trainings in mid-epoch, unless they can begin again with more room."""
        if _out_of_memory(error) and len(self._tasks) > 1:
            self.count = max(1, min(self.count, len(self._tasks)) // 2)
            self._waiting[:0] = self._tasks.values()
            self._tasks, self._batches, self._ended = {}, {}, []
            self._free()
            return []
        events = [Event(self._tasks[member].number, _failure(error)) for member in batch.members]
        for member in batch.members:
            self._saver.forget(self._tasks.pop(member).number)
        self._batches = {key: other for key, other in self._batches.items() if other is not batch}
        self._free()
        return events

    def _end(self, member: BatchedTraining) -> None:
        self._saver.forget(self._tasks.pop(member).number)
        self._ended.append(member)

    def _free(self) -> None:
        """Return free memory to the device."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _rows(task: Task) -> tuple[int, int, InputsName]:
    """Return what decides the rows of a task's data."""
    return task.fold, task.folds, task.config.inputs


def _failure(error: Exception) -> Failure:
    if isinstance(error, NonFiniteError | ConfigError):
        return Failure(str(error), non_finite=isinstance(error, NonFiniteError))
    return Failure(f"{type(error).__name__}: {error}", out_of_memory=_out_of_memory(error))


def _out_of_memory(error: Exception) -> bool:
    """Tell whether the machine or a GPU ran out of memory.

    Torch has no class for that error on a CPU, only these words.
    """
    messages = ("can't allocate memory", "not enough memory", "CUDA out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in messages)
