"""Rich's console and tables, in the language of the terminal."""

from typing import Any

import rich.console
import rich.table
from rich.status import Status

from face3d_tune.cli.language import translate, word


class Console(rich.console.Console):
    """A console that prints in the chosen language; colours and markup only on request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; text is translated."""
        super().print(*(translate(each) if isinstance(each, str) else each for each in objects), **options)

    def status(self, status: Any, **options: Any) -> Status:
        """Show a spinner with a text while the block runs."""
        return super().status(translate(status), **options)


class TranslatedTable(rich.table.Table):
    """A table whose headings are in the chosen language; its cells are printed as they are."""

    def add_column(self, header: Any = "", *others: Any, **options: Any) -> None:
        """Add a column."""
        super().add_column(word(header), *others, **options)
