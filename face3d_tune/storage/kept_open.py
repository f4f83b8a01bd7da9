"""Connections to servers that stay open while a command runs, for further use.

Each new connection asks and answers three to five times before the first question.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from weakref import WeakKeyDictionary

from sqlalchemy.engine import URL, Connection, Engine

_engines: dict[URL, Engine] = {}
_with_tables: set[URL] = set()  # servers where the tables of this version were found
_returning: WeakKeyDictionary[Engine, set[threading.Thread]] = WeakKeyDictionary()  # connections on their way
_blocks = 0


@contextmanager
def kept_open() -> Iterator[None]:
    """Keep the connections to servers open until the block ends, in all threads."""
    global _blocks
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        if not _blocks:
            while _engines:
                _dispose(_engines.popitem()[1])
            _with_tables.clear()


def engine_for(url: URL, make: Callable[[], Engine]) -> Engine:
    """Return the engine that is kept for a server, or a new one, which is kept inside of `kept_open`."""
    if known := _engines.get(url):
        return known
    engine = make()
    if _blocks:
        _engines[url] = engine
        threading.Thread(target=_connect_ahead, args=(engine,), daemon=True).start()
    return engine


def let_go(engine: Engine) -> None:
    """Close the connections of an engine that is not kept."""
    if engine not in _engines.values():
        _dispose(engine)


def give_back(connection: Connection) -> None:
    """End the transaction of a connection, and return it to its engine, without waiting for the server's answer."""
    thread = threading.Thread(target=_close, args=(connection,), daemon=True)
    _returning.setdefault(connection.engine, set()).add(thread)
    thread.start()


def _close(connection: Connection) -> None:
    engine = connection.engine
    with suppress(Exception):  # of a server that is away, which ends the transaction itself
        connection.close()
    _returning.get(engine, set()).discard(threading.current_thread())


def _dispose(engine: Engine) -> None:
    for thread in _returning.pop(engine, set()).copy():
        thread.join()
    engine.dispose()


def tables_were_found(url: URL) -> bool:
    """Tell whether the tables of this version were found on a server before."""
    return url in _with_tables


def note_tables(url: URL) -> None:
    """Take note, inside of `kept_open`, that the tables of this version are there."""
    if _blocks:
        _with_tables.add(url)


def _connect_ahead(engine: Engine) -> None:
    """Make the second connection, for the lock, while the first one is made; its first use shows why it fails."""
    with suppress(Exception):
        engine.connect().close()
