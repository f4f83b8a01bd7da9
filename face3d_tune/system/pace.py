"""How often to look at what seldom changes: once a second, and more seldom where a look takes long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY = 1.0  # seconds
_SHARE = 10  # a look of t seconds is followed by a pause of 10 t


class Pace:
    """The pace of one who looks."""

    def __init__(self, every: float = _EVERY) -> None:
        self._every = every
        self._next = time.monotonic() + every

    def due(self) -> bool:
        """Tell whether to look now."""
        return time.monotonic() >= self._next

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Measure a look, which fails or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - began
            self._next = began + took + max(self._every - took, _SHARE * took)
