"""Trainings to their end as one small file, written by `benchmarks.curves`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from face3d_tune.study import study_file
from face3d_tune.study.study_file import StudyFile

PACKED = Path(__file__).parent / "curves.npz"
EPOCHS = 100
METRICS = {"cosine": 1e-6, "mse": 1e-8, "identity": 1e-6}  # of the validation people; what a packed number counts
_LATER = "identity"  # older records lack it


@dataclass(frozen=True, slots=True)
class Curves:
    """The packed records, in rows. A row of a training that diverged ends with NaN."""

    ids: list[str]
    params: list[dict[str, Any]]  # what differs from the script's defaults, and more
    seeds: list[int]
    folds: list[int]
    errors: list[str | None]
    cosine: np.ndarray  # [rows, EPOCHS], of the validation people after each epoch
    mse: np.ndarray  # [rows, EPOCHS]
    identity: np.ndarray  # [rows, EPOCHS]; NaN where an older record lacks it

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, *, of_identity: bool = False) -> list[int]:
        """Return the rows of the part `identity`, or those of all other parts.

        The two are never mixed, so what was measured on the others stays as it is.
        """
        return [i for i, id in enumerate(self.ids) if id.startswith("identity-") == of_identity]


def pack(records: Sequence[Mapping[str, Any]], path: Path = PACKED) -> None:
    """Write records as one small file: differences between epochs as whole numbers, which compress well."""
    described = [{key: r[key] for key in ("id", "params", "seed", "fold", "error")} for r in records]
    np.savez_compressed(
        path,
        records=np.frombuffer(json.dumps(described).encode(), dtype=np.uint8),
        epochs=np.array([len(r["cosine"]) for r in records], dtype=np.int16),
        identity_epochs=np.array([len(r.get(_LATER, ())) for r in records], dtype=np.int16),
        **{name: _differences([r.get(name, ()) for r in records], unit) for name, unit in METRICS.items()},
    )


def _differences(rows: Sequence[Sequence[float]], unit: float) -> np.ndarray:
    """Whole multiples of `unit`, [rows, EPOCHS], each epoch less the one before; a short row ends in zeros."""
    whole = np.zeros((len(rows), EPOCHS), dtype=np.int64)
    for line, row in zip(whole, rows, strict=True):
        line[: len(row)] = np.rint(np.minimum(row, 2**29 * unit) / unit)
        line[len(row) :] = line[len(row) - 1] if row else 0
    return np.diff(whole, axis=1, prepend=0).astype(np.int32)


def study_of(name: str) -> StudyFile:
    """Return a built-in study file with the space that its trainings fill.

    `inputs` joined the spaces of `default` and `explore` after these had been trained; `identity` always had it.
    """
    file = study_file.read(name)
    if name == "identity":
        return file
    return replace(file, space={name: row for name, row in file.space.items() if name != "inputs"})


def read(path: Path = PACKED) -> Curves:
    """Return the packed records. Raises SystemExit if there is no such file."""
    if not path.exists():
        raise SystemExit(f"{path}: no such file; `python -m benchmarks.curves pack` makes one")
    with np.load(path) as held:
        described = json.loads(held["records"].tobytes())
        curves = {name: np.full((len(described), EPOCHS), np.nan) for name in METRICS}
        for name in curves.keys() & set(held.files):
            whole = held[name].astype(np.int64).cumsum(axis=1) * METRICS[name]
            epochs = held["identity_epochs" if name == _LATER else "epochs"]
            curves[name] = np.where(np.arange(EPOCHS) < epochs[:, None], whole, np.nan)
    return Curves(
        ids=[d["id"] for d in described],
        params=[d["params"] for d in described],
        seeds=[d["seed"] for d in described],
        folds=[d["fold"] for d in described],
        errors=[d["error"] for d in described],
        **curves,
    )


def unpacked(path: Path) -> Iterator[dict[str, Any]]:
    """Return the records that were packed."""
    curves = read(path)
    for i, id in enumerate(curves.ids):
        described = {"params": curves.params[i], "seed": curves.seeds[i], "fold": curves.folds[i]}
        rows = {name: getattr(curves, name)[i] for name in METRICS}
        yield {"id": id, "error": curves.errors[i], **described} | {
            name: row[~np.isnan(row)].tolist() for name, row in rows.items()
        }


def at(row: BaseDistribution, u: float) -> Any:
    """Return the value of a distribution at `u` in [0, 1)."""
    if isinstance(row, CategoricalDistribution):
        return row.choices[min(int(u * len(row.choices)), len(row.choices) - 1)]
    if isinstance(row, IntDistribution):
        return min(row.low + int(u * (row.high - row.low + 1)), row.high)
    if row.log:
        return math.exp(math.log(row.low) + u * (math.log(row.high) - math.log(row.low)))
    return row.low + u * (row.high - row.low)
