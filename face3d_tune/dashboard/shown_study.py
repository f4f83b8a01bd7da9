"""One study that visitors look at, with a lock of its own: visitors of another study do not wait for it."""

import threading
import time
from collections.abc import Callable

from optuna.storages import BaseStorage

from face3d_tune.dashboard.gzip_pieces import Piece
from face3d_tune.dashboard.study_additions import StudyAdditions
from face3d_tune.dashboard.study_answer import StudyAnswer
from face3d_tune.storage.optuna_internals import fill_cache

FRESH = 5.0  # seconds for which additions are reused, at least
_SHARE = 20  # and this many times the seconds of working them out: at most a twentieth of one core
SLOW = 0.2  # seconds of working them out for which no visitor waits, if there are some already


class ShownStudy:
    """The answer on a study, and the additions to it.

    Args:
        storage: Optuna's cache of the storage.
        study_id: Of the study.
        work_out: Works the additions out.
    """

    def __init__(self, storage: BaseStorage, study_id: int, work_out: Callable[[int], StudyAdditions]) -> None:
        self._storage, self._study_id, self._work_out = storage, study_id, work_out
        self._answer = StudyAnswer(storage, study_id)
        self._lock = threading.RLock()
        self._additions: StudyAdditions | None = None
        self._stale_at = self._seconds = 0.0
        self._changes = 0
        self._last: tuple[float, int, list[Piece] | None] | None = None  # when it was begun, first trial, answer

    def read(self) -> None:
        """Read the trials, if they were never read: Optuna's cache answers on other studies meanwhile."""
        with self._lock:
            fill_cache(self._storage, self._study_id)

    def prepare(self) -> None:
        """Make the answer before a visitor asks, who then gets additions of that moment."""
        with self._lock:
            self.read()
            self.pieces(0)
            self._stale_at = 0.0

    def pieces(self, after: int) -> list[Piece] | None:
        """Return the answer with the trials from number `after` on, as `StudyAnswer.pieces` does.

        Visitors who wait for the same answer share the next one, which is begun after they came.
        """
        came = time.monotonic()
        with self._lock:
            if self._last is None or self._last[0] <= came or self._last[1] != after:
                began = time.monotonic()
                self._last = began, after, self._answer.pieces(after, self.additions())
            return self._last[2]

    def additions(self) -> StudyAdditions:
        """Return the additions; stale ones are worked out again, behind the visitor's back if that takes long."""
        with self._lock:
            known, changes = self._additions, self._changes
            if known is None or (self._stale_at < time.monotonic() and self._seconds < SLOW):
                known = self._additions = self._timed()
                if self._changes != changes:  # meanwhile
                    self._additions = None
            elif self._stale_at < time.monotonic():
                self._stale_at = float("inf")  # until the thread ends
                threading.Thread(target=self._replace, args=[known], daemon=True).start()
            return known

    def forget(self) -> None:
        """Work the additions out again at the next request: the study has just been changed."""
        self._changes += 1
        self._additions = None

    def _timed(self) -> StudyAdditions:
        started = time.monotonic()
        additions = self._work_out(self._study_id)
        ended = time.monotonic()
        self._seconds = ended - started
        self._stale_at = ended + max(FRESH, _SHARE * self._seconds)
        return additions

    def _replace(self, stale: StudyAdditions) -> None:
        """Replace the additions, unless the study was changed meanwhile."""
        try:
            additions = self._timed()
        except Exception:  # the storage does not answer, which the next visitor is told
            self._stale_at = time.monotonic() + FRESH
            return
        with self._lock:
            if self._additions is stale:
                self._additions = additions
