"""The times of trials: Optuna stores them in UTC, and gives them in local time, both without a time zone."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the time as Optuna stores it."""
    return datetime.now(UTC).replace(tzinfo=None)


def local(stored: datetime | None) -> datetime | None:
    """Return a stored time as Optuna gives it."""
    return stored and stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
