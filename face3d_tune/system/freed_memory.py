"""Freed memory of a server's threads: the C library gives it back to the system, or to another thread."""

import ctypes
import sys
from contextlib import suppress

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # M_MMAP_THRESHOLD and M_ARENA_MAX of glibc's <malloc.h>
_LARGE = 128 * 1024  # bytes; glibc's own default, which it raises up to 32 MiB when such a block is freed


def give_freed_memory_back() -> None:
    """Let glibc give back every large block, and use one heap for all threads; another C library stays as it is.

    Else each thread of a server keeps the memory of its largest answer.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # of musl
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_ARENA_MAX, 1)
