"""Who asks for something, and when: what is stored beside a request that other people see."""

import getpass
import os
import socket
from datetime import UTC, datetime


def person() -> str:
    """Return user and host, e.g. `li@gpu-3`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without a name, as in some containers
        user = str(getattr(os, "getuid", lambda: "someone")())
    return f"{user}@{socket.gethostname()}"


def now() -> str:
    """Return the time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
