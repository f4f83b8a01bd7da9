"""Rich's console, tables and bars, in the language of the terminal."""

import os
from typing import TYPE_CHECKING, Any

import rich.console
import rich.table
import rich.text
from rich.status import Status

from face3d_tune.cli.language import translate, word
from face3d_tune.system.safe_text import visible

ANY_WIDTH = 1000  # columns, to measure how many a table needs

if TYPE_CHECKING:
    from rich.progress import Progress


class Console(rich.console.Console):
    """A console that prints in the chosen language; colours and markup only on request.

    FORCE_COLOR and CLICOLOR_FORCE (https://force-color.org, https://bixense.com/clicolors) ask for colours in a log.
    Rich would take the first for a terminal, and fill the log with lines that are drawn anew.
    """

    def __init__(self, **options: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
        super().__init__(highlight=False, markup=False, _environ=environment, **options)
        if not self.is_terminal and _asked_for_colours():
            super().__init__(highlight=False, markup=False, _environ=environment, color_system="standard", **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; text is translated."""
        super().print(*(translate(each) if isinstance(each, str) else each for each in objects), **options)

    def render_str(self, text: str, **options: Any) -> rich.text.Text:
        """Make text to print of a string, whose escape sequences are shown."""
        return super().render_str(visible(text, keep="\n\t"), **options)

    def status(self, status: Any, **options: Any) -> Status:
        """Show a spinner with a text while the block runs."""
        return super().status(translate(status), **options)


def _asked_for_colours() -> bool:
    return any(os.environ.get(name, "") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE"))


class TranslatedTable(rich.table.Table):
    """A table whose headings are in the chosen language; its cells are printed as they are."""

    def add_column(self, header: Any = "", *others: Any, **options: Any) -> None:
        """Add a column."""
        super().add_column(word(header), *others, **options)


def progress_bar(console: Console, *, described: bool = True) -> "Progress":
    """Return a bar: how much is done, its description, and how long the rest may take; nothing off a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    description = [TextColumn("{task.description}")] if described else []
    columns = (BarColumn(), MofNCompleteColumn(), *description, TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
