"""The command line: parse, call one function, print, exit code. Every failure leaves as one line and a hint."""

import io
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from face3d_tune import __version__
from face3d_tune.cli.base import Group, example
from face3d_tune.cli.completion import completion
from face3d_tune.cli.confirm import confirm
from face3d_tune.cli.copy import copy
from face3d_tune.cli.dashboard import dashboard
from face3d_tune.cli.data import data
from face3d_tune.cli.doctor import doctor
from face3d_tune.cli.export import export, presets
from face3d_tune.cli.importing import import_
from face3d_tune.cli.report import report
from face3d_tune.cli.run import run
from face3d_tune.cli.status import status
from face3d_tune.cli.train import train
from face3d_tune.cli.watch import watch
from face3d_tune.errors import TuneError


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example("face3d-tune run --trials 50"),
)
@click.version_option(__version__, prog_name="face3d-tune")
def cli() -> None:
    """Find better hyperparameters for the side-view to frontal face embedding Transformer."""


COMMANDS = (
    run,
    watch,
    status,
    confirm,
    dashboard,
    report,
    export,
    train,
    presets,
    data,
    import_,
    copy,
    doctor,
    completion,
)
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the console's code page lacks must not end a search
            stream.reconfigure(errors="backslashreplace")
    state: dict[str, Any] = {}
    try:
        code = cli.main(args=arguments, prog_name="face3d-tune", standalone_mode=False, obj=state)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message)
        code = 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except Exception as error:
        if state.get("debug"):
            traceback.print_exc()
        code = _explain(error, state.get("command", "face3d-tune"))
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception, command: str) -> int:
    """Print an error in one line, with what to do next, and return the exit code."""
    match error:
        case TuneError():
            message, hint, code = error.message, error.hint, error.exit_code
        case click.ClickException():
            message, hint, code = error.format_message(), None, 2
            context = getattr(error, "ctx", None)
            command = context.command_path if context else command
        case _:
            message = f"unexpected {type(error).__name__}: {error}"
            hint, code = "run the same command with --debug for the traceback, and report it", 1
    click.echo(f"error: {' '.join(message.split())}", err=True)
    if hint is None:
        hint = f"see `{command} --help`"
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code
