"""A storage whose queries fail soon where another program has locked what they need: for a server with visitors."""

from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import event

from face3d_tune.storage.sqlite_file import patience

_LOCKED = 1.0  # seconds for which one query waits for a lock


def wait_briefly(storage: RDBStorage) -> None:
    """Let every connection that a storage makes from now on wait for a second where it would wait for a minute."""
    engine = storage.engine

    def of_sqlite(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        options |= patience(str(engine.url.database), _LOCKED)

    def of_postgresql(connection: Any, record: Any) -> None:
        connection.execute(f"set lock_timeout = {1000 * _LOCKED:.0f}")  # milliseconds
        connection.commit()

    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", of_sqlite)
    else:
        event.listen(engine, "connect", of_postgresql)
        engine.dispose()  # connections of before would wait
