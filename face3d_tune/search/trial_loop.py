"""The loop of a search: one trial in training per slot, until the budget is spent.

The queue gives a trial, a slot trains it, its epochs are reported, and the queue stores its end. While the database is
away, the slots train on and their results wait here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from face3d_tune.errors import StorageAwayError, StudyGoneError
from face3d_tune.executor.slots import Slots
from face3d_tune.executor.tasks import Event, Failure, Note, Resumed, ScriptEnded
from face3d_tune.search.exclude import ExclusionWatch
from face3d_tune.search.failures_in_a_row import FailuresInARow
from face3d_tune.search.pruning import CompletedTrials, TrialReporter
from face3d_tune.search.stop import Stop, StopWatch
from face3d_tune.search.trial_queue import TrialQueue, TrialsGone
from face3d_tune.search.trial_run import Outcome
from face3d_tune.search.watcher import Watcher
from face3d_tune.storage.claims import TrialLost
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.retry import DatabaseRetry
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.causes import OUTSIDE, cause
from face3d_tune.study.trials import queued_name
from face3d_tune.system import signals
from face3d_tune.training.base import EpochResult

_REST = 1.0  # seconds between two checks on the trials of other workers
_ALERT = 0.1  # seconds until an interrupt is noticed while resting
_LAST_WAIT = 10.0  # seconds that a stop waits for a database that is away
_LEFT = "the storage does not answer: the next run takes over what was running"

T = TypeVar("T")


class Run(Protocol):
    """One trial in training, whatever trains it: `trial_run.TrialRun`, or `script_run.ScriptRun`."""

    @property
    def task(self) -> Any:
        """Return the training that a slot should run now: it has the trial's number, a fold and the folds."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the values that it trains with."""

    def take(self, event: Event, after_epoch: Callable[[Any], None]) -> "Outcome | Any | None":
        """Process an event. Return the outcome, or a task to start instead, or None if the training continues."""


Begin = Callable[[optuna.Trial, TrialReporter], Run | Outcome]  # samples a config; an outcome if it cannot be trained


@dataclass(slots=True)
class _Running:
    """A trial between ask and tell."""

    trial: optuna.Trial
    reporter: TrialReporter
    run: Run | None = None  # None until its parameters are known
    outcome: Outcome | None = None  # set once training has ended, until the queue has stored it
    stopped: bool = False  # its last epoch before a stop has ended
    started: float = field(default_factory=time.monotonic)

    @property
    def training(self) -> bool:
        return self.run is not None and self.outcome is None and not self.stopped


class Loop:
    """One run of a search by this worker.

    Args:
        queue: Gives and takes trials.
        begin: Makes the run of a trial; called again if the database went away in it.
        slots: Where trials train.
        watcher: Receives events and notes, and may request a stop.
        database_retry: Retries while the database is away.
        deadline: Of time.monotonic; no trial starts after it.
        target_reached: Tells whether a trial has reached the target.
        retain: Called with every trial that has ended, to keep or remove its checkpoints.
        stop: Requests to stop that are stored with the study.
        exclusions: Trials that people exclude.
    """

    def __init__(
        self,
        queue: TrialQueue,
        begin: Begin,
        slots: Slots,
        watcher: Watcher,
        database_retry: DatabaseRetry,
        *,
        deadline: float,
        target_reached: Callable[[], bool],
        retain: Callable[[FrozenTrial], None],
        stop: StopWatch,
        exclusions: ExclusionWatch,
    ) -> None:
        self._queue, self._begin, self._slots, self._watcher = queue, begin, slots, watcher
        self._database_retry = database_retry
        self._deadline, self._target_reached = deadline, target_reached
        self._retain, self._stop_watch, self._exclusions = retain, stop, exclusions
        self._completed = CompletedTrials(queue.study)
        self._running: dict[int, _Running] = {}
        self._late = False  # the deadline has passed, and the watcher knows
        self._failures_in_a_row = FailuresInARow(queue.study)

    def run(self) -> None:
        """Search to the end, or to a stop that is stored with the study. Raises the errors of `Search.run`."""
        try:
            while not self._attempt(self._exchange) and not self._asked_to_stop():
                events = self._train_on()
                if events is None:
                    self._rest(self._database_retry.pause or _REST)
                if self._watcher.stopping():
                    self._stop(events or ())
                    raise KeyboardInterrupt
        except (StorageAwayError, StudyGoneError):
            self._slots.save_next()
            self._await_epochs()
            raise
        except BaseException as error:
            interrupted, stop = isinstance(error, KeyboardInterrupt), self._stop_watch.seen
            if interrupted and stop and stop.now:
                self._cut_off(stop)
                return
            self._abandon("interrupted" if interrupted else f"{type(error).__name__}: {error}")
            raise

    def _asked_to_stop(self) -> bool:
        """Stop if the study holds a request to; return whether it does."""
        if (stop := self._stop_watch.seen) is None:
            return False
        if stop.now:
            self._cut_off(stop)
        else:
            self._watcher.note(f"stopped by {stop.by} at {stop.at}: this worker stops after the epochs that it trains")
            self._stop()
        return True

    def _cut_off(self, stop: Stop) -> None:
        self._watcher.note(f"stopped by {stop.by} at {stop.at}: this worker stops at once")
        self._abandon(str(stop))

    def _attempt(self, action: Callable[[], T]) -> T | None:
        """Return the result of `action`; None if the database is away. Raises StudyGoneError.

        Only a failure is a reason to ask whether the study is there: every write to a trial asks for its claim.
        """

        def on_study() -> T:
            with self._queue.on_study(at_first=False):
                return action()

        with signals.interrupt.held():
            return self._database_retry.attempt(on_study)

    def _exchange(self) -> bool:
        """Tell the database what is new, and fill free slots; return whether the search is over.

        A step that fails is repeated from where it failed. After a request to stop, no slot is filled.
        """
        for entry in list(self._running.values()):
            self._deliver(entry)
        if self._exclusions.look_sometimes():
            self._completed.forget()
        if self._target_reached():
            again = "the target is reached: trials in training are queued again"
            self._watcher.note(again if self._running else "the target is reached")
            self._abandon("another trial reached the target")
            return True
        if self._stop_watch.look_sometimes():
            return False
        in_time = time.monotonic() < self._deadline
        if not in_time and not self._late:
            self._late = True
            self._watcher.note("the time limit is reached: no further trial starts")
        while in_time and len(self._running) < self._slots.count and (trial := self._ask()):
            entry = _Running(trial, TrialReporter(trial, self._completed, self._attempt, self._queue.report))
            self._running[trial.number] = entry
            self._deliver(entry)
        return not self._running and (not in_time or self._queue.budget_spent())

    def _ask(self) -> optuna.Trial | None:
        """Ask for a trial; first drop those of this worker that the database lost, for their numbers are free again."""
        while True:
            try:
                return self._queue.ask()
            except TrialsGone as gone:
                for entry in list(self._running.values()):
                    if self._queue.claim_of(entry.trial) in gone.claims:
                        self._lost(entry, self._queue.loss(entry.trial))
                for claim in gone.claims:
                    self._queue.worker.forget(claim)

    def _deliver(self, entry: _Running) -> None:
        """Store the pending changes of one trial: the parameters, the curve, the end."""
        try:
            if entry.run is None and entry.outcome is None:
                self._start(entry)
            entry.reporter.deliver()
            if entry.outcome:
                self._ended(self._queue.tell(entry.trial, entry.outcome))
        except (TrialLost, UpdateFinishedTrialError) as error:
            self._lost(entry, error)

    def _start(self, entry: _Running) -> None:
        made = self._begin(entry.trial, entry.reporter)
        if isinstance(made, Outcome):
            entry.outcome = made
            return
        entry.run = made
        self._watcher.trial_started(entry.trial.number, queued_name(entry.trial.user_attrs), made.config)
        self._train(made.task)

    def _train(self, task: Any) -> None:
        if task.folds > 1:
            self._watcher.fold_started(task.number, task.fold, task.folds)
        self._slots.start(task)

    def _train_on(self) -> list[Event] | None:
        """Process the next events of the slots, and return them; None if no training runs."""
        if not any(entry.training for entry in self._running.values()):
            return None
        return self._take_events()

    def _take_events(self) -> list[Event]:
        """Pass the next events of the slots to their trials."""
        events = self._slots.wait()
        try:
            for event in events:
                self._take(event)
        except (StorageAwayError, StudyGoneError):
            for event in events:
                if event.number in self._running and _is_last(event.content):  # no other trial waits for it
                    self._running[event.number].stopped = True
            raise
        return events

    def _take(self, event: Event) -> None:
        """Pass an event to its trial."""
        entry = self._running.get(event.number)
        if entry is None or entry.run is None or not entry.training:
            return
        try:
            decision = entry.run.take(event, lambda result: self._watcher.epoch_ended(event.number, result))
        except (TrialLost, UpdateFinishedTrialError) as error:
            self._lost(entry, error)
            return
        if decision is None:
            return
        self._slots.drop(event.number)
        if isinstance(decision, Outcome):
            decision.attrs[TrialAttr.seconds.key] = round(time.monotonic() - entry.started, 3)
            entry.outcome = decision
        else:
            self._train(decision)

    def _ended(self, trial: FrozenTrial) -> None:
        """Continue after the end of a trial is stored. Raises TrainingError as `FailuresInARow` does."""
        self._completed.forget()
        outcome = self._running.pop(trial.number).outcome
        self._watcher.trial_ended(trial)
        self._retain(trial)
        if cause(trial) == OUTSIDE:  # a failure by another program is no sign of a bad space or machine
            return
        if outcome and outcome.beside:
            return
        self._failures_in_a_row.take(trial, self._slots.count)

    def _lost(self, entry: _Running, error: Exception) -> None:
        """Continue without a trial that was reassigned, ended by another program, or lost by the database.

        What was saved of it stays: if the same training begins again, it resumes.
        """
        self._slots.drop(entry.trial.number)
        del self._running[entry.trial.number]
        self._completed.forget()
        reason = self._database_retry.attempt(lambda: self._queue.why_lost(entry.trial, error))
        self._queue.forget(entry.trial)
        self._watcher.trial_lost(entry.trial.number, reason or "lost while the storage did not answer")

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._watcher.stopping():
            time.sleep(_ALERT)

    def _stop(self, events: Sequence[Event] = ()) -> None:
        """Let the running epochs end, save them, and requeue the trials.

        Args:
            events: Those that came with the request: an epoch that has just ended is the last if no later one would be
                saved any better.
        """
        if self._slots.save_next():
            events = ()
        while True:
            for event in events:
                entry = self._running.get(event.number)
                if entry and entry.training and not isinstance(event.content, Note):
                    entry.stopped = True
                    self._slots.drop(event.number)
            if not any(entry.training for entry in self._running.values()):
                break
            events = self._take_events()
        self._settle_soon()

    def _settle_soon(self) -> None:
        """Settle once the database answers; if it stays away, leave that to the next run."""
        if self._attempt(self._settle):
            return
        self._watcher.warning(f"the storage does not answer: it gets {_LAST_WAIT:.0f} s more before this run stops")
        until = time.monotonic() + _LAST_WAIT
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(self._database_retry.pause, left))
            if self._attempt(self._settle):
                return
        self._watcher.warning(_LEFT)

    def _settle(self) -> bool:
        """Store the ended trials and requeue the others, in the order of their numbers."""
        for number in sorted(self._running):
            entry = self._running[number]
            try:
                entry.reporter.deliver()
                if entry.outcome:
                    self._ended(self._queue.tell(entry.trial, entry.outcome))
                else:
                    self._queue.requeue(entry.trial, str(self._stop_watch.seen or "interrupted"))
                    del self._running[number]
            except (TrialLost, UpdateFinishedTrialError) as error:
                self._lost(entry, error)
        return True

    def _await_epochs(self) -> None:
        """Wait until every running training has ended an epoch, which saves its checkpoint."""
        awaited = {number for number, entry in self._running.items() if entry.training}
        while awaited:
            awaited -= {event.number for event in self._slots.wait() if not isinstance(event.content, Note)}

    def _abandon(self, reason: str) -> None:
        """Requeue the running trials at once; if the database is away, the next worker does."""
        for number in sorted(self._running):
            entry = self._running[number]
            self._slots.drop(number)
            try:
                with self._queue.on_study():
                    if entry.outcome:
                        self._queue.tell(entry.trial, entry.outcome)
                    else:
                        self._queue.requeue(entry.trial, reason)
            except (TrialLost, UpdateFinishedTrialError):
                pass
            except Exception as error:
                if not is_away(error):
                    raise
                self._watcher.warning(_LEFT)
                return


def _is_last(content: object) -> bool:
    """Tell whether an event is the last of its training."""
    if isinstance(content, Resumed) and content.results:
        content = content.results[-1]
    stopped = isinstance(content, EpochResult) and content.stop_reason is not None
    return stopped or isinstance(content, Failure | ScriptEnded)
