"""Scripts trained to their own end, several at once: every epoch of each, or why one failed."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace

from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import RETRIES, Failure, Note, ScriptEnded, ScriptEpoch
from face3d_tune.script.running.tasks import ScriptTask


@dataclass(frozen=True, slots=True)
class WholeTraining:
    """A script that ended by itself, or at its time limit."""

    epochs: tuple[Mapping[str, float], ...]  # the numbers of each, from epoch 1
    ended: ScriptEnded


def to_the_end(
    tasks: Iterable[ScriptTask],
    slots: Slots,
    note: Callable[[ScriptTask, str], object] = lambda task, line: None,
) -> Generator[tuple[ScriptTask, WholeTraining | Failure]]:
    """Yield every task with its result as it ends; `note` takes lines for the user.

    A training whose process was killed resumes or begins again, RETRIES times at most. The caller closes the slots.
    """
    waiting = deque(tasks)
    running: dict[int, ScriptTask] = {}
    epochs: dict[int, list[Mapping[str, float]]] = {}
    deaths: Counter[int] = Counter()
    while waiting or running:
        while waiting and len(running) < slots.count:
            task = waiting.popleft()
            running[task.number], epochs[task.number] = task, []
            slots.start(task)
        for event in slots.wait():
            if event.number not in running:
                continue
            task, given = running[event.number], epochs[event.number]
            match event.content:
                case Note(text):
                    note(task, text)
                case ScriptEpoch() as result:
                    given[result.epoch - 1 :] = [result.numbers]  # epoch 1 after a later one: it begins again
                case ScriptEnded() as ended:
                    slots.drop(task.number)
                    del running[task.number]
                    yield task, WholeTraining(tuple(given), ended)
                case Failure(died=True) if deaths[task.number] < RETRIES:
                    deaths[task.number] += 1
                    running[task.number] = replace(task, retry=True)
                    slots.start(running[task.number])
                case Failure() as failure:
                    slots.drop(task.number)
                    del running[task.number]
                    yield task, failure
