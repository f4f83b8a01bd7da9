"""One attempt at a trial of a script: begin it, hear its epochs, and explain how it ended."""

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from face3d_tune.executor.silence import Silence
from face3d_tune.executor.tasks import Failure, Note, ScriptEnded, ScriptEpoch
from face3d_tune.script.running import failure, trial_folder
from face3d_tune.script.running.numbers import Numbers
from face3d_tune.script.running.process import ScriptProcess, sweep
from face3d_tune.script.running.resumed_from import ResumedFrom
from face3d_tune.script.running.tasks import Running, ScriptTask
from face3d_tune.script.surroundings import Files, absolute, changed, files_in
from face3d_tune.system.memory_kills import killed_for_memory

_LOOK_SHARE, _LOOK_MOST = 100, 5.0  # a look of t seconds is followed by a pause of 100 t, of 5 s at most
_SETTLE = 0.15  # seconds for the other numbers of an epoch after its metric
_MOST_NAMES = 12  # of numbers in a message

Content = ScriptEpoch | ScriptEnded | Note | Failure


class Attempt:
    """One attempt at a trial, from its folder to its end."""

    def __init__(
        self,
        task: ScriptTask,
        how: Running,
        folder: Path,
        place: int,
        environment: Mapping[str, str],
        first: Sequence[threading.Thread],
        heard: Callable[[], None],
        silence: float,
        grace: float,
        timeout: float | None,
    ) -> None:
        self.task, self.place, self.over = task, place, False
        self._without_epoch = Silence(timeout)
        self.process: ScriptProcess | None = None
        self._how, self._search_folder, self._folder = how, folder, trial_folder.of(folder, task.key)
        self._mark = f"{how.study} {task.key}"
        self._environment, self._first, self._heard = environment, first, heard
        self._silence, self._grace = silence, grace
        self._retry = task.retry
        self._ending: threading.Thread | None = None
        self._before: Files = {}
        self._killed_before = killed_for_memory()
        self._reset()

    def _reset(self) -> None:
        """Begin to count epochs."""
        self._numbers = Numbers(self._folder, {self._how.source})
        self._resumed: ResumedFrom | None = None
        self._told = 0  # the last epoch that was told
        self._names: set[str] = set()  # of the numbers of that epoch
        self._metric_since: float | None = None  # when the metric of the next epoch came
        self._began = time.monotonic()
        self._without_epoch.heard()
        self._next_look = 0.0

    def look(self) -> list[Content]:
        """Return what is new; begin when nothing of an earlier copy runs any more."""
        if self.process is None:
            if any(thread.is_alive() for thread in self._first):
                return []
            return self._begin()
        code = self.process.poll()  # before the numbers: after the end no more can come
        ended = code is not None
        late = not ended and self._how.time_limit is not None and time.monotonic() - self._began > self._how.time_limit
        hangs = self._without_epoch.is_too_long()
        self._look_at_files(now=ended or late or hangs, ended=ended)
        if self._resumed and self._told <= self._resumed.known and self._resumed.left_out_epochs(self._steps()):
            return self._begin_again("epochs before it were lost with the worker")
        contents = self._epochs(all_of_them=ended or late or hangs)
        if contents:
            self._without_epoch.heard()
        if self.over:
            return contents
        if code is not None:
            return contents + self._end(code, self.process)
        if late:
            self.over = True
            contents.append(self._end_late())
        elif hangs and not contents:
            self.over = True
            contents += self._end_hung()
        return contents

    def end(self) -> threading.Thread | None:
        """End the script in another thread, which is returned; None if nothing was started."""
        if self.process is not None:
            self._ending = threading.Thread(target=self.process.end, daemon=True)
            self._ending.start()
        return self._ending

    def _begin(self) -> list[Content]:
        """Start the script, from its checkpoint if there is one; in an empty folder if not."""
        how, retry, notes = self._how, self._retry, list[Content]()
        sweep(self._mark, self._grace)
        found = trial_folder.checkpoint(self._folder, how.checkpoint) if retry and how.resume_flag else None
        self._reset()
        log = trial_folder.log_of(self._search_folder, self.task.key)
        if found is None:
            trial_folder.begin_again(self._search_folder, self.task.key)
            if retry:
                why = f"no checkpoint {how.checkpoint or '*.pth'} was found" if how.resume_flag else "no resume_flag"
                notes.append(Note(f"begins again: {why}"))
        else:
            notes.append(Note(f"resumes from {found.name}"))
            with suppress(OSError):
                self._numbers.hear(log.read_text(encoding="utf-8", errors="replace") + "\n")
            self._look_at_files(now=True, ended=True)
            self._resumed = ResumedFrom(found, len(self._curves().get(how.metric, ())))
        self._before = self._beside()
        self._killed_before = killed_for_memory()
        numbers = self._numbers

        def hear(text: str) -> None:
            numbers.hear(text)
            self._heard()

        self.process = ScriptProcess(
            self._command(),
            cwd=how.start_in or self._folder,
            environment=self._environment,
            key=self._mark,
            log=log,
            hear=hear,
            silence=self._silence,
            grace=self._grace,
        )
        return notes

    def _begin_again(self, why: str) -> list[Content]:
        """End a resumed script; it begins again, in an empty folder, when nothing of it runs."""
        assert self._resumed is not None
        name = self._resumed.checkpoint.name
        self._first = list(filter(None, [self.end()]))
        self.process, self._retry = None, False
        return [Note(f"cannot resume from {name}, so it begins again: {why}")]

    def _command(self) -> list[str]:
        """Return the whole command, with paths that are valid in any folder."""
        program, script, *flags = self.task.command
        for flag in self._how.folder_flags:
            flags += [flag, str(self._folder / flag.lstrip("-"))]
        if self._resumed is not None and self._how.resume_flag is not None:
            flags += [self._how.resume_flag, str(self._resumed.checkpoint)]
        return [absolute(program), os.path.abspath(script), *flags]

    def _look_at_files(self, *, now: bool, ended: bool) -> None:
        """Look into the files, seldom if that takes long."""
        began = time.monotonic()
        if now or began >= self._next_look:
            self._numbers.look(ended=ended)
            self._next_look = time.monotonic() + min(_LOOK_MOST, _LOOK_SHARE * (time.monotonic() - began))

    def _curves(self) -> dict[str, Mapping[int, float]]:
        return {name: curve for (source, name), curve in self._numbers.curves().items() if source == self._how.source}

    def _steps(self) -> Sequence[int]:
        """Return the source's own epochs of the metric."""
        return self._numbers.steps(self._how.source, self._how.metric)

    def _epochs(self, *, all_of_them: bool) -> list[Content]:
        """Return the epochs that are complete; a metric that is no number ends the attempt."""
        curves, contents = self._curves(), list[Content]()
        metric = curves.get(self._how.metric, {})
        while (epoch := self._told + 1) in metric:
            numbers = {name: curve[epoch] for name, curve in curves.items() if epoch in curve}
            if not (all_of_them or epoch + 1 in metric or self._is_complete(numbers)):
                break
            if not math.isfinite(metric[epoch]):
                self.over = True
                text = f"{self._how.metric} is {metric[epoch]} in epoch {epoch}"
                return [*contents, Failure(text, non_finite=True)]
            contents.append(ScriptEpoch(epoch, numbers))
            self._told, self._names, self._metric_since = epoch, set(numbers), None
        return contents

    def _is_complete(self, numbers: Mapping[str, float]) -> bool:
        """Tell whether an epoch has all numbers of the one before, or has had time for them."""
        if self._how.keep is not None and self._how.keep not in numbers:
            return False
        if self._told and self._names <= numbers.keys():
            return True
        if self._metric_since is None:
            self._metric_since = time.monotonic()
        return time.monotonic() - self._metric_since >= _SETTLE

    def _end(self, code: int, process: ScriptProcess) -> list[Content]:
        """Explain the end of the script."""
        resumed = self._resumed
        if resumed and code > 0 and self._told <= resumed.known:
            return self._begin_again(self._cause(code, process).message)
        if resumed and code == 0 and resumed.may_have_lost_epochs(self._steps(), self._told, self.task.epochs):
            return self._begin_again("it ended without the epochs that are missing")
        self.over = True
        if code:
            return [self._cause(code, process)]
        if not self._told:
            return [Failure(f"it ended with exit code 0, but {self._missing()}")]
        return [ScriptEnded(process.strays, self._changed())]

    def _end_late(self) -> Content:
        if self._told:
            return ScriptEnded(changed=self._changed(), over_time=True)
        return Failure(f"it was ended at the time limit of {self._how.time_limit:g} s: {self._missing()}")

    def _end_hung(self) -> list[Content]:
        """Explain the end of a script without an epoch for too long; one that has trained all of them is finished."""
        said = self._without_epoch.said
        if self.task.epochs is not None and self._told >= self.task.epochs:
            return [Note(f"after its last epoch {said}"), ScriptEnded(changed=self._changed())]
        return [Failure(said, timed_out=True)]

    def _cause(self, code: int, process: ScriptProcess) -> Failure:
        starved = killed_for_memory() > self._killed_before
        return failure.explain(code, process.output, self.task.command[2:], starved=starved)

    def _missing(self) -> str:
        """Say that the metric did not come, and what did."""
        names = ", ".join(sorted(self._curves())[:_MOST_NAMES])
        gave = f"it gave {names}" if names else "it gave no number there"
        return f"{self._how.metric} ({self._how.source}) never came: {gave}"

    def _beside(self) -> Files:
        """Return the files beside the script."""
        return files_in(Path(os.path.abspath(self._how.script)).parent, (self._search_folder, *self._how.ours))

    def _changed(self) -> tuple[str, ...]:
        """Name files beside the script that were written, created or deleted meanwhile."""
        return changed(self._before, self._beside())
