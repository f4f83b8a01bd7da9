"""The additions to optuna-dashboard's fields of a study and of its trials, and how they are merged with them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from face3d_tune.study.attrs import TrialAttr

# In the note, counted by `confirm`, or too long for a table.
_UNSHOWN_OF_STUDY = re.compile(r"confirm:.*|.*confirmation|rotation|look:.*|.*_recognition|script|excluded")
# Too long for a table, or shown number by number.
_UNSHOWN = ("config", "overrides", "cosine_by_yaw", "recognition", "folds", "numbers")
_EXCLUDED = "excluded"  # the column of excluded trials


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a trial, made or fetched on request."""

    filename: str
    mimetype: str
    read: Callable[[], bytes]
    drawn: bool = False  # by us: it contains nothing from outside


@dataclass(frozen=True, slots=True)
class TrialAdditions:
    """The additions to one trial."""

    note: str | None
    artifacts: Sequence[Mapping[str, Any]]  # as optuna-dashboard describes them
    excluded: str | None


@dataclass(slots=True)
class StudyAdditions:
    """The additions to one study; trials by number, artifacts by id."""

    note: str = ""
    figures: list[dict[str, str]] = field(default_factory=list)
    trial_notes: dict[int, str] = field(default_factory=dict)
    trial_artifacts: dict[int, dict[str, Artifact]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)  # who took a trial out, when and why

    def artifact(self, key: str) -> Artifact | None:
        """Return the artifact with that id."""
        return next((artifacts[key] for artifacts in self.trial_artifacts.values() if key in artifacts), None)

    def of_trial(self, number: int) -> TrialAdditions:
        """Return the additions to the trial with that number."""
        files = self.trial_artifacts.get(number, {})
        described = [
            {"artifact_id": key, "filename": file.filename, "mimetype": file.mimetype, "encoding": None}
            for key, file in files.items()
        ]
        return TrialAdditions(self.trial_notes.get(number), described, self.excluded.get(number))

    def numbers(self) -> set[int]:
        """Return the numbers of the trials to which something is added."""
        return {*self.trial_notes, *self.trial_artifacts, *self.excluded}


def with_additions(fields: dict[str, Any], additions: StudyAdditions, columns: Iterable[str]) -> dict[str, Any]:
    """Merge optuna-dashboard's fields of a study with its additions; `columns` are all that its trials show."""
    if not fields["note"]["body"]:  # keep what a person wrote: optuna-dashboard 0 lets people overwrite ours
        fields["note"] = {"version": fields["note"]["version"], "body": additions.note}
    fields["user_attrs"] = [attr for attr in fields["user_attrs"] if not _UNSHOWN_OF_STUDY.fullmatch(attr["key"])]
    fields["plotly_graph_objects"] += additions.figures
    known = {column["key"]: column for column in fields["union_user_attrs"] if column["key"] not in _UNSHOWN}
    further = sorted(set(columns) - known.keys())
    known |= {key: {"key": key, "sortable": key != _EXCLUDED} for key in further}
    fields["union_user_attrs"] = list(known.values())
    return fields


def trial_with_additions(fields: dict[str, Any], additions: TrialAdditions) -> dict[str, Any]:
    """Merge optuna-dashboard's fields of a trial with its additions."""
    if not fields["note"]["body"] and additions.note:
        fields["note"] = {"version": fields["note"]["version"], "body": additions.note}
    fields["artifacts"] += additions.artifacts
    return fields


def to_display(trial: FrozenTrial, additions: TrialAdditions) -> dict[str, Any]:
    """Select a trial's user attributes that fit a table: numbers and short texts."""
    attrs = trial.user_attrs
    shown = {key: value for key, value in attrs.items() if key not in _UNSHOWN and value is not None}
    by_yaw, folds, numbers = (attr.get(attrs) for attr in (TrialAttr.cosine_by_yaw, TrialAttr.folds, TrialAttr.numbers))
    further: dict[str, Any] = {}
    if isinstance(by_yaw, dict):  # another program may have stored something else under that name
        further |= {f"cosine |yaw| {band}°": value for band, value in by_yaw.items() if value is not None}
    if isinstance(folds, list):
        measured = [fold for fold in folds if isinstance(fold, dict) and {"fold", "value"} <= fold.keys()]
        for fold in measured:
            further[f"{'value' if 'val_cosine' in fold else 'cosine'} fold {fold['fold']}"] = fold["value"]
    if isinstance(numbers, dict):
        further |= {f"{name} of the script" if name in attrs else name: value for name, value in numbers.items()}
    if additions.excluded is not None:
        further[_EXCLUDED] = additions.excluded
    return shown | {key: str(value) for key, value in further.items()}
