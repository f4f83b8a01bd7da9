"""psycopg with connections that wait for the server for a bounded time.

A peer that acknowledges every packet and says nothing, such as a tunnel whose far end is gone, looks well to TCP. A
worker would wait for ever.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

from face3d_tune.errors import StorageError
from face3d_tune.storage.few_round_trips import cursors_of
from face3d_tune.system import signals

SILENCE = 15.0  # seconds; the longest that a healthy server says nothing is `server_lock._LOCK_TRY`
_HURRIED = 2.0  # the same after a second signal to end; libpq takes no shorter time to connect


def driver() -> Any:
    """Return what SQLAlchemy takes for psycopg. Raises ImportError where the optional psycopg is not installed.

    To connect to a database without an encoding raises StorageError.
    """
    return _around(import_module("psycopg"))


@cache
def _around(psycopg: Any) -> Any:
    whole, piecewise = cursors_of(psycopg)

    class Connection(psycopg.Connection):  # type: ignore[misc]
        """A connection that closes, with an OperationalError, when the server says nothing for `SILENCE` seconds.

        Its cursors begin transactions, not psycopg, to which each statement stands alone.

        Attributes:
            autocommit: Whether SQLAlchemy wants no transactions.
        """

        autocommit = False

        @classmethod
        def connect(cls, *args: Any, **options: Any) -> Any:
            if signals.hurried():
                options["connect_timeout"] = int(_HURRIED)
            connection = super().connect(*args, autocommit=True, cursor_factory=whole, **options)
            connection.server_cursor_factory = piecewise
            if connection.info.parameter_status("server_encoding") == "SQL_ASCII":  # psycopg then gives bytes for text
                name = connection.info.dbname
                connection.close()
                raise StorageError(
                    f"database {name!r} has the encoding SQL_ASCII, which cannot hold text",
                    "make one in UTF8: createdb --encoding UTF8 --template template0 NAME",
                )
            return connection

        def filled(self, query: str, values: Mapping[str, Any]) -> str:
            """Return a query with its values, for a text of several, which take none."""
            return str(psycopg.ClientCursor(self).mogrify(query, values))

        def __del__(self) -> None:
            """Close it: Optuna forgets the connections of a storage whose tables it could not make."""
            with suppress(Exception):
                self.close()

        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            """Run one exchange with the server to its end; psycopg calls this for each."""
            return super().wait(self._listening(gen), *args, **options)

        def _listening(self, exchange: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            """Tell an exchange what psycopg says: that the socket is ready or, ten times a second, that it is not."""
            heard = time.monotonic()
            try:
                wanted = next(exchange)
                while True:
                    ready = yield wanted
                    if ready:
                        heard = time.monotonic()
                    elif time.monotonic() - heard > (silence := _HURRIED if signals.hurried() else SILENCE):
                        self.close()
                        raise psycopg.OperationalError(f"the server has said nothing for {silence:.0f} s")
                    wanted = exchange.send(ready)
            except StopIteration as end:
                return end.value

    class Module:
        connect = staticmethod(Connection.connect)

        def __getattr__(self, name: str) -> Any:
            return getattr(psycopg, name)

    return Module()
