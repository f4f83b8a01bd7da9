"""The lock of a whole PostgreSQL database, which one worker has while it changes the trials of a study."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from sqlalchemy import Connection, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

_LOCK_WAIT = 600  # seconds to wait for other workers to release the lock
_LOCK_TRY = 10  # seconds of it in one question, less than `bounded.SILENCE`
_LOCK_HELD = "55P03"  # PostgreSQL's code for a lock that was not released in time
_FROZEN = 30  # seconds without a heartbeat while a worker blocks the others from asking and telling
_LOCK_KEY = 0x6661636533640000  # "face3d": ours among all users of the server's advisory locks

_in_this_process = threading.RLock()  # else one thread could wait for the server's lock on the other's connection


@contextmanager
def one_at_a_time(engine: Engine) -> Iterator[Callable[[], object]]:
    """Keep other processes out of the same block on the same PostgreSQL database; on SQLite `searching` does that.

    The server releases the lock when the connection ends, for any reason. It also ends the connection of a process that
    was frozen in the block. The rest of the block then fails by itself, or calls the function
    that the block receives, which raises an error that `is_away` recognises.
    """
    with _in_this_process:
        if engine.dialect.name != "postgresql":
            yield lambda: None
            return
        with ExitStack() as stack:
            connection = stack.enter_context(engine.connect())
            _lock(connection)
            try:
                yield lambda: connection.execute(text("select 1"))
            finally:
                with suppress(DBAPIError):  # the block's work is already stored
                    connection.rollback()
                    stack.close()


def _lock(connection: Connection) -> None:
    """Take the lock of the whole database until the transaction ends."""
    until = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            connection.execute(
                text(
                    "select set_config('idle_in_transaction_session_timeout', :frozen, true), "
                    "set_config('lock_timeout', :patience, true), pg_advisory_xact_lock(:key)"
                ),
                {"frozen": f"{_FROZEN}s", "patience": f"{_LOCK_TRY}s", "key": _LOCK_KEY},
            )
            return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_HELD or time.monotonic() > until:
                raise
            connection.rollback()
