"""The workers of a study: searching processes, the trials that each one claims, and their heartbeats.

Two tables beside Optuna's hold them. Each worker states after how long without a heartbeat it is dead, by the
database's clock. A running trial that no living worker claims is an orphan. Orphans are found under
`server_lock.one_at_a_time`, as trials are claimed.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, Connection, Float, Integer, String, Table, inspect, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ProgrammingError

from face3d_tune import __version__
from face3d_tune.errors import StudyError, StudyGoneError
from face3d_tune.storage import claims, taking
from face3d_tune.storage.answers import ask
from face3d_tune.storage.claims import Claim
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.questions import Question, ask_at_once, question
from face3d_tune.storage.server_lock import one_at_a_time

DEFAULT_SILENCE = 60.0  # seconds without a heartbeat after which a worker is dead
_BEATS = 6  # heartbeats in that time
_LAST_BEAT = 5.0  # seconds to wait at the end for a pending heartbeat
_FORGOTTEN = 24 * 3600.0  # seconds after which a dead worker is no longer listed

WORKERS = Table(
    "face3d_tune_workers",
    claims.tables,
    Column("worker", String(32), primary_key=True),
    Column("study_id", Integer, nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(64), nullable=False),
    Column("started", Float, nullable=False),  # seconds of the database's clock since 1970
    Column("seen", Float, nullable=False),
    Column("silence", Float, nullable=False),  # seconds
)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running trial without a living worker."""

    number: int
    trial_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as others see it."""

    host: str
    pid: int
    age: float  # seconds since it joined
    silent: float  # seconds since its last heartbeat
    alive: bool
    trials: tuple[int, ...]  # numbers of its claimed trials that run

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON."""
        return {**asdict(self), "trials": list(self.trials)}


class Worker:
    """This process among the workers of a study.

    Args:
        engine: The engine of the study's storage; missing tables are created.
        study_id: Optuna's.
        silence: Seconds without a heartbeat after which the others presume this worker dead.
        alone: Whether no other worker can be alive, as on SQLite with `Storage.searching`.

    Raises:
        StudyError: A living worker of this study has another version of face3d-tune.
    """

    def __init__(self, engine: Engine, study_id: int, *, silence: float = DEFAULT_SILENCE, alone: bool) -> None:
        self.name = uuid4().hex
        self.label = this_process()
        self.silence, self.interval = silence, silence / _BEATS
        self._engine, self._study_id, self._alone = engine, study_id, alone
        self._claims: dict[str, Claim] = {}  # by text
        self._past: set[str] = set()  # texts of claims that were forgotten
        self.joined = False  # whether it has sent a heartbeat
        try:
            versions = self._begin()
        except ProgrammingError:  # of a server, which has no tables of workers yet
            with one_at_a_time(engine):
                claims.tables.create_all(engine)
            versions = self._begin()
        self._last = versions[0][0]
        if not alone:
            _require_same(versions)
        # The network may be back for this worker first, so the others get time for a heartbeat.
        self._steady = self._last - silence + 2 * self.interval

    def _begin(self) -> list[tuple[float, str | None, str | None]]:
        """Return the time by the database's clock with host and version of each living worker, or with None; tidy."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
            if database.dialect.name == "sqlite":
                claims.tables.create_all(self._engine)
            now = _now(database)
            living = (
                f"select c.now, w.host, w.version from (select {now} as now) c left join "
                f"face3d_tune_workers w on w.study_id = {self._study_id:d} and c.now - w.seen <= w.silence"
            )
            rows, *_ = ask_at_once(database, living, *_tidying(now))
            return [(float(time), host, version) for time, host, version in rows]

    def beat(self) -> None:
        """Send a heartbeat; the first one, here or in an older copy of the database, joins."""
        now = self._sign()
        if now < self._last:
            with self._engine.begin() as database:
                database.execute(text(_forget_the_future(_now(database))))
        if self._is_late(now):
            self._steady = now
        self._last = now

    def _is_late(self, now: float) -> bool:
        """Tell whether this worker's heartbeat is late, or the clock was set back: that may affect the others too."""
        return not 0 <= now - self._last <= 2 * self.interval

    def _sign(self) -> float:
        """Store that this worker lives, and return the time by the database's clock."""
        if self._engine.dialect.name == "postgresql":
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as database:
                sign = f"update face3d_tune_workers set seen = {_now(database)} where worker = :me returning seen"
                row = database.execute(text(sign), {"me": self.name}).first() if self.joined else None
                return float(row[0]) if row else self._join(database)
        with self._engine.begin() as database:
            sign = f"update face3d_tune_workers set seen = {_now(database)} where worker = :me"
            if database.execute(text(sign), {"me": self.name}).rowcount:
                return clock(database)
            return self._join(database)

    def _join(self, database: Connection) -> float:
        self.joined = True
        sign = self._signature(database)
        if database.dialect.name == "postgresql":
            return float(database.execute(text(f"{sign.sql} returning seen"), sign.values).scalar_one())
        database.execute(text(sign.sql), sign.values)
        return clock(database)

    def _signature(self, database: Connection | Engine) -> taking.Sign:
        """Return what states that this worker lives, also in an older copy of the database, once it has joined."""
        values = {"worker": self.name, "study": self._study_id, "version": __version__, "silence": self.silence}
        values |= {"host": socket.gethostname(), "pid": os.getpid(), "joined": self.joined}
        return taking.Sign(
            "insert into face3d_tune_workers (worker, study_id, host, pid, version, started, seen, silence) "
            "select :worker, :study, :host, :pid, :version, now, now, :silence "
            f"from (select {_now(database)} as now) c where :joined "
            "on conflict (worker) do update set seen = excluded.seen",
            values,
        )

    @contextmanager
    def leaving_on_failure(self) -> Iterator[None]:
        """Deregister this worker if the block fails, e.g. because the slots of its search do not open."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # of the database, which may be the reason
                self.leave()
            raise

    def take(self, lock: Connection | None, waiting: int | None, attrs: Mapping[str, Any]) -> Claim | None:
        """Let a waiting trial, or else a new one, run, and claim it, as `taking.take`; call `keep` next.

        It counts as a heartbeat: a worker that slept would lose the trial at once.
        """
        return taking.take(self._engine, lock, self._study_id, waiting, self._signature(self._engine), attrs)

    def keep(self, claim: Claim) -> None:
        """Remember a claim that is stored."""
        self._claims[claim.text] = claim

    def release(self, trial_id: int) -> None:
        """Release the claim on a trial, whichever worker has it."""
        with self._engine.begin() as database:
            claims.release(database, trial_id)

    def take_away(self, trial_id: int) -> None:
        """Release the claim of a worker that is presumed dead."""
        with self._engine.begin() as database:
            claims.take_away(database, trial_id)

    def forget(self, claim: Claim) -> None:
        """Forget a trial that has ended, was reassigned or is gone."""
        self._claims.pop(claim.text, None)
        self._past.add(claim.text)

    def orphans(self, *soon: Question) -> list[Orphan]:
        """Return the running trials without a living worker; reliable only under `server_lock.one_at_a_time`.

        A server answers together with it what is asked `soon`.
        """
        return self.look(*soon)[0]

    def running(self) -> Question:
        """Return the question for the running trials, their claims and workers, on which `look` builds."""
        return question(
            "select t.number, t.trial_id, m.value_json, c.worker, w.host, w.pid, w.silence, w.seen, "
            f"{_now(self._engine)}, {_server_start(self._engine)} from studies s "
            "left join trials t on t.study_id = s.study_id and t.state = 'RUNNING' "
            f"left join trial_system_attributes m on m.trial_id = t.trial_id and m.key = '{claims.ATTR}' "
            "left join face3d_tune_claims c on c.trial_id = t.trial_id "
            "left join face3d_tune_workers w on w.worker = c.worker "
            "where s.study_id = :study order by t.number",
            lasting=False,
            study=self._study_id,
        )

    def look(self, *soon: Question) -> tuple[list[Orphan], list[Claim]]:
        """Return these trials, and the claims of this worker whose trials do not run any more."""
        known = dict(self._claims)
        found = ask(self._engine, self.running(), *soon)
        now, started = map(float, found[0][8:]) if found else (0.0, 0.0)
        started = started if started <= now else 0.0  # the database's clock was set back since
        steady = now if self._is_late(now) else self._steady
        rows = [row[:8] for row in found if row[1] is not None]
        orphans = []
        mine = {json.loads(row[2]) for row in rows if row[2] and row[3] == self.name}
        gone = [claim for claim in known.values() if claim.text not in mine]
        for number, trial_id, stored, owner, host, pid, silence, seen in rows:
            if owner == self.name:
                text_of_claim = json.loads(stored) if stored else None
                if text_of_claim in self._past:
                    orphans.append(Orphan(number, trial_id, "the storage lost its end"))
                elif text_of_claim not in self._claims:  # stored, but the answer of the database was lost
                    orphans.append(Orphan(number, trial_id, "the storage went away while it was claimed"))
            elif owner is None:
                orphans.append(Orphan(number, trial_id, "no worker claims it"))
            elif host is None:
                orphans.append(Orphan(number, trial_id, "its process ended without notice"))
            elif self._alone:  # this process has the lock of the file
                silent = f"{host}, process {pid}, no heartbeat for {max(0.0, now - seen):.0f} s"
                orphans.append(Orphan(number, trial_id, f"its process ended without notice ({silent})"))
            elif now - max(seen, started, steady) > silence:  # it ended, it sleeps, or the database is out of its reach
                silent = f"no heartbeat from its worker for {now - seen:.0f} s ({host}, process {pid})"
                orphans.append(Orphan(number, trial_id, silent))
        return orphans, gone

    def leave(self) -> None:
        """Deregister this worker; its claims become available."""
        with self._engine.begin() as database:
            database.execute(text("delete from face3d_tune_workers where worker = :me"), {"me": self.name})


class Heartbeat(threading.Thread):
    """The thread of a worker's further heartbeats; it calls `look_around` after each, and ends with the `with` block.

    After any error it tries again at the next beat: without heartbeats the worker would lose its trials. Errors other
    than an absent database are reported to `note`, once.
    """

    def __init__(self, worker: Worker, look_around: Callable[[], object], note: Callable[[str], object]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._worker, self._look_around, self._note = worker, look_around, note
        self._problems: set[str] = set()
        self._over = threading.Event()

    def __enter__(self) -> "Heartbeat":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(_LAST_BEAT)
        try:
            self._worker.leave()
        except Exception as error:
            if not is_away(error):
                raise

    def run(self) -> None:
        """Send heartbeats until the block ends."""
        while not self._over.wait(self._worker.interval):
            try:
                self._worker.beat()
                self._look_around()
            except Exception as error:
                problem = f"no heartbeat: {type(error).__name__}: {error}"
                by_the_search = is_away(error) or isinstance(error, StudyGoneError)  # the search itself reports these
                if not by_the_search and problem not in self._problems:
                    self._problems.add(problem)
                    self._note(problem)


def _require_same(versions: Iterable[tuple[float, str | None, str | None]]) -> None:
    for _, host, version in versions:
        if version not in (None, __version__):
            raise StudyError(
                f"a worker of this study on {host} is face3d-tune {version}, this is {__version__}",
                "install one version on all machines",
            )


def _tidying(now: str) -> Sequence[str]:
    """Return the SQL that deletes workers that died long ago and claims on ended trials, and forgets the future."""
    return (
        f"delete from face3d_tune_workers where {now} - seen > {_FORGOTTEN}",
        "delete from face3d_tune_claims where trial_id not in (select trial_id from trials where state = 'RUNNING')",
        _forget_the_future(now),
    )


def _forget_the_future(now: str) -> str:
    """Return the SQL that forgets times in the future, after the clock was set back.

    A dead worker would count as alive until the clock has caught up.
    """
    return f"update face3d_tune_workers set seen = {now} where seen > {now}"


def this_process() -> str:
    """Return how this process is called as a worker: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def read_workers(engine: Engine, study_id: int) -> list[WorkerRow]:
    """Return the workers of a study, the first to join first; none if no search of it ever used heartbeats."""
    if not inspect(engine).has_table("face3d_tune_workers"):
        return []
    with engine.connect() as database:
        now = clock(database)
        rows = database.execute(
            text(
                "select worker, host, pid, started, seen, silence from face3d_tune_workers "
                "where study_id = :study order by started, worker"
            ),
            {"study": study_id},
        ).all()
        claims = database.execute(
            text(
                "select c.worker, t.number from face3d_tune_claims c join trials t on t.trial_id = c.trial_id "
                "where t.study_id = :study and t.state = 'RUNNING' order by t.number"
            ),
            {"study": study_id},
        ).all()
    return [
        WorkerRow(host, pid, max(0.0, now - started), max(0.0, now - seen), now - seen <= silence, _of(worker, claims))
        for worker, host, pid, started, seen, silence in rows
    ]


def _of(worker: str, claims: Collection[tuple[str, int]]) -> tuple[int, ...]:
    return tuple(number for owner, number in claims if owner == worker)


def _now(database: Connection | Engine) -> str:
    """Return the SQL for seconds since 1970 by the database's clock."""
    if database.dialect.name == "postgresql":
        return "extract(epoch from clock_timestamp())"
    return "((julianday('now') - 2440587.5) * 86400.0)"


def clock(database: Connection) -> float:
    """Return seconds since 1970 by the database's clock."""
    return float(database.execute(text(f"select {_now(database)}")).scalar_one())


def _server_start(database: Connection | Engine) -> str:
    """Return the SQL for when the server started: no heartbeat could arrive before that."""
    return "extract(epoch from pg_postmaster_start_time())" if database.dialect.name == "postgresql" else "0.0"
