"""Durations as people type them."""

import re

EXPECTED = "expected seconds, or a number with s, m or h, such as 8h"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(typed: str) -> float | None:
    """Return the seconds of a duration such as `90`, `90s`, `30m` or `8h`; None if it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", typed.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else None
