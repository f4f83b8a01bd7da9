"""Problems of data files, as records: where the fault is, what is there and what should be."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from face3d_tune.errors import DataError

LARGEST = 1e12  # of any number: training adds up squares in float32, which ends at 3.4e38
LISTED = 5  # rows or names listed per problem; the others are a count


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One kind of fault in one file; `str()` of it is one line.

    An `error` prevents the use of the data. A `warning` does not; its `what` says if rows are left out.
    """

    file: str
    what: str
    expected: str
    key: str | None = None  # of a JSON file
    rows: tuple[int, ...] = ()  # all affected rows, from 0; empty if the whole file or key is affected
    severity: Literal["error", "warning"] = "error"
    hint: str | None = None  # what to do about it, if that is more than to fix the file

    def __str__(self) -> str:
        place = [self.file, *([self.key] if self.key else [])]
        if self.rows:
            more = len(self.rows) - LISTED
            listed = ", ".join(map(str, self.rows[:LISTED])) + (f" and {more} more rows" if more > 0 else "")
            place.append(f"row {listed}" if len(self.rows) == 1 else f"rows {listed}")
        return f"{': '.join(place)}: {self.what}; expected {self.expected}"


def unusable(table: NDArray[Any]) -> list[tuple[str, list[int]]]:
    """Return the reasons why rows of numbers cannot be trained on, each with its rows; none for an empty table.

    Numbers beyond LARGEST are finite in their file, and sooner or later infinite in training.
    """
    size = np.abs(table).reshape(len(table), -1).max(axis=1, initial=0)  # NaN if any number of a row is
    infinite, large = ~np.isfinite(size), np.isfinite(size) & (size > LARGEST)
    kinds = (
        ("NaN or infinity", infinite),
        (f"numbers beyond ±{LARGEST:g}, too large for sums of squares in float32", large),
    )
    return [(what, np.flatnonzero(rows).tolist()) for what, rows in kinds if rows.any()]


def listed(names: Iterable[str]) -> str:
    """List the distinct names in order of appearance, at most LISTED of them: `'张伟', 'Eve' and 312 more`."""
    distinct = list(dict.fromkeys(names))
    more = len(distinct) - LISTED
    return ", ".join(map(repr, distinct[:LISTED])) + (f" and {more} more" if more > 0 else "")


def errors_among(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems that prevent the use of the data."""
    return tuple(problem for problem in problems if problem.severity == "error")


def first_of(errors: Sequence[Problem], source: str) -> DataError:
    """Return the first error as an exception that says how many more there are and how to see them."""
    more = f" (and {len(errors) - 1} more problem{'s' * (len(errors) > 2)})" if len(errors) > 1 else ""
    lists_them = f"`face3d-tune data check {shlex.quote(source)}` lists every problem"
    return DataError(f"{errors[0]}{more}", errors[0].hint or lists_them)
