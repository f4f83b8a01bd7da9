"""A stop of a search that a person asks for: stored with the study, so that every worker of it ends.

A worker obeys the requests that come after it began. The next run marks an older one as over, and leaves it for
workers that have not seen it yet.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import optuna
from sqlalchemy.engine import Engine

from face3d_tune.storage.optuna_internals import change_study_attr, stored_attr
from face3d_tune.study.attrs import StoredStop, StudyAttr
from face3d_tune.system import person, signals
from face3d_tune.system.pace import Pace


@dataclass(frozen=True, slots=True)
class Stop:
    """A request: who asked, when, and whether running epochs are cut off."""

    id: str
    by: str
    at: str  # UTC, as ISO 8601 to the second
    now: bool
    over: bool = False  # a later run has begun

    @classmethod
    def of(cls, attrs: Any) -> "Stop | None":
        """Return the request that a study's attributes hold, if any."""
        stored = StudyAttr.stop.get(attrs)
        return cls(**stored) if stored else None

    def to_attr(self) -> StoredStop:
        """Return it as a study stores it."""
        return {"id": self.id, "by": self.by, "at": self.at, "now": self.now, "over": self.over}

    def __str__(self) -> str:
        return f"stopped by {self.by} at {self.at}"


def request_stop(study: optuna.Study, *, now: bool, by: str | None = None) -> Stop:
    """Ask every worker of the study to stop, and return the request. `by` is this user on this host unless given."""
    stop = Stop(uuid4().hex, by or person.person(), person.now(), now)
    study.set_user_attr(StudyAttr.stop.key, stop.to_attr())
    return stop


class StopWatch:
    """The look of one worker at the requests to stop its study.

    Attributes:
        seen: The request that came after this worker began; None if there is none yet.
    """

    def __init__(self, study: optuna.Study, engine: Engine) -> None:
        self._study, self._engine = study, engine
        self._before = Stop.of(study.user_attrs)
        self._pace = Pace()
        self.seen: Stop | None = None

    def begin(self, note: Callable[[str], object]) -> None:
        """Mark an earlier request as over, and say so."""
        if self._before is None or self._before.over:
            return
        before, over = self._before.to_attr(), replace(self._before, over=True).to_attr()
        key = StudyAttr.stop.key  # another run may have marked it, or a person asked anew
        if change_study_attr(self._engine, self._study, key, lambda stored: over if stored == before else stored):
            note(f"the search was stopped by {self._before.by} at {self._before.at}; it goes on")

    def look(self) -> Stop | None:
        """Look into the database, and return the request to stop, if any."""
        if self.seen is None:
            stop = self._read()
            if stop is not None and stop.id != getattr(self._before, "id", None):
                self.seen = stop
        return self.seen

    def look_sometimes(self) -> Stop | None:
        """Do the same, at most once a second: the loop asks after every epoch."""
        if self.seen is None and self._pace.due():
            with self._pace.looking():
                self.look()
        return self.seen

    def look_from_heartbeat(self) -> None:
        """Look while an epoch trains, and cut it off if the request says so."""
        if self.seen is None and (stop := self.look()) and stop.now:
            signals.cut_off()

    def _read(self) -> Stop | None:
        found = stored_attr(self._engine, self._study, StudyAttr.stop.key)
        return None if found is None else Stop(**found)
