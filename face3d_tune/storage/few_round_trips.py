"""What PostgreSQL is asked beside the questions themselves: as little as can be, for a server may be far away.

A transaction begins with its first write, in one journey with it: what is only read needs none, since every statement
sees what is committed when it begins. A connection is tried before its use only after a long rest; that the server has
closed it shows without asking. SQLAlchemy asks nothing of a new connection that the connection itself knows.
"""

import logging
import re
import select
import time
from contextlib import nullcontext
from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DisconnectionError

DRIVER = "postgresql+face3d"  # of an engine with this dialect
_BEGIN = "begin isolation level read committed"  # whatever a database or a role has for a default
_RESTED = 30.0  # seconds without use after which a connection is tried: on the way it may have been forgotten
_READS = re.compile(r"\s*(select|show|with)\b", re.IGNORECASE).match
_IGNORED = re.compile(r"error ignored terminating").match
_WRITES = re.compile(r"\bfor\s+(update|share|no\s+key)|\b(insert|update|delete|set_config|nextval)\b|advisory", re.I)


class Dialect(PGDialect_psycopg):
    """psycopg's dialect without questions to a new connection."""

    supports_statement_cache = True

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        version: int = connection.connection.driver_connection.info.server_version
        return divmod(version, 10_000)

    def _get_default_schema_name(self, connection: Any) -> Any:
        return None  # tables are looked for along the search path

    def _set_backslash_escapes(self, connection: Any) -> None:
        self._backslash_escapes = False  # as every server does unless it is told otherwise

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the level that every server has unless it is told otherwise."""
        return "READ COMMITTED"


registry.register("postgresql.face3d", __name__, "Dialect")


def cursors_of(psycopg: Any) -> tuple[Any, Any]:
    """Return the classes of `bounded_psycopg`'s cursors, which begin no transaction for what is only read.

    The second one reads its rows piece by piece, for which a server wants a transaction.
    """
    logging.getLogger("psycopg").addFilter(_says_more)
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # else it prints tracebacks of lost connections

    class Cursor(psycopg.Cursor):  # type: ignore[misc]
        """A cursor that lets a transaction begin with its first write."""

        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            """Begin a transaction only for what writes, and then without waiting for that."""
            begin = self._begin(query)
            if ";" in str(query) and not any(args):  # several commands, which neither a pipeline nor `prepare` takes
                query = str(query).replace("%%", "%") if args else query  # as psycopg does for empty values
                super().execute(f"{begin}; {query}" if begin else query, prepare=False, **options)
                if begin:
                    self.nextset()  # past BEGIN
                return self
            if begin is None:
                return super().execute(query, *args, **options)
            with self.connection.pipeline() if psycopg.Pipeline.is_supported() else nullcontext():
                super().execute(begin)
                super().execute(query, *args, **options)
            return self

        def executemany(self, query: Any, *args: Any, **options: Any) -> None:
            """Do the same for a statement with several rows of values."""
            if begin := self._begin(query):
                super().execute(begin)
            super().executemany(query, *args, **options)

        def _begin(self, query: Any) -> str | None:
            """Return the command that begins a transaction for a statement; None if it needs none."""
            begin = _begin(self.connection)
            return None if begin == _BEGIN and only_reads(query) else begin

    class PiecewiseCursor(psycopg.ServerCursor):  # type: ignore[misc]
        """A cursor that begins its transaction."""

        def execute(self, *args: Any, **options: Any) -> Any:
            """Begin a transaction for what is only read, too."""
            if begin := _begin(self.connection):
                psycopg.Cursor(self.connection).execute(begin)
            return super().execute(*args, **options)

    def _begin(connection: Any) -> str | None:
        """Return the command that begins a transaction; None if there is one, or none is wanted."""
        if connection.autocommit or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return None
        level = connection.isolation_level
        usual = level in (None, psycopg.IsolationLevel.READ_COMMITTED)
        return _BEGIN if usual else f"begin isolation level {level.name.replace('_', ' ')}"

    return Cursor, PiecewiseCursor


def _says_more(record: logging.LogRecord) -> bool:
    """Tell whether a line of psycopg says more than that a lost connection was lost, which its error says."""
    return not _IGNORED(str(record.msg))


def only_reads(query: object) -> bool:
    """Tell whether a statement changes nothing and locks nothing."""
    return isinstance(query, str) and bool(_READS(query)) and not _WRITES.search(query)


def _readable(number: int) -> bool:
    """Tell whether a socket has something to read, or its end."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()  # takes numbers of any size
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


def _rest(_: Any, record: Any) -> None:
    record.info["rests_since"] = time.monotonic()


def _look(connection: Any, record: Any, _: Any) -> None:
    """Raise DisconnectionError, which gets a new connection, if this one is closed, or does not answer after a rest.

    The first statement shows whether a new one is closed: SQLAlchemy takes two closed ones for a mistake of the caller.
    """
    if (rests_since := record.info.get("rests_since")) is None:
        return
    try:
        while _readable(connection.fileno()):
            connection.pgconn.consume_input()
        if time.monotonic() - rests_since > _RESTED:
            connection.execute("select 1")
    except Exception as error:  # psycopg, select and a closed socket differ: whatever it is, a new connection is right
        raise DisconnectionError from error


POOL_EVENTS = [(_rest, "checkin"), (_look, "checkout")]
