"""The numbers that a script gives, from each source, as they appear: the curve of each by epoch."""

import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from face3d_tune.script.running import event_file, records, result_files
from face3d_tune.script.running.printed import Printed
from face3d_tune.script.running.result_files import CsvColumns, GrowingFile, WholeFile

Source = Literal["tensorboard", "checkpoint", "printed", "json", "csv"]
SOURCES: tuple[Source, ...] = get_args(Source)

_BY_SUFFIX: dict[str, Source] = {  # any other may be a checkpoint
    **{".json": "json", ".jsonl": "json", ".csv": "csv"},
    **{".log": "printed", ".txt": "printed"},
}
_MOST_NAMES, _MOST_VALUES = 2_000, 20_000  # of a script; of a name, more of which are no values of epochs
_MOST_FILES, _MANY_FILES, _SHARE = 20_000, 500, 20  # of many files one look in so many times as it takes
_LONGEST_LINE = 20_000  # characters
_PHASES = re.compile(r"train(ing)?|val(id(ation)?)?|test|eval(uation)?|dev", re.IGNORECASE)


@dataclass(slots=True)
class _Series:
    """The values of one name by the source's own epoch, or by order of appearance."""

    values: dict[int, float] = field(default_factory=dict)
    stated: bool = False
    repeated: bool = False  # several values came for one epoch
    curve: dict[int, float] | None = None

    def add(self, epoch: int | None, value: float) -> None:
        """Add a value. The last one of an epoch counts."""
        if epoch is None:
            if self.stated:
                return
            epoch = len(self.values) + 1
        elif not self.stated:
            # What came before the first stated epoch belongs to the epoch before it.
            self.values = {epoch - 1: list(self.values.values())[-1]} if self.values else {}
            self.stated = True
        last = next(reversed(self.values), epoch)
        if epoch not in self.values and epoch < last:
            return  # too late: the ranks of the epochs after it are known already
        if epoch == last and self.values.get(epoch, value) != value:
            self.repeated = True
        if len(self.values) <= _MOST_VALUES and self.values.get(epoch) != value:
            self.values[epoch] = value
            self.curve = None

    def ranked(self) -> dict[int, float]:
        """Return the values by epoch from 1, without gaps; none of a name with too many for epochs."""
        if self.curve is None:
            many = len(self.values) > _MOST_VALUES
            self.curve = {} if many else dict(enumerate(self.values.values(), 1))
        return self.curve


class Numbers:
    """Every number that a script has given so far, from all sources or a few.

    One thread may `hear` the output while another looks into the files. `folder` is the trial's, and is searched with
    all folders in it.
    """

    def __init__(self, folder: Path, sources: Collection[Source] = SOURCES) -> None:
        self._folder, self._sources = folder, frozenset(sources)
        self._series: dict[tuple[Source, str], dict[str, _Series]] = {}  # by source and name, then by file
        self._count = 0
        self._rest = 0.0
        self._files: dict[Path, WholeFile | GrowingFile] = {}
        self._events: dict[Path, int] = {}
        self._printed, self._line = Printed(), ""
        self._lock = threading.Lock()

    def hear(self, text: str) -> None:
        """Read output of the script as it comes, in pieces of any length; a carriage return ends a line as well."""
        if not {"printed", "json"} & self._sources:
            return
        *lines, last = re.split(r"[\r\n]+|\x08{2,}", self._line + text)
        self._line = last[:_LONGEST_LINE]
        for line in lines:
            if line:
                self._hear(line[:_LONGEST_LINE])

    def look(self, *, ended: bool = False) -> None:
        """Read what is new in files. A checkpoint or JSON file is read at the second look that finds it unchanged.

        `ended` says that the script has ended, so that every file is whole and the last line needs no end.
        """
        if ended and self._line:
            line, self._line = self._line, ""
            self._hear(line)
        began = time.monotonic()
        if not self._sources or (began < self._rest and not ended):
            return
        files = result_files.signatures(self._folder, _MOST_FILES)
        if len(files) > _MANY_FILES:
            self._rest = began + _SHARE * (time.monotonic() - began)
        for path, signature in files.items():
            if "tfevents" in path.name:
                if "tensorboard" in self._sources:
                    self._look_at_events(path, signature[0])
            else:
                self._look_at_file(path, signature, ended=ended)

    def curves(self) -> Mapping[tuple[Source, str], Mapping[int, float]]:
        """Return the values of each number by epoch from 1, without gaps.

        The epoch is the rank of the source's own epoch, or the order of appearance if the source names none. A name
        that several files have, such as `loss` of train.csv and val.csv, begins with that of its file: `val/loss`.
        """
        with self._lock:
            return {key: curve for key, series in self._named() if (curve := series.ranked())}

    def repeated(self) -> Set[tuple[Source, str]]:
        """Return the numbers that came several times within an epoch, such as the loss of a progress bar.

        Their value of an epoch is final once the next epoch has begun, or the script has ended.
        """
        with self._lock:
            return {key for key, series in self._named() if series.repeated}

    def steps(self, source: Source, name: str) -> Sequence[int]:
        """Return the source's own epochs of a number, as its curve has them; none if the source names no epochs."""
        with self._lock:
            found = next((series for key, series in self._named() if key == (source, name)), None)
            return [*found.values] if found is not None and found.stated else []

    def _named(self) -> Iterator[tuple[tuple[Source, str], _Series]]:
        for (source, name), by_file in self._series.items():
            printed = by_file.get("")
            for file, series in by_file.items():
                if series is printed or len(by_file) == 1:
                    yield (source, name), series
                elif printed is None or not _repeats(series.ranked(), printed.ranked()):
                    yield (source, f"{file}/{name}"), series

    def _hear(self, line: str) -> None:
        record = records.of_line(line)
        if isinstance(record, dict):
            if "json" in self._sources:
                self._add("json", records.of_record(record))
        elif "printed" in self._sources:
            self._add("printed", self._printed.read(line))

    def _look_at_events(self, path: Path, size: int) -> None:
        offset = self._events.get(path, 0)
        if size == offset:
            return
        try:
            scalars, self._events[path] = event_file.read(path, offset if size > offset else 0)
        except OSError:
            return
        given = [(_tag(scalar.tag, path.parent.name), scalar.step, scalar.value) for scalar in scalars]
        self._add("tensorboard", given)

    def _look_at_file(self, path: Path, signature: result_files.Signature, *, ended: bool) -> None:
        source = _BY_SUFFIX.get(path.suffix.lower(), "checkpoint")
        if source not in self._sources:
            return
        if path not in self._files:
            if path.suffix.lower() == ".jsonl":
                self._files[path] = GrowingFile(path, lambda: result_files.json_line)
            elif source == "csv":
                self._files[path] = GrowingFile(path, lambda: CsvColumns().row)
            elif source == "printed":
                self._files[path] = GrowingFile(path, lambda: Printed().read)
            else:
                parse = result_files.whole_json if source == "json" else result_files.checkpoint
                self._files[path] = WholeFile(path, parse)
        given = self._files[path].new(signature, ended=ended)
        if given:
            # Checkpoints repeat one history; other files that differ only by a date or number, as after a resume, too.
            self._add(source, given, "" if source == "checkpoint" else re.sub(r"[\W_]*\d[\d\W_]*", "", path.stem))

    def _add(self, source: Source, given: Iterable[records.Given], file: str = "") -> None:
        with self._lock:
            for name, epoch, value in given:
                by_file = self._series.get((source, name), {})
                if file not in by_file and self._count < _MOST_NAMES:
                    self._count += 1
                    by_file = self._series.setdefault((source, name), by_file)
                    by_file[file] = _Series()
                if file in by_file:
                    by_file[file].add(epoch, value)


def _repeats(file: Mapping[int, float], printed: Mapping[int, float]) -> bool:
    """Tell whether a file has what is also printed; either may be an epoch ahead of the other."""
    return all(file[epoch] == printed[epoch] for epoch in file.keys() & printed.keys())


def _tag(tag: str, folder: str) -> str:
    """Name a scalar by its tag, and by its folder if several writers share the tag.

    `add_scalars("Loss", {"val": …})` writes the tag Loss into a folder Loss_val, Keras the tag epoch_loss into the
    folders train and validation.
    """
    beginning = f"{tag.replace('/', '_')}_"
    if folder.startswith(beginning):
        return f"{tag}/{folder.removeprefix(beginning)}"
    return f"{folder}/{tag}" if _PHASES.fullmatch(folder) else tag
