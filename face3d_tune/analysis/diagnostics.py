"""The four things that the tuning guide watches in a training (监控指标), each read from its epochs by a fixed rule.

Nothing here is worded: a reading is a verdict and the numbers behind it. With n epochs, b the epoch of the lowest
validation loss, and "end" the mean of the last three epochs, where b is before these:

loss      Trend of the validation loss.
          short    n <= 10, so nothing is said
          rising   the end is more than 2 % above the lowest
          falling  the last ten epochs still lowered the lowest by more than 1 %: it would go on
          flat     neither
cosine    Validation cosine of the kept epoch against the guide's 0.85; stable if the last five span at most 0.01.
          reached-stable, reached-moving, below-stable, below-moving
lr        Learning rate, lowered when the validation loss stands still.
          floor    it was lowered, and a further step would not pass the smallest allowed one: probably converged
          frequent three decays or more, at least half of them as soon after the one before as the patience allows
          decayed  otherwise lowered
          never    not once
          annealed with a cosine schedule, which does not ask the loss
gap       Validation loss minus training loss. The training loss is measured with dropout on, so in a sound training the
          gap begins far below zero and always grows; that it widens is no overfitting by itself. After epoch b:
          overfitting  the end of the validation loss is more than 2 % above its lowest, while the training loss fell
          unstable     the same, but the training loss did not fall
          saturated    the validation loss is neither rising nor falling, while the training loss fell by more than 2 %
          together     neither: no sign of overfitting
A reading whose numbers a trial lacks, or with fewer than three epochs (of the gap: after b), has the verdict `unknown`;
for the gap, fewer than three epochs after b are `together` if the trial has ten or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from face3d_tune.config import TrialConfig
from face3d_tune.study.history import History, lowest_loss

GOAL = 0.85  # validation cosine, of the guide
_RISE = 0.02  # share of the lowest validation loss
_FALL = 0.01  # share of the lowest validation loss, within _RECENT epochs
_TRAINED_ON = 0.02  # share of the training loss at the lowest validation loss
_STEADY = 0.01  # of the cosine
_RECENT = 10  # epochs
_END = 3  # epochs whose mean is called the end
_NEGLIGIBLE = 1e-8  # of the learning rate: a smaller step is none to torch's scheduler


@dataclass(frozen=True, slots=True)
class Reading:
    """One of the four readings."""

    about: str  # loss, cosine, lr, gap
    verdict: str
    numbers: dict[str, Any]


def read(history: History, config: TrialConfig) -> tuple[Reading, Reading, Reading, Reading]:
    """Read all four, in the guide's order."""
    return _loss(history.val_loss), _cosine(history), _lr(history.lr, config), _gap(history)


def _loss(loss: Sequence[float]) -> Reading:
    if len(loss) < _END:
        return Reading("loss", "unknown", {})
    low = min(loss)
    best = lowest_loss(loss)
    rise = _end(loss) / low - 1 if low > 0 and len(loss) - best >= _END else 0.0
    numbers: dict[str, Any] = {"epochs": len(loss), "best_epoch": best, "lowest": low, "rise": rise}
    if len(loss) <= _RECENT:
        return Reading("loss", "short", numbers)
    fall = 1 - low / min(loss[:-_RECENT])
    numbers |= {"since": len(loss) - best, "recent_fall": fall, "recent": _RECENT}
    return Reading("loss", "rising" if _over(rise, _RISE) else "falling" if _over(fall, _FALL) else "flat", numbers)


def _cosine(history: History) -> Reading:
    cosine = history.cosine
    if len(cosine) < _END:
        return Reading("cosine", "unknown", {})
    loss = history.val_loss  # training keeps the epoch with the lowest loss
    best = cosine[lowest_loss(loss) - 1] if len(loss) == len(cosine) else max(cosine)
    last = cosine[-5:]
    span = max(last) - min(last)
    verdict = f"{'reached' if best >= GOAL else 'below'}-{'stable' if not _over(span, _STEADY) else 'moving'}"
    return Reading("cosine", verdict, {"kept": best, "goal": GOAL, "span": span, "last": len(last)})


def _lr(lr: Sequence[float], config: TrialConfig) -> Reading:
    if len(lr) < _END:
        return Reading("lr", "unknown", {})
    # epochs that begin with a lower rate
    decays = [epoch for epoch in range(2, len(lr) + 1) if lr[epoch - 1] < lr[epoch - 2]]
    numbers = {"first": max(lr), "last": lr[-1], "decays": decays, "floor": config.scheduler_min_lr}  # after a warm-up
    if config.scheduler_type == "cosine":
        return Reading("lr", "annealed", numbers)
    gaps = [later - earlier for earlier, later in pairwise(decays)]
    soon = sum(gap <= config.scheduler_patience + 1 for gap in gaps)
    next_rate = max(lr[-1] * config.scheduler_factor, config.scheduler_min_lr)
    if not decays:
        return Reading("lr", "never", numbers)
    if lr[-1] - next_rate <= max(_NEGLIGIBLE, 1e-5 * lr[-1]):  # the stored rate has six digits
        return Reading("lr", "floor", numbers)
    return Reading("lr", "frequent" if len(decays) >= 3 and soon * 2 >= len(gaps) else "decayed", numbers)


def _gap(history: History) -> Reading:
    train, loss = history.train_loss, history.val_loss
    if len(loss) < _END or len(train) != len(loss):
        return Reading("gap", "unknown", {})
    low = min(loss)
    best = lowest_loss(loss) - 1
    numbers = {
        "best_epoch": best + 1,
        "first": loss[0] - train[0],
        "best": low - train[best],
        "last": loss[-1] - train[-1],
    }
    if len(loss) - best - 1 < _END:
        return Reading("gap", "together" if len(loss) >= _RECENT else "unknown", numbers)
    rise, fall = _end(loss) - low, train[best] - _end(train)
    numbers |= {"val_change": rise / low if low > 0 else 0.0, "train_change": -fall / train[best]}
    if _over(rise, _RISE * low):
        return Reading("gap", "overfitting" if fall > 0 else "unstable", numbers)
    return Reading("gap", "saturated" if _over(fall, _TRAINED_ON * train[best]) else "together", numbers)


def _over(value: float, limit: float) -> bool:
    """Tell whether `value` is above `limit` by more than rounding."""
    return value > limit + 1e-9


def _end(values: Sequence[float]) -> float:
    return fmean(values[-_END:])
