"""The output of a script that a command runs for a few epochs: its end is shown if it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from face3d_tune.errors import ScriptError
from face3d_tune.system.signals import endings_interrupt

_LINES = 20


@contextmanager
def shown_if_it_fails() -> Iterator[None]:
    """Show the last lines of the output of a script that fails in the block; a signal to end ends it, too."""
    try:
        with endings_interrupt():
            yield
    except ScriptError as error:
        for line in error.printed.splitlines()[-_LINES:]:
            click.echo(f"  | {line}", err=True)
        raise
