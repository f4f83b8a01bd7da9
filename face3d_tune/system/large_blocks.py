"""Large blocks of memory, which the C library gives back to the system as soon as they are free."""

import ctypes
import sys
from contextlib import suppress

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's <malloc.h>
_LARGE = 128 * 1024  # bytes; glibc's own default, which it raises up to 32 MiB when such a block is freed


def give_back_large_blocks() -> None:
    """Set glibc's limit for large blocks, which it then never raises; another C library stays as it is.

    Else each thread of a server keeps the memory of its largest answer.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # of musl
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
