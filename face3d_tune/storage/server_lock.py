"""The lock of a whole PostgreSQL database, which one worker has while it changes the trials of a study."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from face3d_tune.storage.answers import answers_of
from face3d_tune.storage.kept_open import give_back
from face3d_tune.storage.questions import Question, Rows, ask_at_once

_LOCK_WAIT = 600  # seconds to wait for other workers to release the lock
_LOCK_TRY = 10  # seconds of it in one question, less than `bounded_psycopg.SILENCE`
_LOCK_HELD = "55P03"  # PostgreSQL's code for a lock that was not released in time
_FROZEN = 30  # seconds without a heartbeat while a worker blocks the others from asking and telling
_LOCK_KEY = 0x6661636533640000  # "face3d": ours among all users of the server's advisory locks

_in_this_process = threading.RLock()  # else one thread could wait for the server's lock on the other's connection


@contextmanager
def one_at_a_time(engine: Engine, ahead: Callable[[], Sequence[Question]] = tuple) -> Iterator[Connection | None]:
    """Keep other processes out of the same block on the same PostgreSQL database; on SQLite `searching` does that.

    A server answers the questions of `ahead` in one journey with the lock, and their answers are good until the block
    ends.

    The block receives the connection with the lock. The server releases it when the transaction or the connection ends,
    for any reason. It also ends the connection of a process that was frozen in the block, so what is written on this
    connection is not stored then, and `is_away` recognises the error. None on SQLite.
    """
    with _in_this_process:
        if engine.dialect.name != "postgresql":
            yield None
            return
        connection = engine.connect()
        try:
            with answers_of(engine).held(_lock(connection, ahead())):
                yield connection
        finally:
            give_back(connection)  # the block's work is already stored


def _lock(connection: Connection, ahead: Sequence[Question]) -> dict[Question, Rows]:
    """Take the lock of the whole database until the transaction ends; return the answers to these questions."""
    until = time.monotonic() + _LOCK_WAIT
    lock = (
        f"select set_config('idle_in_transaction_session_timeout', '{_FROZEN}s', true), "
        f"set_config('lock_timeout', '{_LOCK_TRY}s', true), pg_advisory_xact_lock({_LOCK_KEY})"
    )
    while True:
        try:
            _, *answers = ask_at_once(connection, lock, *(each.filled(connection) for each in ahead))
            return dict(zip(ahead, answers, strict=True))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_HELD or time.monotonic() > until:
                raise
            connection.rollback()
