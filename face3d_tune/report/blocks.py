"""The blocks of a report, before it is HTML or Markdown: sections of paragraphs, tables, figures and commands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree.ElementTree import Element

Style = Literal["plain", "strong", "code"]
Runs = tuple[tuple[Style, str], ...]  # text in pieces, each in one style

MARK = "<!-- face3d-tune report -->"  # in pages and notes, to recognise them as ours
_MARKS: dict[Style, int] = {"plain": 0, "strong": 2, "code": 1}  # characters before and after


class Count(int):
    """A whole number that `{:trial}` writes with its noun, `1 trial`, `1,000 trials`, and `{}` without."""

    def __format__(self, noun: str) -> str:
        return f"{int(self):,d}" + (f" {noun}{'' if self == 1 else 's'}" if noun else "")

    def __str__(self) -> str:
        return format(self, "")


def rich(template: str, **values: object) -> Runs:
    """Parse `**strong**` and backticks of the template as styles.

    Values are inserted afterwards, so their text is never parsed.
    """
    runs: list[tuple[Style, str]] = []
    for piece in re.split(r"(\*\*.+?\*\*|`.+?`)", template):
        if piece:
            style: Style = "strong" if piece.startswith("**") else "code" if piece.startswith("`") else "plain"
            bare = piece[_MARKS[style] : len(piece) - _MARKS[style]]
            runs.append((style, bare.format(**values)))
    return tuple(runs)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text; a `warning` stands out, a `note` is muted."""

    text: Runs
    kind: Literal["text", "warning", "note"] = "text"


@dataclass(frozen=True, slots=True)
class Tiles:
    """The few numbers to remember: value, name, and a short hint. The first is the answer."""

    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column names the row. `marked` is the row that matters."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Runs]]
    numeric: bool = True  # all columns but the first to the right
    marked: int | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture with its title."""

    title: str
    svg: Element


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures side by side that share a legend: a label and the class of its line or dot."""

    drawings: Sequence[Drawing]
    legend: Sequence[tuple[str, str]]
    caption: Runs


@dataclass(frozen=True, slots=True)
class Code:
    """Commands to copy and run, each a list of arguments."""

    commands: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Columns:
    """A figure and its table, side by side where there is room."""

    blocks: Sequence[Figure | Table]


Block = Paragraph | Tiles | Table | Figure | Code | Columns


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what is below it; `name` is its anchor, the same in every language."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    language: str  # for HTML's lang
    title: str
    subtitle: str
    contents: str  # the heading of the table of contents
    copy: tuple[str, str]  # the text of the button before and after copying
    sections: Sequence[Section]


def number(value: Any) -> str:
    """Format a parameter's number as a user types it: `0.5`, `1.4e-4`, `32`."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"
    return re.sub(r"\.?0*e\+?(-?)0*(\d)", r"e\1\2", text)
