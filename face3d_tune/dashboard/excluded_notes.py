"""What the notes of a study and of its trials say about excluded trials."""

from optuna.trial import FrozenTrial

from face3d_tune.analysis.findings import Findings
from face3d_tune.dashboard.markdown import plain, word
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.exclusions import said


def of_study(found: Findings) -> list[str]:
    """Name the excluded trials and the best of the others; empty if no trial is excluded."""
    if not found.excluded:
        return []
    best = "" if found.best is None else f" The best of the others is trial {found.best.number}."
    rows = "\n".join(f"- {plain(_said(trial))}" for trial in found.excluded)
    return [f"**Excluded**, so in the budget alone; the pictures that Optuna itself draws show them.{best}", rows]


def of_trial(found: Findings, trial: FrozenTrial) -> str:
    """Say who excluded a trial, when and why, and what that means."""
    return (
        f"**Excluded.** {plain(_said(trial))}\n\nIt has taken its place in the budget, and counts nowhere else: not as "
        f"the best, not in tables, not for the pruner, not for the sampler.\n\n"
        f"    face3d-tune exclude {trial.number} --undo --study-name {word(found.name)}"
    )


def _said(trial: FrozenTrial) -> str:
    return said(trial.number, TrialAttr.excluded.of(trial.user_attrs))
