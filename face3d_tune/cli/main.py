"""The entry point: parse, run one command, return an exit code. A failure prints one line and a hint."""

import errno
import functools
import os
import re
import sys
import threading
import traceback
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
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
from face3d_tune.cli.excluding import exclude
from face3d_tune.cli.export import export, presets
from face3d_tune.cli.importing import import_
from face3d_tune.cli.judge import judge
from face3d_tune.cli.language import choose, say
from face3d_tune.cli.options import NOTIFY_VARIABLE
from face3d_tune.cli.predict import predict
from face3d_tune.cli.report import report
from face3d_tune.cli.run import run
from face3d_tune.cli.script import script
from face3d_tune.cli.status import status
from face3d_tune.cli.stopping import stop
from face3d_tune.cli.streams import lasting
from face3d_tune.cli.train import train
from face3d_tune.cli.trying import try_
from face3d_tune.cli.watch import watch
from face3d_tune.errors import TuneError
from face3d_tune.system.notices import print_with
from face3d_tune.system.safe_text import forget, learn, learn_service, learn_url, safe


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
    script,
    try_,
    stop,
    exclude,
    watch,
    status,
    confirm,
    dashboard,
    report,
    export,
    train,
    judge,
    predict,
    presets,
    data,
    import_,
    copy,
    doctor,
    completion,
)
for command in COMMANDS:
    cli.add_command(command)


_OURS = "FACE3D_TUNE_"
_OF_OTHERS = ("PG", "AWS_")  # variables that libpq and boto3 read
# URLs that need not be of services; in the others a token may stand anywhere, as in dingtalk://TOKEN.
_NO_SERVICE = re.compile(r"(--[\w-]+=)?(sqlite|postgres(ql)?(\+\w+)?|mysql|s3|file|https?)://", re.IGNORECASE)
_SECRET_VARIABLES = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "FACE3D_TUNE_TOKEN")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    with lasting():
        code = _run(arguments)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Run one command line and return the exit code."""
    _mend_environment()
    typed = sys.argv[1:] if arguments is None else arguments
    _learn_secrets(typed)
    choose(typed)
    print_with(functools.partial(say, err=True))
    state: dict[str, Any] = {}
    try:
        code = cli.main(args=arguments, prog_name="face3d-tune", standalone_mode=False, obj=state)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message)
        code = 0
    except (KeyboardInterrupt, click.Abort):
        code = _interrupted()
    except Exception as error:
        if _is_interrupt(error):
            code = _interrupted()
        else:
            if state.get("debug"):
                click.echo(safe(traceback.format_exc()), err=True, nl=False)
            code = _explain(error, state.get("command", "face3d-tune"))
    return code if isinstance(code, int) else 0


def hide_secrets_in_tracebacks() -> None:
    """Print uncaught exceptions without secrets, also those of other threads."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        click.echo(safe("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)

    def show_of_thread(gone: threading.ExceptHookArgs) -> None:
        if gone.exc_value is not None and not isinstance(gone.exc_value, SystemExit):
            show(gone.exc_type, gone.exc_value, gone.exc_traceback)

    sys.excepthook, threading.excepthook = show, show_of_thread


def _mend_environment() -> None:
    """Strip carriage returns from variables: a .env file edited on Windows leaves them at the ends."""
    for name, value in os.environ.items():
        if name.startswith((_OURS, *_OF_OTHERS)) and value.endswith("\r"):
            os.environ[name] = value.rstrip("\r\n")


def _learn_secrets(arguments: Sequence[str]) -> None:
    """Collect the passwords of command line and environment, which no message may show."""
    forget()
    for word in (*arguments, *os.environ.values()):
        learn_url(word)
    services = [after for word, after in pairwise(arguments) if word == "--notify"]
    services += [word.removeprefix("--notify=") for word in arguments if word.startswith("--notify=")]
    misplaced = [word for word in arguments if "://" in word and not _NO_SERVICE.match(word)]
    for url in (*services, *misplaced, *os.environ.get(NOTIFY_VARIABLE, "").split()):
        learn_service(url)
    for name in _SECRET_VARIABLES:
        if (value := os.environ.get(name, "")) != "auto":  # a token that is yet to be generated
            learn(value)


def _interrupted() -> int:
    say("interrupted", err=True)
    return 130


def _is_interrupt(error: BaseException) -> bool:
    """Tell whether Ctrl-C interrupted an import, which then reports a broken module."""
    chain, by_import = error, isinstance(error, ImportError | SystemError)
    while by_import and (before := chain.__cause__ or chain.__context__):
        if isinstance(chain := before, KeyboardInterrupt):
            return True
    return False


def _explain(error: Exception, command: str) -> int:
    """Print an error in one line, with what to do next, and return the exit code."""
    match error:
        case TuneError():
            message, hint, code = error.message, error.hint, error.exit_code
        case click.ClickException():
            message, hint, code = error.format_message(), None, 2
            context = getattr(error, "ctx", None)
            command = context.command_path if context else command
        case OSError(errno=errno.ENAMETOOLONG):
            message, hint, code = f"{error.filename}: {error.strerror}", "give a shorter path", 2
        case _:
            message = f"unexpected {type(error).__name__}: {error}"
            hint, code = "run the same command with --debug for the traceback, and report it", 1
    say(f"error: {safe(' '.join(message.split()))}", err=True)
    if hint is None:
        hint = f"see `{command} --help`"
    if hint:
        say(f"hint: {safe(hint)}", err=True)
    return code
