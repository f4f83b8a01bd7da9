"""Candidates trained again to their own end, many at once, each with the weights that its training keeps."""

import math
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from face3d_tune.data.face_data import FaceData
from face3d_tune.data.provenance import DataUse
from face3d_tune.device import Precision
from face3d_tune.errors import TrainingError
from face3d_tune.executor.checkpoints import Checkpoints, in_users_format
from face3d_tune.executor.plan import Plan
from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import RETRIES, Failure, Note, Task
from face3d_tune.refit.candidates import Candidate
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.training.base import EpochResult, best_epoch, precision_for


@dataclass(frozen=True, slots=True)
class Job:
    """One training of a candidate; `number` is that of its seed, from 1."""

    candidate: Candidate
    number: int
    seed: int
    key: str  # of the user attribute with its result
    round: int = 0  # whose data it trains on


@dataclass(frozen=True, slots=True)
class Kept:
    """The result of a training: every epoch, and the checkpoint of the one with the lowest validation loss."""

    checkpoint: Mapping[str, Any]  # in the users' format, without the optimizer's moments
    history: Sequence[EpochResult]
    precision: Precision  # of the training

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights of the kept epoch."""
        weights: Mapping[str, Tensor] = self.checkpoint["model_state_dict"]
        return weights

    @property
    def best(self) -> EpochResult:
        """Return the kept epoch."""
        best = best_epoch(self.history)
        assert best is not None  # its weights are there
        return best


Epoch = Callable[[Job, EpochResult], object]


def retrain(
    jobs: Sequence[Job], data: FaceData, plan: Plan, precision: Precision, epoch: Epoch
) -> Generator[tuple[Job, Kept | str]]:
    """Yield every job with its result, or why it diverged, as trainings end; what `epoch` raises ends them all.

    A training that becomes NaN in mixed precision begins again without it; one whose process died begins again
    unchanged. Raises TrainingError if a training fails otherwise.
    """
    # The store receives only the end of a training: its best weights come from whichever process trained it.
    with tempfile.TemporaryDirectory(prefix="face3d-tune-") as folder:
        checkpoints = Checkpoints(Artifacts.parse(folder), "again", every=math.inf, use=DataUse.of(data))
        with closing(plan.open(data, checkpoints)) as slots:
            yield from _train(jobs, slots, checkpoints, precision, epoch)


def _train(
    jobs: Sequence[Job], slots: Slots, checkpoints: Checkpoints, precision: Precision, epoch: Epoch
) -> Generator[tuple[Job, Kept | str]]:
    waiting = deque(enumerate(jobs))
    running: dict[int, tuple[Job, Task]] = {}
    deaths: Counter[int] = Counter()
    reasons = ["no reason given"]
    while waiting or running:
        while waiting and len(running) < slots.count:
            number, job = waiting.popleft()
            config = job.candidate.config
            usual = precision_for(config, precision)
            running[number] = job, Task(number, config, job.seed, usual, f"job-{number}")
            slots.start(running[number][1])
        for event in slots.wait():
            if event.number not in running:
                continue
            job, task = running[event.number]
            match event.content:
                case Note(text):
                    reasons.append(text)
                case EpochResult() as result:
                    epoch(job, result)
                    if result.stop_reason:
                        slots.drop(event.number)
                        del running[event.number]
                        yield job, _result(task, checkpoints, reasons[-1])
                case Failure(_, non_finite=True) if again := task.without_mixed_precision():
                    slots.drop(event.number)
                    running[event.number] = job, again
                    slots.start(running[event.number][1])
                case Failure(died=True) if deaths[event.number] < RETRIES:
                    deaths[event.number] += 1
                    slots.start(task)
                case Failure(message, non_finite):
                    slots.drop(event.number)
                    del running[event.number]
                    if not non_finite:
                        raise TrainingError(
                            f"{job.candidate.name}, seed {job.number}: {message}",
                            "run the same command again: trainings that have ended are kept",
                        )
                    yield job, message


def _result(task: Task, checkpoints: Checkpoints, reason: str) -> Kept:
    """Read the result from the checkpoint of an ended training, and remove the checkpoint.

    Raises TrainingError if the checkpoint is missing.
    """
    loaded = checkpoints.load(str(task.key), task)
    if loaded is None or loaded.snapshot is None or loaded.best is None:
        raise TrainingError(
            f"the weights of a training could not be kept: {reason}",
            "make room where temporary files are (TMPDIR), and run the same command again",
        )
    checkpoints.discard(str(task.key))
    history = [EpochResult.of(result) for result in loaded.snapshot["history"]]
    checkpoint = in_users_format(task.config, loaded.snapshot, loaded.best, checkpoints.use)
    return Kept(checkpoint, history, loaded.precision)
