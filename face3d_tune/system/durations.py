"""Durations as people type them."""

import re

MOST_HOURS = 1000  # about 41 days; every system can wait that long at once
MOST = MOST_HOURS * 3600  # seconds
EXPECTED = f"expected seconds, or a number with s, m or h, such as 8h, at most {MOST_HOURS}h"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(typed: str) -> float | None:
    """Return the seconds of a duration such as `90`, `90s`, `30m` or `8h`; None if it is none, or above MOST."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", typed.strip())
    duration = float(match[1]) * _SECONDS[match[2]] if match else MOST + 1
    return duration if duration <= MOST else None
