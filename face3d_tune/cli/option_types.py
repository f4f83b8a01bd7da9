"""The types of the values of options."""

import math
import os
import re
from pathlib import Path
from typing import Any

import click

from face3d_tune.errors import did_you_mean
from face3d_tune.system import durations


class Number(click.FloatRange):
    """A range of numbers without NaN, which would be neither below nor above a limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number

    def _describe_range(self) -> str:
        """Return the range for the help text; "" without one, where click says `x<=None`."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class Choice(click.Choice[str]):
    """A choice of words that suggests the nearest one for a mistyped word."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return click's message with a suggestion."""
        message = super().get_invalid_choice_message(value, ctx).rstrip(".")
        return message + did_you_mean(str(value), self.choices)


class HomePath(click.Path):
    """A path that may begin with `~`, also where no shell expands it: after `=`, in quotes, in a variable."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, of the requested type."""
        if "://" in str(value):
            self.fail(f"{str(value)!r} is a URL; expected a path", param, ctx)
        return super().convert(os.path.expanduser(value), param, ctx)


class SlotCount(click.ParamType[int]):
    """A number of at least 1, or `auto`, which becomes None."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or None."""
        if value in ("auto", None):
            return None
        if isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"0*[1-9]\d{,8}", value)):
            return int(value)
        return self.fail(f"{value!r} is not in range; expected auto or a whole number of at least 1", param, ctx)


class Duration(click.ParamType[float]):
    """A duration such as `90`, `90s`, `30m` or `8h`, in seconds; `0` where allowed."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        duration = durations.seconds(value)
        if duration is None or (duration == 0 and not self._zero):
            self.fail(f"{value!r} is not a duration; {durations.EXPECTED}", param, ctx)
        return duration


FILE_OR_FOLDER = HomePath(path_type=Path)
