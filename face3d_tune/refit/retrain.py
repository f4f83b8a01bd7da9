"""Candidates trained again to their own end, many at once, each with the weights that its training keeps."""

import math
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from torch import Tensor

from face3d_tune.data.face_data import FaceData
from face3d_tune.device import Precision
from face3d_tune.errors import TrainingError
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.plan import Plan
from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import RETRIES, Failure, Note, Task
from face3d_tune.refit.candidates import Candidate
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.training.base import EpochResult


@dataclass(frozen=True, slots=True)
class Job:
    """One training of a candidate; `number` is that of its seed, from 1."""

    candidate: Candidate
    number: int
    seed: int
    key: str  # of the user attribute that takes its result


@dataclass(frozen=True, slots=True)
class Kept:
    """What a training is worth: the epoch with the lowest validation loss."""

    weights: Mapping[str, Tensor]
    precision: Precision  # in which it trained
    validation: float  # mean cosine
    epoch: int
    epochs: int  # trained in all


Epoch = Callable[[Job, EpochResult], object]


def retrain(
    jobs: Sequence[Job], data: FaceData, plan: Plan, precision: Precision, epoch: Epoch
) -> Generator[tuple[Job, Kept | str]]:
    """Every job with what it gave, or why it diverged, as they end; whatever `epoch` raises ends it all.

    Those that mixed precision leads to NaN begin again without, and those whose process died as they were. Raises
    TrainingError if a training ends otherwise than by itself.
    """
    # Only the end of a training is written there: its best weights come from whatever process trained it.
    with tempfile.TemporaryDirectory(prefix="face3d-tune-") as folder:
        checkpoints = Checkpoints(Artifacts.parse(folder), "again", every=math.inf)
        with closing(plan.open(data, checkpoints)) as slots:
            yield from _train(jobs, slots, checkpoints, precision, epoch)


def _train(
    jobs: Sequence[Job], slots: Slots, checkpoints: Checkpoints, precision: Precision, epoch: Epoch
) -> Generator[tuple[Job, Kept | str]]:
    waiting = deque(enumerate(jobs))
    running: dict[int, tuple[Job, Task]] = {}
    deaths: Counter[int] = Counter()
    said = ["no reason given"]
    while waiting or running:
        while waiting and len(running) < slots.count:
            number, job = waiting.popleft()
            config = job.candidate.config
            asked: Precision = precision if config.use_mixed_precision else "off"
            running[number] = job, Task(number, config, job.seed, asked, f"job-{number}")
            slots.start(running[number][1])
        for event in slots.wait():
            if event.number not in running:
                continue
            job, task = running[event.number]
            match event.given:
                case Note(text):
                    said.append(text)
                case EpochResult() as result:
                    epoch(job, result)
                    if result.stop_reason:
                        slots.drop(event.number)
                        del running[event.number]
                        yield job, _kept(task, checkpoints, said[-1])
                case Failure(_, non_finite=True) if task.precision != "off":
                    slots.drop(event.number)
                    running[event.number] = job, replace(task, precision="off")
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


def _kept(task: Task, checkpoints: Checkpoints, said: str) -> Kept:
    """From the checkpoint of a training that has ended, which is removed. Raises TrainingError if there is none."""
    loaded = checkpoints.load(str(task.key), task)
    if loaded is None or loaded.snapshot is None or loaded.best is None:
        raise TrainingError(
            f"the weights of a training could not be kept: {said}",
            "make room where temporary files are (TMPDIR), and run the same command again",
        )
    checkpoints.discard(str(task.key))
    history = loaded.snapshot["history"]
    best = next(result for result in reversed(history) if result["is_best"])
    return Kept(loaded.best, loaded.precision, best["val_cosine"], best["epoch"], len(history))
