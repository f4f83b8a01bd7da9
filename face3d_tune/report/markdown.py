"""A report as Markdown, for notes: everything but the pictures, whose numbers are in the tables."""

import re
import shlex

from face3d_tune.report.blocks import MARK, Block, Code, Columns, Document, Figure, Paragraph, Runs, Style, Table, Tiles
from face3d_tune.system.safe_text import visible


def to_markdown(document: Document) -> str:
    """Render the document as Markdown.

    Characters with a meaning in Markdown or HTML are escaped, so a name stays a name.
    """
    parts = [f"# {_plain(document.title)}", _plain(document.subtitle) + f"\n{MARK}"]
    for section in document.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [text for text in map(_block, section.blocks) if text]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, kind):
            return ("> " if kind == "warning" else "") + _runs(text)
        case Tiles(tiles):
            return "\n".join(f"- **{_plain(value)}** {_plain(label)} ({_plain(hint)})" for value, label, hint in tiles)
        case Table(header, rows):
            ruler = ["---"] + ["---:" if block.numeric else "---"] * (len(header) - 1)
            cells = [[_plain(text) for text in header], ruler, *(list(map(_cell, row)) for row in rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in cells)
        case Figure():
            return ""
        case Columns(blocks):
            return "\n\n".join(filter(None, map(_block, blocks)))
        case Code(commands):
            lines = "\n".join(map(shlex.join, commands))
            return f"{_fence(lines)}\n{lines}\n{_fence(lines)}"


def _runs(runs: Runs) -> str:
    return "".join(map(_styled, runs))


def _styled(run: tuple[Style, str]) -> str:
    match run:
        case "code", text:
            return "`" + visible(text).replace("`", "'") + "`"
        case "strong", text:
            return f"**{_plain(text)}**"
        case _, text:
            return _plain(text)


def _cell(cell: str | Runs) -> str:
    return _plain(cell) if isinstance(cell, str) else _runs(cell)


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", visible(" ".join(text.splitlines())))


def _fence(text: str) -> str:
    """Return a fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)
