"""The progress of a running search on stderr: live on a terminal, else plain lines."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from rich.live import Live

from face3d_tune.analysis.recognising import of_trial, rank1
from face3d_tune.cli.console import Console
from face3d_tune.cli.eta import time_left
from face3d_tune.cli.language import say
from face3d_tune.cli.live import InTraining, Picture, Standing, in_columns
from face3d_tune.study.attrs import Attr, TrialAttr
from face3d_tune.study.causes import cause, count_causes, in_words
from face3d_tune.study.exclusions import Exclusions, marked
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.study.other_programs import is_foreign
from face3d_tune.study.trials import FINISHED, is_complete, kept_cosine, origin, trained_here
from face3d_tune.system import signals

if TYPE_CHECKING:
    from face3d_tune.search.watcher import ShownEpoch

# Attributes of an ended trial in the output of `run --json`.
_TOLD: tuple[Attr[Any], ...] = (
    TrialAttr.stop_reason,
    TrialAttr.cause,
    TrialAttr.requeued,
    TrialAttr.epochs_run,
    TrialAttr.recognition,
    TrialAttr.folds,
    TrialAttr.raced_out_after_fold,
    TrialAttr.seconds,
    TrialAttr.error,
)


class Interrupt(signals.InterruptRequest):
    """A handler of signals that says on a console what it does."""

    def __init__(self, console: Console) -> None:
        super().__init__(console.print)


class Tally:
    """The counts of a study's trials, updated as they end.

    Args:
        study: Its name.
        budget: Total number of finished trials; None if unknown.
        trials: The stored trials; the ended ones are counted.
        objective: Of the study.
    """

    def __init__(
        self, study: str, budget: int | None, trials: Iterable[FrozenTrial] = (), objective: Objective = COSINE
    ) -> None:
        self.study, self.budget, self.objective = study, budget, objective
        self._clear()
        self.catch_up(trials)

    def _clear(self) -> None:
        self._ended: list[FrozenTrial] = []
        self.done = self.pruned = 0
        self._failed: list[FrozenTrial] = []
        self.best: tuple[float, int] | None = None  # value and trial
        self.to_beat: tuple[str, float] | None = None  # the best preset and its value
        self._to_beat_by_fold: list[float] = []
        self._seconds: list[float] = []  # duration of each finished trial

    def recount(self, exclusions: Exclusions) -> None:
        """Count again, now that these trials are excluded: none of them is the best, or the preset to beat."""
        trials = marked(self._ended, exclusions)
        self._clear()
        self.catch_up(trials)

    def catch_up(self, trials: Iterable[FrozenTrial]) -> None:
        """Count the ended ones among these trials that are not counted yet, e.g. those of other workers."""
        known = {trial.number for trial in self._ended}
        for trial in trials:
            if trial.state.is_finished() and trial.number not in known:
                self.add(trial)

    def add(self, trial: FrozenTrial) -> bool:
        """Count an ended trial, unless it is of another program; return whether it is the best so far."""
        if is_foreign(trial):
            return False
        self._ended.append(trial)
        if cause(trial):
            self._failed.append(trial)
        if trial.state not in FINISHED:
            return False
        attrs = trial.user_attrs
        if trained_here(trial):
            self.done += 1
            self.pruned += trial.state == TrialState.PRUNED
        if TrialAttr.seconds.held_by(attrs):
            self._seconds.append(TrialAttr.seconds.of(attrs))
        if trial.value is None or not is_complete(trial):
            return False
        if (preset := TrialAttr.preset.get(attrs)) and self.objective.better(
            trial.value, self.to_beat and self.to_beat[1]
        ):
            self.to_beat = preset, trial.value
            self._to_beat_by_fold = [fold["value"] for fold in TrialAttr.folds.get(attrs, ())]
        improved = self.objective.better(trial.value, self.best and self.best[0])
        if improved:
            self.best = trial.value, trial.number
        return improved

    def full(self) -> bool:
        """Tell whether the budget is spent."""
        return self.budget is not None and self.done >= self.budget

    def standing(self, at_once: int, spent: float) -> Standing:
        """Return the standing with `at_once` trials in training, which have taken `spent` seconds in all."""
        value, number = self.best or (None, None)
        remaining = 0 if self.budget is None else self.budget - self.done
        left = time_left(self._seconds, remaining, at_once, spent) if remaining > 0 else None
        counts, by_fold = (self.done, self.pruned, self.budget), self._to_beat_by_fold
        return Standing(self.study, *counts, value, number, self.to_beat, left, by_fold, self.objective)

    def __str__(self) -> str:
        of = "" if self.budget is None else f" of {self.budget}"
        line = f"{self.done}{of} trials finished, {self.pruned} of them pruned"
        line += f"; failed: {in_words(count_causes(self._failed))}" if self._failed else ""
        if self.best is None:
            return line
        value, number = self.best
        beside = f", {self.objective.number(value - self.to_beat[1], '+')} on {self.to_beat[0]}" if self.to_beat else ""
        return f"{line}; best {self.objective.said(value)}, trial {number}{beside}"


class SearchProgress:
    """The watcher of `run`: a line for each finished trial; on a terminal the live picture too."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console, self._tally = console, tally
        self._interrupt = Interrupt(console)
        self._training: dict[int, InTraining] = {}
        self._began: dict[int, float] = {}
        self._live = live_on(console, self._picture)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the progress, and catch interrupts, until the block ends."""
        with self._interrupt.caught(), self._live:
            yield

    def trial_started(self, number: int, preset: str | None, config: Mapping[str, Any]) -> None:
        """Start a new live line."""
        name, epochs = preset or "sampled", config.get("epochs") or 0
        lr = None if self._tally.objective.script else config.get("lr")  # a script's flag may be anything
        self._training[number] = InTraining(number, name, epochs, lr=lr)
        self._began[number] = time.monotonic()

    def fold_started(self, number: int, fold: int, folds: int) -> None:
        """Restart the live line of the trial."""
        again = replace(self._training[number], epoch=0, value=None, rank1=None, fold=fold, folds=folds)
        self._training[number] = again

    def epoch_ended(self, number: int, result: "ShownEpoch") -> None:
        """Update the live line of the trial."""
        value = self._tally.objective.of_epoch(result)
        training, lr = self._training[number], result.next_lr
        self._training[number] = replace(training, epoch=result.epoch, value=value, lr=lr, rank1=result.rank1)

    def stopping(self) -> bool:
        """Tell whether Ctrl-C was pressed."""
        return self._interrupt.requested

    def note(self, line: str) -> None:
        """Print a line above the live ones."""
        self._console.print(line)

    def warning(self, line: str) -> None:
        """Print a warning, with `--quiet` too."""
        if self._console.quiet:
            say(f"warning: {line}", err=True)
        else:
            self._console.print(f"warning: {line}")

    def trial_lost(self, number: int, reason: str) -> None:
        """Remove the live line of the trial, and print the reason."""
        name = self._forget(number)
        self.note(f"{in_columns(name)} {reason}")

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Print the trial's line."""
        name = self._forget(trial.number)
        self.note(ended(trial, self._tally.add(trial), name, room_of(self._console), self._tally.objective))

    def _forget(self, number: int) -> str:
        self._began.pop(number, None)
        trial = self._training.pop(number, None)
        return f"#{number} {trial.name}" if trial else f"#{number}"

    def _picture(self) -> Picture:
        """Render the picture, in the thread that draws."""
        now, began = time.monotonic(), list(self._began.values())
        standing = self._tally.standing(len(began), sum(now - each for each in began))
        return Picture(standing, [trial for _, trial in sorted(self._training.copy().items())])


class JsonLines:
    """The watcher of `run --json`: one JSON object a line, each with its `event`."""

    def __init__(self, console: Console, tally: Tally, write: Callable[[str], object]) -> None:
        self._tally, self._write = tally, write
        self._interrupt = Interrupt(console)

    def say(self, event: str, **content: Any) -> None:
        """Write one line."""
        self._write(json.dumps({"event": event, "study": self._tally.study, **content}, ensure_ascii=False))

    def shown(self) -> AbstractContextManager[None]:
        """Catch interrupts until the block ends."""
        return self._interrupt.caught()

    def trial_started(self, number: int, preset: str | None, config: Mapping[str, Any]) -> None:
        """Write `trial_started`: trial, preset, config."""
        self.say("trial_started", trial=number, preset=preset, config=dict(config))

    def fold_started(self, number: int, fold: int, folds: int) -> None:
        """Write `fold_started`: trial, fold (1-based), folds; only with several folds."""
        self.say("fold_started", trial=number, fold=fold, folds=folds)

    def epoch_ended(self, number: int, result: "ShownEpoch") -> None:
        """Write `epoch`: trial, epoch, value, cosine, losses, learning rate, identity, rank-1 of all enrolled.

        Of a script: trial, epoch, value, and its numbers by name.
        """
        objective = self._tally.objective
        more = {"numbers": dict(result.numbers)} if objective.script else {**result.numbers, "lr": result.lr}
        self.say("epoch", trial=number, epoch=result.epoch, value=objective.of_epoch(result), **more)

    def stopping(self) -> bool:
        """Tell whether Ctrl-C was pressed."""
        return self._interrupt.requested

    def note(self, line: str) -> None:
        """Write `note`: text."""
        self.say("note", text=line)

    def warning(self, line: str) -> None:
        """Write it as a `note`."""
        self.note(line)

    def trial_lost(self, number: int, reason: str) -> None:
        """Write `trial_lost`: trial, reason."""
        self.say("trial_lost", trial=number, reason=reason)

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Write `trial_ended`: trial, state, value and cosine (null if it failed), best (so far), and how it ended."""
        best, attrs = self._tally.add(trial), trial.user_attrs
        others = {attr.key: attr.of(attrs) for attr in _TOLD if attr.held_by(attrs)}
        objective = self._tally.objective
        values: dict[str, Any] = {"value": objective.of_trial(attrs)}
        values |= {"numbers": TrialAttr.numbers.get(attrs)} if objective.script else {"cosine": kept_cosine(trial)}
        self.say("trial_ended", trial=trial.number, state=trial.state.name.lower(), **values, best=best, **others)


def live_on(console: Console, picture: Callable[[], Picture]) -> AbstractContextManager[object]:
    """Show a live picture below the printed lines, four times a second; nothing without a terminal."""
    if not console.is_terminal or console.is_dumb_terminal:
        return nullcontext()
    return Live(get_renderable=picture, console=console, transient=True, refresh_per_second=4)


def room_of(console: Console) -> int | None:
    """Return the columns of a terminal; None where lines may have any length."""
    return console.width if console.is_terminal else None


def ended(
    trial: FrozenTrial, best: bool, name: str | None = None, room: int | None = None, objective: Objective = COSINE
) -> str:
    """Format the line of a trial that has ended; rank-1 is omitted where `room` has too few columns for it."""
    name = name or f"#{trial.number} {origin(trial)}"
    rate = rank1(of_trial(trial))
    named = [""] if rate is None else [f", rank-1 {rate:.3f}", ""]
    lines = [f"{in_columns(name)} {_ending(trial, each, objective)}{'  best so far' if best else ''}" for each in named]
    return next((line for line in lines if room is None or len(line) <= room), lines[-1])


def _ending(trial: FrozenTrial, named: str, objective: Objective) -> str:
    """Format `cosine 0.5931 (epoch 12 of 27, early_stopping, 31 s)`, or the reason why there is no value.

    `named` follows the value.
    With several folds: `cosine 0.5931 (mean over 3 folds, 81 epochs, early_stopping, 31 s)`.
    """
    attrs, value = trial.user_attrs, objective.of_trial(trial.user_attrs)
    raced_out = TrialAttr.raced_out_after_fold.get(attrs)
    reason = TrialAttr.stop_reason.of(attrs) if raced_out is None else f"raced out after fold {raced_out}"
    reason += f": {TrialAttr.error.of(attrs)}" if TrialAttr.error.held_by(attrs) else ""
    reason += "; queued again" if TrialAttr.requeued.held_by(attrs) else ""
    if value is None:
        return f"failed, {reason}"
    epochs = f"epoch {TrialAttr.best_epoch.of(attrs)} of {TrialAttr.epochs_run.of(attrs)}"
    if folds := len(TrialAttr.folds.get(attrs, ())):
        run = f"{TrialAttr.epochs_run.of(attrs)} epoch{'s' if TrialAttr.epochs_run.of(attrs) > 1 else ''}"
        epochs = f"{'fold 1' if folds == 1 else f'mean over {folds} folds'}, {run}"
    return f"{objective.said(value)}{named} ({epochs}, {reason}, {TrialAttr.seconds.of(attrs):.0f} s)"
