"""Writes docs/commands.md from the program's own help: `python docs/commands.py`. A test finds a stale page."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent))  # also where the package is not installed

from face3d_tune.cli.main import cli

PAGE = Path(__file__).with_suffix(".md")
_WIDTH = 100  # columns


def page() -> str:
    """Return the whole page."""
    parts = [
        "# Commands",
        "This page is what `face3d-tune COMMAND --help` prints; `python docs/commands.py` writes it.",
    ]
    for context in _contexts(cli, "face3d-tune", None):
        parts += [f"## {context.command_path}", f"```text\n{context.get_help().rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """One for the command and each below it, in the order of its help."""
    settings = command.context_settings | {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context
    for inner, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _contexts(below, inner, context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
