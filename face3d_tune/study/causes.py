"""Why a trial failed, and how many failed of what."""

from collections.abc import Iterable, Mapping

from optuna.trial import FrozenTrial, TrialState

from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.other_programs import ended_from_outside, own_trials

OUTSIDE = "outside"  # cause of a failure by another program
TIMEOUT = "timeout"  # cause of a failure without an epoch for too long
OF_THE_CONFIG = ("diverged", "out_of_memory")  # causes that would make the same config fail again
QUEUED_AGAIN = "queued_again"  # of a failed trial that another one replaces


def cause(trial: FrozenTrial) -> str | None:
    """Return why a trial failed: `diverged`, `out_of_memory`, or `error` if its config is not to blame.

    `timeout`: it gave no epoch for too long, twice. `outside`: another program ended it, or queued it with values that
    cannot be trained. None if it has not failed, or was only requeued.
    """
    attrs = trial.user_attrs
    if trial.state != TrialState.FAIL or TrialAttr.requeued.held_by(attrs):
        return None
    if TrialAttr.cause.held_by(attrs):
        return str(TrialAttr.cause.of(attrs))
    if ended_from_outside(trial):
        return OUTSIDE
    # An earlier version stored no cause.
    return "diverged" if TrialAttr.stop_reason.get(attrs) == "non_finite" else "error"


def count_causes(trials: Iterable[FrozenTrial]) -> dict[str, int]:
    """Count failed trials by cause, every cause named, and those that were `queued_again`: together all that failed."""
    failed = [trial for trial in own_trials(list(trials)) if trial.state == TrialState.FAIL]
    causes = [cause(trial) or QUEUED_AGAIN for trial in failed]
    return {name: causes.count(name) for name in (*OF_THE_CONFIG, TIMEOUT, "error", OUTSIDE, QUEUED_AGAIN)}


def in_words(causes: Mapping[str, int]) -> str:
    """Describe causes, e.g. `3 diverged, 1 out of memory`; empty if nothing failed."""
    words = {"error": "by an error", OUTSIDE: "from outside"}
    words |= {"out_of_memory": "out of memory", TIMEOUT: "timed out", QUEUED_AGAIN: "queued again"}
    return ", ".join(f"{count} {words.get(name, name)}" for name, count in causes.items() if count)
