"""`python -m face3d_tune` is the same as `face3d-tune`. It imports nothing slow before it can answer Ctrl-C."""

import os
import signal
import sys
from importlib import import_module
from types import FrameType

INTERRUPTED = 130  # exit code


def main() -> None:
    """Run the command line; Ctrl-C before and after it is one line too, not a traceback."""
    _leave_current_folder()
    try:
        cli = import_module("face3d_tune.cli.main")
        cli.hide_secrets_in_tracebacks()
        cli.main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, _end_at_once)
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, _end_at_once)  # what is left is to clean up


def _leave_current_folder() -> None:
    """Import nothing that lies in the current folder by chance: with `-m` Python looks there first."""
    here = os.getcwd()
    if sys.path[0] == here and here != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
