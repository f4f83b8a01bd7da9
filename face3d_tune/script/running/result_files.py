"""The files with numbers that a script writes: checkpoints, JSON and CSV, each read again only once it has changed."""

import csv
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from face3d_tune.errors import TrainingError
from face3d_tune.script.running import records
from face3d_tune.script.running.records import Given
from face3d_tune.system import regular_file
from face3d_tune.training import checkpoint_file

_PIECE, _MOST_PIECES = 2**20, 16  # bytes of a growing file at once, and pieces of it in one look
_BEGINNING = 4_096  # bytes of it that tell whether it was written again, with other columns
_MOST_CELLS = 1_000
_NO_RESULT = re.compile("model|state|optim|sched|scaler|param|args|config|ema|weight", re.IGNORECASE)

Signature = tuple[int, int]  # size and time of a file


def signatures(folder: Path, most: int) -> dict[Path, Signature]:
    """Return size and time of the regular files in a folder and below, oldest first.

    No further folder is walked once there are more than `most` of them.
    """
    found: dict[Path, Signature] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                status = path.lstat()
            except OSError:  # removed since
                continue
            if stat.S_ISREG(status.st_mode):
                found[path] = status.st_size, status.st_mtime_ns
        if len(found) > most:
            break
    return dict(sorted(found.items(), key=lambda item: (item[1][1], item[0])))


@dataclass(slots=True)
class WholeFile:
    """A file that a script writes at once, again and again. It is read once its size and time have been stable."""

    path: Path
    parse: Callable[[Path], list[Given]]
    _seen: Signature | None = None
    _read: Signature | None = None

    def new(self, signature: Signature, *, ended: bool) -> list[Given]:
        """Return the numbers of the file if it has changed, and has not since the last call."""
        stable, self._seen = ended or signature == self._seen, signature
        if not stable or signature == self._read:
            return []
        self._read = signature
        try:
            return self.parse(self.path)
        except (OSError, ValueError, TrainingError, RecursionError):
            return []  # half-written, or of another kind: its next change shows


@dataclass(slots=True)
class GrowingFile:
    """A file with a record on each line, to which a script adds lines. A row's place is its epoch if it names none."""

    path: Path
    reader: Callable[[], Callable[[str], list[Given]]]  # makes what reads its lines, from the first on
    _row: Callable[[str], list[Given]] | None = None
    _beginning: bytes = b""
    _offset: int = 0
    _rows: int = 0
    _rest: bytes = b""
    _signature: Signature | None = None

    def new(self, signature: Signature, *, ended: bool) -> list[Given]:
        """Return the numbers of the lines that are new, of which the last may be cut unless the script has ended."""
        if signature == self._signature and not (ended and self._rest):
            return []
        given: list[Given] = []
        try:
            with self.path.open("rb") as file:
                beginning = file.read(_BEGINNING)
                if signature[0] < self._offset or not beginning.startswith(self._beginning):  # written again
                    self._row, self._offset, self._rows, self._rest = None, 0, 0, b""
                self._beginning = beginning
                file.seek(self._offset)
                for _ in range(_MOST_PIECES):
                    if not (piece := file.read(_PIECE)):
                        self._signature = signature
                        break
                    self._offset += len(piece)
                    *lines, self._rest = (self._rest + piece).split(b"\n")
                    self._rest = self._rest[-_PIECE:]
                    for line in lines:
                        given += self._given(line)
        except OSError:
            return given
        if ended and self._rest:
            given, self._rest = given + self._given(self._rest), b""
        return given

    def _given(self, line: bytes) -> list[Given]:
        self._row = self._row or self.reader()
        given = self._row(line.decode("utf-8-sig", errors="replace").strip("\r"))
        self._rows += bool(given)
        return [(name, self._rows if epoch is None else epoch, value) for name, epoch, value in given]


@dataclass(slots=True)
class CsvColumns:
    """The columns of a CSV file, whose first line names them."""

    _names: list[str] = field(default_factory=list)
    _delimiter: str = ","

    def row(self, line: str) -> list[Given]:
        """Return the numbers of a line; none of the line that names the columns."""
        if not line.strip():
            return []
        if not self._names:
            self._delimiter = max(",;\t", key=line.count)
        try:
            row = next(csv.reader([line], delimiter=self._delimiter), [])
        except csv.Error:
            return []
        cells = [cell.strip() for cell in row[:_MOST_CELLS]]
        if not self._names or cells == self._names:
            if any(checkpoint_file.number(cell) is not None for cell in cells):
                cells = [""] * len(cells)  # no line names the columns
            self._names = cells
            return []
        record: dict[str, Any] = {}
        for name, cell in zip(self._names, cells, strict=False):
            value = checkpoint_file.number(cell)
            if name and value is not None:
                record[name] = value
        return records.of_record(record)


def checkpoint(path: Path) -> list[Given]:
    """Return the numbers of a checkpoint: its histories, and scalars if it says its epoch. Raises TrainingError."""
    if not checkpoint_file.begins_like_one(path):
        return []
    content = checkpoint_file.load(path)
    kept = {key: value for key, value in content.items() if not _NO_RESULT.search(str(key))}
    given = records.of_histories(kept)
    scalars = [each for each in records.of_record(kept) if each[1] is not None]
    return [*given, *scalars]


def whole_json(path: Path) -> list[Given]:
    """Return the numbers of a JSON file. Raises OSError, ValueError."""
    text = regular_file.read_bytes(path, most=regular_file.MOST_TEXT).decode("utf-8-sig")
    try:
        return records.of_file(json.loads(text))
    except ValueError:  # some programs call a file with a record on each line so
        return records.of_file([records.of_line(line) for line in text.splitlines()])


def json_line(line: str) -> list[Given]:
    """Return the numbers of a line that is a JSON object."""
    record = records.of_line(line)
    return records.of_record(record) if isinstance(record, dict) else []
