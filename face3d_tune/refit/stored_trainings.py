"""The trainings that a confirmation needs. Each is stored with the study as soon as it ends.

So a crash loses only those in progress, and the same command trains only what is missing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import optuna
from optuna.storages import RDBStorage

from face3d_tune.errors import TrainingError
from face3d_tune.refit.candidates import Candidate
from face3d_tune.refit.script_candidates import ScriptCandidate
from face3d_tune.storage.retry import DEFAULT_TIMEOUT, DatabaseRetry
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.presence import still_present

STORED = "confirm:"  # prefix of a study's user attributes: one finished training each

Record = Mapping[str, Any]  # of a finished training; `error` instead of numbers if they became NaN or infinite
Row = Mapping[str, Any]  # of a candidate, as a confirmation stores it


class StoredJob(Protocol):
    """A training to store: `refit.retrain.Job` or `refit.script_confirm.ScriptJob`."""

    @property
    def key(self) -> str:
        """Return the key of the user attribute with its result."""


AnyJob = TypeVar("AnyJob", bound=StoredJob)


class StoredTrainings(Generic[AnyJob]):
    """The trainings of a study that a confirmation needs, and those stored already.

    Args:
        study: A study with at least one completed trial.
        storage: The study's storage.
        jobs: All trainings; an early end treats all candidates alike if each seed follows the one before.
        note: Receives lines for the user.
    """

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, jobs: Sequence[AnyJob], note: Callable[[str], object]
    ) -> None:
        self.study, self.jobs = study, jobs
        self._storage, self._own = storage, StudyAttr.id.get(study.user_attrs)
        self._database_retry = DatabaseRetry(DEFAULT_TIMEOUT, note)
        attrs = study.user_attrs
        self.records: dict[str, Record] = {job.key: attrs[job.key] for job in jobs if job.key in attrs}

    @property
    def missing(self) -> list[AnyJob]:
        """Return the trainings that are not stored, in order."""
        return [job for job in self.jobs if job.key not in self.records]

    def _store(self, job: AnyJob, record: Record) -> None:
        """Store a record; retry while the database is away."""

        def store() -> None:
            with still_present(self.study, self._own, self._storage.engine):
                self.study.set_user_attr(job.key, record)

        self._database_retry.insist(store)
        self.records[job.key] = record


def key_of(what: Any) -> str:
    """Return the key of a training from all that it depends on, as JSON."""
    return f"{STORED}{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]}"


def row_of(candidate: Candidate | ScriptCandidate, records: Sequence[Record]) -> dict[str, Any]:
    """Return what a confirmation stores of any candidate; `error` says why one has no numbers."""
    return {
        "name": candidate.name,
        "trial": candidate.trial,
        "preset": candidate.preset,
        "aliases": list(candidate.aliases),
        "value": candidate.value,
        "error": next((record["error"] for record in records if "error" in record), None),
        "pruned": candidate.pruned,
    }


def trained_trials(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of trials that have numbers, best in the study first. Raises TrainingError if there is none."""
    trials = [row for row in rows if not row["preset"] and row["error"] is None]
    if not trials:
        raise TrainingError(f"no trial could be trained again: {rows[0]['error']}", "try more with --top")
    return trials


def headline(presets: Sequence[Row], best: Row | None, name: str | None) -> dict[str, Any]:
    """Return what a confirmation stores of the preset to compare with first: the one of that name, or else the best."""
    first = next((row for row in presets if name in (row["name"], *row["aliases"])), best)
    return {"headline": None if first is None else first["name"], "headline_is_best": first is best}
