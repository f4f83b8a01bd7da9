"""The bands of |yaw| by which cosines are told apart, and how they are written."""

import math
from collections.abc import Mapping

# By the name under which a study stores a band: from so many degrees on, and below so many.
YAW_BANDS: Mapping[str, tuple[float, float]] = {"0-15": (0.0, 15.0), "15-45": (15.0, 45.0), "45-90": (45.0, math.inf)}
FARTHEST = "45-90"
COLUMNS = tuple(f"<{high:g}°" if high < math.inf else f">{low:g}°" for low, high in YAW_BANDS.values())


def label(band: str) -> str:
    """Return a band as a reader sees it: `15–45°` for `15-45`."""
    return f"{band.replace('-', '–')}°"
