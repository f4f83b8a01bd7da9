"""The picture of a search in a terminal: a line for every trial in training, and one for the study."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from face3d_tune.pace import in_words

_NAME = 18  # columns for number and name of a trial
_ROOM_FOR_BAR = 100  # columns of a terminal that has some left
_BAR = 20


@dataclass(frozen=True, slots=True)
class InTraining:
    """A trial in a slot; without a cosine before its first epoch has ended."""

    number: int
    name: str  # its preset's, or `sampled`
    epochs: int  # at most
    epoch: int = 0
    cosine: float | None = None
    lr: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the study is."""

    name: str
    done: int  # completed and pruned trials
    pruned: int
    goal: int | None
    best: float | None
    best_trial: int | None
    to_beat: tuple[str, float] | None  # the best preset and its cosine
    left: tuple[float, float] | None  # seconds


@dataclass(frozen=True, slots=True)
class Picture:
    """Draws itself into any width without breaking a line."""

    standing: Standing
    training: Sequence[InTraining]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line each."""
        for text in (*(self._trial(trial, options.max_width) for trial in self.training), self._study()):
            text.truncate(options.max_width, overflow="ellipsis")
            text.no_wrap = True
            yield text

    def _trial(self, trial: InTraining, width: int) -> Text:
        text = Text(in_columns(f"#{trial.number} {trial.name}"))
        text.append(f" {trial.epoch:>{len(str(trial.epochs))}}/{trial.epochs}")
        if width >= _ROOM_FOR_BAR:
            done = round(_BAR * trial.epoch / max(trial.epochs, 1))
            text.append("  ").append("━" * done, "green").append("─" * (_BAR - done), "dim")
        if trial.cosine is not None:
            text.append(f"  cosine {trial.cosine:.4f}")
            if self.standing.to_beat:
                name, value = self.standing.to_beat
                ahead = trial.cosine > value
                text.append(f"  {trial.cosine - value:+.4f} on {name}", "green" if ahead else "dim")
        if trial.lr is not None:
            text.append(f"  lr {trial.lr:.1e}")
        return text

    def _study(self) -> Text:
        held = self.standing
        text = Text(held.name, "bold")
        text.append(f"  {held.done}{'' if held.goal is None else f' of {held.goal}'} done, {held.pruned} pruned")
        if held.best is not None:
            text.append(f"  best {held.best:.4f} #{held.best_trial}", "bold")
        if held.left is not None:
            text.append(f"  {in_words(*held.left)} left")
        return text


def in_columns(name: str) -> str:
    """A trial's name as wide as every other: a Chinese character takes two columns."""
    return name if cell_len(name) > _NAME else set_cell_size(name, _NAME)
