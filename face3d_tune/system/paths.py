"""Paths as people type them."""

import os
from pathlib import Path


def expanded(typed: str | os.PathLike[str]) -> Path:
    """Return the path with a home in place of `~` or `~USER` at its beginning, as a shell does in some places only."""
    return Path(os.path.expanduser(typed))
