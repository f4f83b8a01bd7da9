"""The log of a trial: what a terminal would show of a script's output, its first MiB and its last."""

import os
import re
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

MIB = 2**20
_LEFT_OUT = b"\n[the middle of the output was left out]\n"


class Log:
    """A file to which output is appended, bounded however much a script prints.

    A line that a carriage return overwrites is overwritten here too: of a progress bar its last state stays. What was
    written is in the file at once, as the next attempt of a trial reads it. A full disk ends the log, not the script.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file: FileIO | None = FileIO(path, "r+")
        self._size = self._line = self._file.seek(0, os.SEEK_END)  # where the file ends, where its last line begins
        self._returned = b""  # a carriage return at the end of the output so far: what follows decides what it means

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: Any) -> None:
        with suppress(OSError):
            self._cut(2 * MIB)
        if self._file is not None:
            self._file.close()

    def write(self, data: bytes) -> None:
        """Append output."""
        if self._file is None:
            return
        try:
            self._append(self._file, data)
            self._cut(3 * MIB)
        except OSError:
            self._file.close()
            self._file = None

    def _append(self, file: FileIO, data: bytes) -> None:
        data = self._returned + data
        text = data.rstrip(b"\r")
        self._returned = b"\r" if len(text) < len(data) else b""
        first, *others = re.sub(rb"\r+\n", b"\n", text).split(b"\n")
        if b"\r" in first:
            self._size = file.seek(self._line)
            file.truncate()
        lines = [line.rpartition(b"\r")[2] for line in (first, *others)]
        file.write(b"\n".join(lines))
        self._size += sum(map(len, lines)) + len(others)
        if others:
            self._line = self._size - len(lines[-1])

    def _cut(self, most: int) -> None:
        """Cut a file of more than `most` bytes."""
        if self._file is None or self._size <= most:
            return
        self._file.seek(-MIB, os.SEEK_END)
        tail = self._file.read()
        tail = tail[tail.find(b"\n") + 1 :]  # from the beginning of a line
        self._file.seek(MIB)
        self._file.write(_LEFT_OUT + tail)
        self._file.truncate()
        self._size = self._file.tell()
        self._line = self._size - len(tail.rpartition(b"\n")[2])
