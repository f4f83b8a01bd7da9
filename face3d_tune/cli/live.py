"""The live picture of a search: a line for each trial in training, and one for the study."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from face3d_tune.cli.eta import in_words
from face3d_tune.cli.language import translate
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.system.safe_text import visible

_NAME = 18  # columns for number and name of a trial
_SHORT = 12  # columns of a name in a narrow terminal
_ROOM_FOR_BAR = 100  # columns of a terminal with room for a bar
_BAR = 20
_ROOM_FOR_RANK1 = 120  # columns of a terminal with room for rank-1, too, unless the line is long


@dataclass(frozen=True, slots=True)
class InTraining:
    """A trial in training; it has no value before the end of its first epoch."""

    number: int
    name: str  # its preset's, or `sampled`
    epochs: int  # at most; 0: not known
    epoch: int = 0
    value: float | None = None  # of the objective
    lr: float | None = None
    fold: int = 1  # of `folds`, on which it trains
    folds: int = 1
    rank1: float | None = None  # among all enrolled


@dataclass(frozen=True, slots=True)
class Standing:
    """The progress of a study."""

    name: str
    done: int  # completed and pruned trials
    pruned: int
    budget: int | None
    best: float | None
    best_trial: int | None
    to_beat: tuple[str, float] | None  # the best preset and its value
    left: tuple[float, float] | None  # seconds
    to_beat_by_fold: Sequence[float] = ()  # its value on each of several folds
    objective: Objective = COSINE


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture, for a terminal of any width; no line breaks."""

    standing: Standing
    training: Sequence[InTraining]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Return the lines; if the terminal has too few, the study's stays and the last trials are only counted."""
        width, room = options.max_width, max(1, options.max_height - 2)
        fit = len(self.training) if len(self.training) <= room else room - 1
        lines = [self._trial(trial, width) for trial in self.training[:fit]]
        if hidden := len(self.training) - fit:
            lines.append(Text(translate(f"and {hidden} more in training"), "dim"))
        for text in (*lines, self._study(width)):
            text.truncate(width, overflow="ellipsis")
            text.no_wrap = True
            yield text

    def _trial(self, trial: InTraining, width: int) -> Text:
        wide = width >= _ROOM_FOR_BAR
        reached = f"{trial.epoch:>{len(str(trial.epochs))}}/{trial.epochs}" if trial.epochs else f"epoch {trial.epoch}"
        text = Text(f" {reached}")
        if wide and trial.epochs:
            done = round(_BAR * min(1.0, trial.epoch / trial.epochs))
            text.append("  ").append("━" * done, "green").append("─" * (_BAR - done), "dim")
        if trial.folds > 1:
            text.append(translate(f"  fold {trial.fold} of {trial.folds}"))
        if trial.value is not None:
            text.append(translate(f"  {self.standing.objective.said(trial.value)}"))
            if self.standing.to_beat:
                name, value = self.standing.to_beat
                if self.standing.to_beat_by_fold:  # on the same people, else the difference would be between people
                    value = self.standing.to_beat_by_fold[trial.fold - 1]
                better = self.standing.objective.better(trial.value, value)
                difference = self.standing.objective.number(trial.value - value, "+")
                beside = f"{difference} on {shortened(name, _NAME if wide else _SHORT)}"
                text.append(f"  {translate(beside)}", "green" if better else "dim")
        if trial.lr is not None and (wide or trial.folds == 1):  # a narrow terminal has no room for both
            text.append(f"  lr {trial.lr:.1e}")
        rank1 = "" if trial.rank1 is None or width < _ROOM_FOR_RANK1 else f"  rank-1 {trial.rank1:.3f}"
        if _NAME + text.cell_len + len(rank1) <= width:
            text.append(rank1)
        name = in_columns(f"#{trial.number} {trial.name}")
        return Text(shortened(name, max(_NAME, width - text.cell_len))).append_text(text)

    def _study(self, width: int) -> Text:
        study = self.standing
        done = f"  {study.done}{'' if study.budget is None else f' of {study.budget}'} done, {study.pruned} pruned"
        text = Text(translate(done))
        if study.best is not None:
            text.append(translate(f"  best {study.objective.number(study.best)} #{study.best_trial}"), "bold")
        if study.left is not None:
            text.append(translate(f"  {in_words(*study.left)} left"))
        return Text(shortened(study.name, max(_SHORT, width - text.cell_len)), "bold").append_text(text)


def shortened(name: str, columns: int) -> str:
    """Cut a name to a number of columns, with an ellipsis where it was cut."""
    name = visible(name)
    return name if cell_len(name) <= columns else set_cell_size(name, columns - 1).rstrip() + "…"


def in_columns(name: str) -> str:
    """Pad a trial's name to the common width: a Chinese character takes two columns."""
    return name if cell_len(name) > _NAME else set_cell_size(name, _NAME)
