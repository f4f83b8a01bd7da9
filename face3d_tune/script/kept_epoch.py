"""The epoch whose checkpoint a user's script keeps, as far as its study says."""

import math
from collections.abc import Mapping, Sequence

from face3d_tune.study.objective import Objective


def kept_epoch(epochs: Sequence[Mapping[str, float]], keep: Objective, metric: Objective) -> int:
    """Return the epoch, from 1, with the best `keep`, the first of equals; if an epoch lacks it, with the best metric.

    `epochs` are the numbers of each, by name.
    """
    by = keep if all(math.isfinite(numbers.get(keep.name, math.nan)) for numbers in epochs) else metric
    return max(range(len(epochs)), key=lambda place: by.key(epochs[place][by.name])) + 1
