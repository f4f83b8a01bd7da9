"""The trials of a study as tables, for a spreadsheet or pandas: one row a trial, and one row an epoch."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from face3d_tune.study.records import Trial

# Excel takes a text that begins so for a formula, and would run what a config or an error message holds
# (https://owasp.org/www-community/attacks/CSV_Injection); a Chinese or Japanese one takes the full-width signs, too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_files(trials: Sequence[Trial]) -> dict[str, bytes]:
    """Return `trials.csv` and `curves.csv` by name: UTF-8 with the mark by which Excel knows it, lines by RFC 4180."""
    return {"trials.csv": _table(map(_row, trials)), "curves.csv": _table(_epochs(trials))}


def _row(trial: Trial) -> dict[str, Any]:
    """Return the row of a trial; what the study names itself has a prefix, so that no name stands twice."""
    row = {
        "trial": trial.number,
        "state": trial.state,
        "value": trial.value,
        "origin": trial.origin,
        "preset": trial.preset,
        "best_epoch": trial.best_epoch,
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "seed": trial.seed,
        "started": trial.started and trial.started.isoformat(" ", "seconds"),
        "stop_reason": trial.stop_reason,
        "cause": trial.cause,
        "error": trial.error,
        "excluded": trial.excluded,
    }
    row |= {f"params_{name}": value for name, value in trial.params.items()}
    row |= {f"numbers_{name}": value for name, value in trial.numbers.items()}
    return row | {f"config_{name}": value for name, value in trial.config.items() if name not in trial.params}


def _epochs(trials: Iterable[Trial]) -> Iterable[dict[str, Any]]:
    for trial in trials:
        for epoch in range(1, max(map(len, trial.curves.values()), default=0) + 1):
            reached = {name: curve[epoch - 1] for name, curve in trial.curves.items() if epoch <= len(curve)}
            yield {"trial": trial.number, "epoch": epoch} | {f"numbers_{name}": each for name, each in reached.items()}


def _table(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write rows under the names of all of them; groups of columns stay together, in the order of the first rows."""
    held = list(rows)
    names = list(dict.fromkeys(name for row in held for name in row))
    groups = list(dict.fromkeys(map(_group, names)))
    names.sort(key=lambda name: groups.index(_group(name)))
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(map(_cell, names or ["trial"]))
    writer.writerows([_cell(row.get(name)) for name in names] for row in held)
    return file.getvalue().encode("utf-8-sig")


def _group(name: str) -> str:
    prefix = name.partition("_")[0]
    return prefix if prefix in ("params", "numbers", "config") else ""


def _cell(value: Any) -> Any:
    """Return a number as it is, and a text so that no spreadsheet takes it for a formula."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
