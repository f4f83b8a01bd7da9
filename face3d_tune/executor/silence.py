"""How long a training has given no epoch, which is how a hang shows."""

import time
from collections.abc import Callable

_MOST = 10.0  # seconds that one look may add: an owner that looked less often may have been stopped itself


class Silence:
    """The time without an epoch, against a limit in seconds; None: no limit.

    Its owner looks about once a second. Time in which the owner was stopped, or waited for a database, hardly counts.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self.heard()

    def heard(self) -> None:
        """Begin to count anew: an epoch has come, or a training begins."""
        self._seconds, self._looked = 0.0, self._clock()

    def is_too_long(self) -> bool:
        """Tell whether the limit is passed."""
        now = self._clock()
        self._seconds, self._looked = self._seconds + min(now - self._looked, _MOST), now
        return self._limit is not None and self._seconds > self._limit

    @property
    def said(self) -> str:
        """Return the reason of a failure in words."""
        return f"it gave no epoch for {self._limit:g} s (--trial-timeout), so its process was ended"
