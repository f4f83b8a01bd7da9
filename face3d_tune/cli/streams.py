"""Standard output and error that outlive their reader: a terminal that closes, a pipe whose reader ends."""

import errno
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from face3d_tune.cli.language import say

_PAUSE = 0.01  # seconds until the next attempt on a full, non-blocking pipe
_GONE = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a closed terminal


class _Raw(io.RawIOBase):
    """A raw stream that writes to another one, and drops its input once the reader has gone.

    Args:
        raw: The wrapped stream.
        needed: Whether other errors, such as a full disk, are raised: for output, not for progress.

    Attributes:
        gone: Whether the reader has gone.
        note: Receives the first error that is not raised, in words.
    """

    def __init__(self, raw: Any, *, needed: bool) -> None:
        super().__init__()
        self._raw, self.needed, self.gone = raw, needed, False
        self.note: Callable[[str], object] | None = None
        self.name = getattr(raw, "name", "")

    def write(self, data: Any, /) -> int:
        """Write all of it."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and not self.gone:
                if written := self._raw.write(rest):
                    rest = rest[written:]
                else:
                    time.sleep(_PAUSE)
        except OSError as error:
            self.gone = error.errno in _GONE
            if self.needed and not self.gone:
                raise
            if self.note and not self.gone:
                note, self.note = self.note, None
                note(error.strerror or str(error))
        return size

    def writable(self) -> bool:
        """Return True, always."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor of the wrapped stream."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Tell whether the wrapped stream is a terminal."""
        return bool(self._raw.isatty())


class Lasting(io.TextIOWrapper):
    """A text stream without a buffer between it and `_Raw`: a signal handler may print while something is printed."""

    def __init__(self, stream: io.TextIOWrapper, *, needed: bool) -> None:
        stream.flush()
        self._lasting = _Raw(getattr(stream.buffer, "raw", stream.buffer), needed=needed)
        # A character that the console's code page lacks must not end a search.
        super().__init__(self._lasting, encoding=stream.encoding, errors="backslashreplace", write_through=True)

    @property
    def gone(self) -> bool:
        """Tell whether the reader has gone."""
        return self._lasting.gone

    def lose(self, note: Callable[[str], object]) -> None:
        """Drop from now on what cannot be written, and tell `note` once why."""
        self._lasting.needed, self._lasting.note = False, note


@contextmanager
def lasting() -> Iterator[None]:
    """Replace standard output and error by such streams until the block ends."""
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if isinstance(stream, io.TextIOWrapper):  # else a test captures it, or it is missing
            setattr(sys, name, Lasting(stream, needed=name == "stdout"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def go_on_without_output() -> None:
    """Let what follows outlive a standard output that cannot be written, such as a file on a full disk: warn once."""
    if isinstance(sys.stdout, Lasting):
        sys.stdout.lose(lambda why: say(f"warning: standard output cannot be written: {why}", err=True))


def reader_gone() -> bool:
    """Tell whether the reader of standard output has gone."""
    return isinstance(sys.stdout, Lasting) and sys.stdout.gone
