"""What a study of a script of the user's own shows beside its objective."""

import re
from collections.abc import Iterable

from face3d_tune.study.attrs import StoredScript

_MOST = 3  # further numbers in tables and pictures
_VALIDATION = ("val", "验证", "eval", "test")  # in the name of a number that is not of training alone
_NO_RESULT = re.compile(r"second|time|时间|用时|耗时|learning.?rate|学习率|(^|[\W_])lr$|grad", re.IGNORECASE)


def further_numbers(names: Iterable[str], script: StoredScript) -> list[str]:
    """Choose up to three of a script's numbers to show beside its metric.

    The number that chooses the kept epoch comes first, then those of validation, then the others; times and
    learning rates last.
    """
    others = [name for name in dict.fromkeys(names) if name != script["metric"]]

    def place(name: str) -> int:
        if name == script["keep"]:
            return 0
        words = name.lower()
        return 3 if _NO_RESULT.search(name) else 1 if any(word in words for word in _VALIDATION) else 2

    return sorted(others, key=place)[:_MOST]


def kept_epoch(script: StoredScript) -> str:
    """Say which epoch's numbers a trial has: `the epoch with the lowest val_loss`."""
    name, direction = script["keep"], script["keep_direction"]
    if name is None:
        name, direction = script["metric"], script["direction"]
    return f"the epoch with the highest {name}" if direction == "maximize" else f"the epoch with the lowest {name}"
