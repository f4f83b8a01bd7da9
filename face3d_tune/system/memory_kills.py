"""Processes that the kernel killed for lack of memory, counted: so SIGKILL can be told from a person's."""

import contextlib
from pathlib import Path

_KERNEL = Path("/proc/vmstat")


def killed_for_memory() -> int:
    """Return how many processes Linux has killed for lack of memory since boot; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in _KERNEL.read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
