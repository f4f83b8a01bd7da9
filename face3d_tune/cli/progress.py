"""What a person sees of a search while it runs, on stderr: live on a terminal, plain lines where there is none."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from face3d_tune.config import TrialConfig
from face3d_tune.results import kept_cosine
from face3d_tune.training import EpochResult


class Interrupt:
    """The first Ctrl-C (or SIGTERM) lets the epoch end; the second stops at once. Both leave as KeyboardInterrupt.

    It leaves once: what must be put in order afterwards is not interrupted again.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._requested = self._raised = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle both signals until the block ends."""
        if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether one was asked for."""
        return self._requested

    def check(self) -> None:
        """Raise KeyboardInterrupt if one was asked for."""
        if self._requested:
            self._raised = True
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._raised:
            return
        if self._requested:
            self._raised = True
            raise KeyboardInterrupt
        self._requested = True
        self._console.print("stopping after this epoch; once more to stop at once")


class SearchProgress:
    """Watches a search: a line a finished trial; on a terminal a live one for the study and each running trial."""

    def __init__(self, console: Console, *, finished: int, trials: int, best: float | None) -> None:
        self._console, self._best = console, best
        self._interrupt = Interrupt(console)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._study = self._bars.add_task("trials", total=trials, completed=finished, note="")
        self._running: dict[int, tuple[str, TaskID]] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it, and catch interrupts, until the block ends."""
        with self._interrupt.caught(), self._bars:
            yield

    def trial_started(self, number: int, preset: str | None, config: TrialConfig) -> None:
        """Start a new live line."""
        name = f"#{number} {preset or 'sampled'}"
        self._running[number] = name, self._bars.add_task(name, total=config.epochs, note="")

    def epoch_ended(self, number: int, result: EpochResult) -> None:
        """Move the trial's live line on."""
        note = f"cosine {result.val_cosine:.4f}  lr {result.lr:.1e}"
        self._bars.update(self._running[number][1], completed=result.epoch, note=note)

    def stopping(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interrupt.requested

    def note(self, line: str) -> None:
        """Print a line above the live ones."""
        self._console.print(line, highlight=False)

    def trial_lost(self, number: int) -> None:
        """Remove its live line."""
        name, bar = self._running.pop(number, (f"#{number}", None))
        if bar is not None:
            self._bars.remove_task(bar)
        self.note(f"{name:<18} given to another worker, as this one had been silent for too long")

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Print the trial's line."""
        name, bar = self._running.pop(trial.number, (f"#{trial.number}", None))
        if bar is not None:
            self._bars.remove_task(bar)
        counted = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        improved = trial.state == TrialState.COMPLETE and (self._best is None or (trial.value or 0) > self._best)
        if improved:
            self._best = trial.value
        best = "" if self._best is None else f"best {self._best:.4f}"
        self._bars.update(self._study, advance=counted, note=best)
        self._console.print(f"{name:<18} {_ending(trial)}{'  best so far' if improved else ''}", highlight=False)


def _ending(trial: FrozenTrial) -> str:
    """`cosine 0.5931 (epoch 12 of 27, early_stopping, 31 s)`, or why there is no cosine."""
    attrs, cosine = trial.user_attrs, kept_cosine(trial)
    reason = attrs["stop_reason"] + (f": {attrs['error']}" if "error" in attrs else "")
    if cosine is None:
        return f"failed, {reason}"
    epochs = f"epoch {attrs['best_epoch']} of {attrs['epochs_run']}"
    return f"cosine {cosine:.4f} ({epochs}, {reason}, {attrs['seconds']:.0f} s)"
