"""A trial that is tried again, because its process died or was interrupted: what its successor gets from it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from face3d_tune.executor.tasks import RETRIES
from face3d_tune.storage.optuna_internals import fixed_params
from face3d_tune.study.attrs import Attr, TrialAttr
from face3d_tune.study.trials import REQUEUED

if TYPE_CHECKING:
    from face3d_tune.search.trial_run import Cause

_INHERITED = (
    TrialAttr.preset.key,
    TrialAttr.near.key,
    TrialAttr.tried.key,
    TrialAttr.like.key,
    TrialAttr.overrides.key,
    TrialAttr.seed.key,
    TrialAttr.ordinal.key,
    TrialAttr.deaths.key,
    TrialAttr.timeouts.key,
    TrialAttr.lineage.key,
)
_TIMEOUTS = 1  # after which a training that gave no epoch for too long is tried again


def retried(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], reason: str, death: "Cause | None"
) -> tuple[dict[str, Any], list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Return the user attributes of a trial that is given up, and its successors: none, or one.

    The successor has the same parameters and seed, which gives the same result: its parameters and user attributes.
    `trials` are all of the study. `death` is the cause if a process died: this worker, or the one that trained for it.
    After RETRIES deaths there is no successor, since the trial itself may be the cause; nor after a second timeout.
    """
    sampled = (
        trial.params if TrialAttr.config.held_by(trial.user_attrs) else {}
    )  # before that, params may be incomplete
    params = {**(fixed_params(trial) or {}), **sampled}
    deaths = (whole(trial, TrialAttr.deaths) or 0) + (death is not None)
    timeouts = (whole(trial, TrialAttr.timeouts) or 0) + (death == "timeout")
    again = deaths <= RETRIES and timeouts <= _TIMEOUTS
    succeeded = {whole(other, TrialAttr.retry_of) for other in trials}
    successors: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    if again and params and trial.number not in succeeded:
        attrs = {key: trial.user_attrs[key] for key in _INHERITED if key in trial.user_attrs}
        attrs |= {
            TrialAttr.retry_of.key: trial.number,
            TrialAttr.deaths.key: deaths,
            TrialAttr.lineage.key: lineage(trial),
        }
        attrs |= {TrialAttr.timeouts.key: timeouts} if timeouts else {}
        attrs.setdefault(TrialAttr.ordinal.key, next_ordinal(trials))  # its worker died before it set one
        successors.append((params, attrs))
    if timeouts > _TIMEOUTS:
        reason = f"{reason}; it hung before, and was tried once again"
    elif not again:
        reason = f"{reason}; that was the last of {RETRIES} retries"
    mark: dict[str, Any] = {TrialAttr.stop_reason.key: "error", TrialAttr.error.key: reason}
    mark |= {REQUEUED: True} if again else {TrialAttr.cause.key: death}
    return mark, successors


def next_ordinal(trials: Sequence[FrozenTrial]) -> int:
    """Return the first free ordinal; that of a requeued trial without a successor is free.

    Seeds are derived from the ordinal, so an interrupted study continues as if it had run through. A sampler that
    restarted with one seed would repeat its first suggestions.
    """
    succeeded = {whole(trial, TrialAttr.retry_of) for trial in trials}
    used = {
        whole(trial, TrialAttr.ordinal)
        for trial in trials
        if not TrialAttr.requeued.held_by(trial.user_attrs) or trial.number in succeeded
    }
    return next(ordinal for ordinal in range(len(used) + 1) if ordinal not in used)


def lineage(trial: FrozenTrial | optuna.Trial) -> int:
    """Return the number of the first trial in a row of retries; the trial's own if it is no retry."""
    number = whole(trial, TrialAttr.lineage)
    return trial.number if number is None else number


def whole(trial: FrozenTrial | optuna.Trial, attr: Attr[int]) -> int | None:
    """Return an int from a trial's user attributes; None if it is missing, or another program stored something else."""
    value = attr.get(trial.user_attrs)
    return value if isinstance(value, int) else None
