"""Notices for a waiting person, from rooms below `cli`, which prints them in the person's language."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


_printer: Callable[[str], object] = _to_stderr


def print_with(printer: Callable[[str], object]) -> None:
    """Print every later notice with this function."""
    global _printer
    _printer = printer


@contextmanager
def printed_with(printer: Callable[[str], object]) -> Iterator[None]:
    """Print notices with this function until the block ends."""
    global _printer
    before, _printer = _printer, printer
    try:
        yield
    finally:
        _printer = before


def notice(line: str) -> None:
    """Print a line at once: on standard error, unless a printer was set."""
    _printer(line)
