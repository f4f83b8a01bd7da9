"""Errors of a database: whether it is away for now, and one line with a hint for a person. No text has its password."""

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    PendingRollbackError,
    ResourceClosedError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from face3d_tune.errors import StorageError
from face3d_tune.storage.optuna_internals import NO_RECORD
from face3d_tune.system.safe_text import redact

_NO_RIGHT = "42501"  # PostgreSQL's code for a missing right


@contextmanager
def explained(storage: str, *, sqlite: bool, user: str | None) -> Iterator[None]:
    """Turn an error of a driver or of Optuna into one line about this storage, which `user` opens."""
    try:
        yield
    except StorageInternalError as error:  # Optuna's wrapper of a driver's error; its own text misleads
        cause = error.__cause__
        reason = reason_of(cause) if isinstance(cause, DBAPIError) else "the database failed"
        raise StorageError(f"storage {storage} failed: {reason}", _hint(cause, sqlite, user)) from error
    except KeyError as error:
        if error.args != (NO_RECORD,):
            raise
        raise StorageError(
            f"storage {storage}: what was being read there has been deleted", "run the same command again"
        ) from error
    except OperationalError as error:
        raise StorageError(
            f"storage {storage} cannot be reached: {reason_of(error)}", _hint(error, sqlite, user)
        ) from error
    except DBAPIError as error:
        hint = rights(user) if _lacks_rights(error) else None
        raise StorageError(f"storage {storage} cannot be used: {reason_of(error)}", hint) from error


def _hint(error: BaseException | None, sqlite: bool, user: str | None) -> str:
    if error is not None and _lacks_rights(error):
        return rights(user)
    if sqlite and "locked" in str(error):
        return "close what has the file open (a database viewer, a backup, a copy), and try again"
    if sqlite:
        return "check the path, and that the file and its folder may be written"
    return "check that the server runs, and host, port, user, password and database name"


def rights(user: str | None) -> str:
    """Return the hint with the rights that a search needs."""
    user = user or "USER"
    return (
        f"its owner can grant usage, create on schema public to {user}; "
        f"grant all on all tables in schema public to {user}; grant all on all sequences in schema public to {user}"
    )


def is_away(error: BaseException) -> bool:
    """Tell whether the database is away for now: down, restarting, full, locked or read-only.

    The caller may retry then. An error in the request is not one of these.
    """
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError) and (cause.connection_invalidated or type(cause) is DatabaseError):
        return True  # libpq has no class of its own for an answer that is cut in half
    return isinstance(cause, _AWAY)


# The last two: Optuna swallows the error of a long query and asks again in the transaction that it broke, which
# SQLAlchemy refuses.
_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout, PendingRollbackError, ResourceClosedError)


def was_refused(error: BaseException) -> bool:
    """Tell whether no connection was made at all: psycopg's error then has the connection that it attempted."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return getattr(getattr(cause, "orig", None), "pgconn", None) is not None


def _lacks_rights(error: BaseException) -> bool:
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _NO_RIGHT


def reason_of(error: BaseException) -> str:
    """Return the first line of the driver's message, with any password removed."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    message = str(cause.orig if isinstance(cause, DBAPIError) else cause)
    return redact(next(iter(message.strip().splitlines()), type(cause).__name__))
