"""One trial of a script from its first epoch to its outcome: report each epoch, and decide whether to continue.

The value of a trial is the metric at the epoch whose checkpoint the script keeps: the one with the lowest or highest
`keep`, as the study file says, else the one with the best metric.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from face3d_tune.executor.tasks import Event, Failure, Note, ScriptEnded, ScriptEpoch
from face3d_tune.script.kept_epoch import kept_epoch
from face3d_tune.script.running.tasks import ScriptTask
from face3d_tune.search import target
from face3d_tune.search.trial_run import Cause, Outcome, Reporter, StopReason, cause_of, death_of
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.objective import Objective

_MOST_NUMBERS = 30  # stored with a trial, the metric and `keep` among them: a script may give thousands
_LEARNING_RATE = re.compile(r"(^|[\W_])(lr|learning[ _]?rate|学习率)$", re.IGNORECASE)
_DIGITS = 6  # significant, of each epoch


@dataclass(frozen=True, slots=True)
class Shown:
    """An epoch of a script, as a watcher sees it (`watcher.ShownEpoch`)."""

    epoch: int
    numbers: Mapping[str, float]
    rank1: None = None

    @property
    def lr(self) -> float | None:
        """Return the learning rate, if the script gives a number of that name."""
        names = (name for name in self.numbers if _LEARNING_RATE.search(name))
        return next((self.numbers[name] for name in names), None)

    @property
    def next_lr(self) -> float | None:
        """Return the last known learning rate."""
        return self.lr


class ScriptRun:
    """One script in training: it turns the events of a slot into reports and the outcome (`trial_loop.Run`).

    Args:
        task: The command and where it runs.
        config: The values of the script's flags.
        objective: The metric and its direction.
        keep: The number by which the script keeps its checkpoint, with its direction; None: the metric.
        epochs: The epochs of the budget; None: as many as the script trains.
        reporter: Stores the curve, and prunes.
        goal: Value that ends the search.
        goal_epochs: Epochs in a row that must reach it.
        note: Takes messages for the user that end no trial.
    """

    def __init__(
        self,
        task: ScriptTask,
        config: Mapping[str, Any],
        objective: Objective,
        keep: Objective | None,
        epochs: int | None,
        reporter: Reporter,
        *,
        goal: float | None = None,
        goal_epochs: int = 1,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._task, self._objective, self._keep, self._asked = task, objective, keep or objective, epochs
        self._config = {**config, "epochs": epochs} if epochs else dict(config)
        self._reporter, self._goal, self._goal_epochs, self._note = reporter, goal, goal_epochs, note
        self._epochs: list[ScriptEpoch] = []
        self._reported = 0

    @property
    def task(self) -> ScriptTask:
        """Return the training that a slot should run."""
        return self._task

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the values of the script's flags, with its epochs."""
        return self._config

    def take(self, event: Event, after_epoch: Callable[[Shown], None]) -> Outcome | None:
        """Process an event. Return the outcome, or None if the training continues.

        An exception from `after_epoch` ends the trial.
        """
        match event.content:
            case ScriptEpoch() as epoch:
                return self._add(epoch, after_epoch)
            case ScriptEnded() as ended:
                return self._ended(ended)
            case Failure() as failure:
                return self._fail(failure)
            case Note(text):
                self._note(text)
        return None

    def _add(self, epoch: ScriptEpoch, after_epoch: Callable[[Shown], None]) -> Outcome | None:
        self._epochs[epoch.epoch - 1 :] = [epoch]
        if epoch.epoch <= self._reported:  # of a resumed training; Optuna takes each step once
            return None
        self._reporter.report(self._objective.of_epoch(epoch), epoch.epoch, None)
        self._reported = epoch.epoch
        after_epoch(Shown(epoch.epoch, epoch.numbers))
        if self._has_reached_goal():
            return self._end("target")
        return self._end("pruned") if self._reporter.should_prune() else None

    def _ended(self, ended: ScriptEnded) -> Outcome:
        for stray in ended.strays:
            self._note(f"the script left a process running, which was ended: {stray}")
        if ended.changed:
            self._note(f"changed beside the script meanwhile: {', '.join(ended.changed)}")
        if ended.over_time:
            self._note(f"ended by the time limit after epoch {len(self._epochs)}")
            if self._asked is None or len(self._epochs) < self._asked:
                return self._end("over_time")
        early = self._asked is not None and len(self._epochs) < self._asked
        return self._end("early_stopping" if early else "finished")

    def _fail(self, failure: Failure) -> Outcome:
        if failure.non_finite:
            return self._end("non_finite", "diverged", error=failure.message)
        cause = cause_of(failure)
        return self._end("error", cause, error=failure.message, death=death_of(failure, cause))

    def _has_reached_goal(self) -> bool:
        if self._goal is None:
            return False
        kept = self._kept()
        curve = [rounded(self._objective.of_epoch(epoch)) for epoch in self._epochs]
        value = self._objective.of_epoch(kept)
        return target.is_reached(curve, value, kept.epoch, self._goal, self._goal_epochs, self._objective)

    def _kept(self) -> ScriptEpoch:
        """Return the epoch whose checkpoint the script keeps, the first of equals."""
        numbers = [epoch.numbers for epoch in self._epochs]
        return self._epochs[kept_epoch(numbers, self._keep, self._objective) - 1]

    def _end(
        self, reason: StopReason, cause: Cause | None = None, *, error: str | None = None, death: Cause | None = None
    ) -> Outcome:
        attrs: dict[str, Any] = {TrialAttr.stop_reason.key: reason, TrialAttr.epochs_run.key: len(self._epochs)}
        if cause:
            attrs[TrialAttr.cause.key] = cause
        if error:
            attrs[TrialAttr.error.key] = error
        if not self._epochs:
            return Outcome(reason, None, attrs, {}, death)
        kept, names = self._kept(), self._stored_names()
        attrs[TrialAttr.best_epoch.key] = kept.epoch
        finite = {name: value for name, value in kept.numbers.items() if math.isfinite(value)}
        attrs[TrialAttr.numbers.key] = {name: finite[name] for name in names if name in finite}
        return Outcome(reason, self._objective.of_epoch(kept), attrs, pack(self._epochs, names), death)

    def _stored_names(self) -> Sequence[str]:
        """Return the names of the numbers that are stored, the metric and `keep` first."""
        others = sorted({name for epoch in self._epochs for name in epoch.numbers})
        return list(dict.fromkeys((self._objective.name, self._keep.name, *others)))[:_MOST_NUMBERS]


def pack(epochs: Sequence[ScriptEpoch], names: Sequence[str]) -> dict[str, Any]:
    """Pack the numbers that every epoch has, in training order, as `History.of` reads them."""
    whole = [name for name in names if all(math.isfinite(epoch.numbers.get(name, math.nan)) for epoch in epochs)]
    return {"numbers": {name: [rounded(epoch.numbers[name]) for epoch in epochs] for name in whole}}


def rounded(value: float) -> float:
    """Round to the digits that are stored."""
    return float(f"{value:.{_DIGITS}g}")
