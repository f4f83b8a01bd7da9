"""Which number of a script a trial is worth, guessed from its name, its source and when it came."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from face3d_tune.errors import UnsearchableError, did_you_mean
from face3d_tune.script.running.numbers import Source
from face3d_tune.study.objective import Direction

Often = Literal["epoch", "once", "many"]

_DIGITS = 4  # significant ones that tell trials apart
_VALIDATION = r"val|dev(?![a-z])|eval|验证"
_TRAINING = r"train|训练|batch|step|(?<![a-z])tr(?![a-z])"
_TEST = r"(?<![a-z])test|测试"  # not `latest`
_BEST = r"best|最佳|最好|最优|(?<![a-z])(max|min|highest|lowest)(?![a-z])"  # of all epochs so far
# The better a name says what the model is for, the earlier its pattern; every direction is that of a name alone.
_KINDS: tuple[tuple[str, Direction], ...] = (
    (r"loss|损失", "minimize"),
    (r"dist(ance)?(?![a-z])|距离", "minimize"),
    (r"cosine|cos(?![a-z])|余弦", "maximize"),
    (r"sim(?![a-z])|similarity|相似", "maximize"),
    (r"acc(?![a-z])|accuracy|准确|正确率", "maximize"),
    (r"auc|auroc", "maximize"),
    (r"f1|fscore", "maximize"),
    (r"top_?1|rank_?1|recall|precision|tar(?![a-z])|(?<![a-z])map(?![a-z])|iou|dice|psnr|ssim", "maximize"),
    (r"eer(?![a-z])|(?<![a-z])err(or)?(?![a-z])|误差|错误|mae|mse|perplexity|ppl", "minimize"),
)
_LOSSES = (0, 1, 8)  # places in _KINDS of what is only taken where nothing is maximised
# How soon a number can be read: what is printed at once, a checkpoint only when the script saves one.
_SOONEST: tuple[Source, ...] = ("json", "printed", "csv", "tensorboard", "checkpoint")


@dataclass(frozen=True, slots=True)
class ProbedNumber:
    """A number that the script gives: its values by epoch, or by order of appearance."""

    source: Source
    name: str
    values: tuple[float, ...]
    often: Often
    late: bool  # it appeared only when the script had ended

    @property
    def rough(self) -> bool:
        """Tell whether it has too few digits to tell trials apart, such as 0.61."""
        return max(len(re.sub(r"e.*|\D", "", repr(value)).lstrip("0")) for value in self.values) < _DIGITS

    @property
    def training(self) -> bool:
        """Tell whether it is of the training data, by its name."""
        return re.search(_TRAINING, _words(self.name)) is not None and not self.validation

    @property
    def validation(self) -> bool:
        """Tell whether it is of validation data, by its name."""
        return re.search(_VALIDATION, _words(self.name)) is not None

    @property
    def test(self) -> bool:
        """Tell whether it is of test data, by its name."""
        return is_test(self.name) and not self.validation


@dataclass(frozen=True, slots=True)
class Metric:
    """The number that a trial is worth, and the one that decides which epoch the script keeps (None: the same)."""

    number: ProbedNumber
    direction: Direction
    keep_lowest: str | None = None


def choose(numbers: Sequence[ProbedNumber], path: str, source: str, wanted: str | None = None) -> Metric:
    """Choose what to search for: a validation cosine, accuracy or the like, else a validation loss.

    Never a training number, unless `wanted` names it. `source` is the text of the script. Raises UnsearchableError
    if no number will do.
    """
    every = [number for number in numbers if number.often == "epoch"]
    names = list(dict.fromkeys(number.name for number in every))
    listed = ", ".join(names)[:300]
    if wanted is not None:
        every = [number for number in every if number.name == wanted]
        if not every:
            raise UnsearchableError(
                f"{path} gives no {wanted!r} once an epoch{did_you_mean(wanted, names)}", f"it gives {listed}"
            )
    ranked = [(rank, number) for number in every if (rank := _rank(number, wanted)) is not None]
    if not ranked:
        raise UnsearchableError(
            f"{path} gives no validation result once an epoch that can be told by its name",
            f"--metric NAME chooses one of {listed}",
        )
    best = min(ranked, key=lambda each: each[0])[1]
    direction = direction_of(best.name)
    losses = [each.name for each in every_loss(numbers) if each.source == best.source]
    by_loss = direction == "maximize" and re.search(r"best_(val\w*_)?loss|val\w*_loss\b[^\n]{0,10}<|best_loss", source)
    return Metric(best, direction, losses[0] if by_loss and losses else None)


def every_loss(numbers: Sequence[ProbedNumber]) -> list[ProbedNumber]:
    """Return the validation losses that come once an epoch."""
    return [
        number
        for number in numbers
        if number.often == "epoch"
        and number.validation
        and re.search(_KINDS[0][0], _words(number.name))
        and not re.search(_BEST, _words(number.name))
    ]


def direction_of(name: str) -> Direction:
    """Guess what is better of a number, from its name; higher if the name does not tell."""
    return next((direction for pattern, direction in _KINDS if re.search(pattern, _words(name))), "maximize")


def is_test(name: str) -> bool:
    """Tell whether a script calls a number a test."""
    return re.search(_TEST, _words(name)) is not None


def is_result(name: str) -> bool:
    """Tell whether a number's name may be that of a result, not of the progress of training."""
    words = _words(name)
    return any(re.search(pattern, words) for pattern, _ in _KINDS) and not re.search(_TRAINING, words)


def _rank(number: ProbedNumber, wanted: str | None) -> tuple[object, ...] | None:
    """Return a key to sort by, the smallest first; None for a number that is no result."""
    words = _words(number.name)
    place = next((place for place, (pattern, _) in enumerate(_KINDS) if re.search(pattern, words)), None)
    kind = None if place is None else (place in _LOSSES, place)
    quality = (number.rough, number.late, _SOONEST.index(number.source), len(number.name), number.name)
    if wanted is not None:
        return (0, False, (False, 0), *quality)
    finite = all(map(math.isfinite, number.values))
    if kind is None or number.training or not finite or (kind[0] and not (number.validation or number.test)):
        return None
    phase = 0 if number.validation else 2 if number.test else 1
    return (phase, re.search(_BEST, words) is not None, kind, *quality)


def _words(name: str) -> str:
    """Return a name in lower case, with an underscore between its words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^\w]+", "_", name).lower()
