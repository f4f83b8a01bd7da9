"""Two studies beside each other, in numbers and without words: where they compare, and what differs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from optuna.trial import TrialState

from face3d_tune.analysis.findings import Findings
from face3d_tune.report.content import VERSION, Content, Entry, content, finite
from face3d_tune.study import space as space_module
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.trials import counts, trained_here

# Facts that decide whether values of two studies are measured in the same way.
OF_VALUES = ("trainer", "script", "metric", "direction", "data", "folds")


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs; None where a study lacks it."""

    setting: str
    first: str | None
    second: str | None

    @property
    def of_values(self) -> bool:
        """Tell whether values do not compare because of it."""
        return self.setting in OF_VALUES


@dataclass(frozen=True, slots=True)
class Step:
    """The best value when a trial completed that was the best so far."""

    trials: int  # finished by then
    epochs: int  # trained by then, of all trials
    value: float


@dataclass(frozen=True, slots=True)
class StudySide:
    """One of two studies."""

    name: str  # by which it is told from the other
    content: Content
    steps: Sequence[Step]
    trials: int  # finished, trained here
    epochs: int  # that they trained

    @property
    def presets(self) -> dict[str, Entry]:
        """Return its presets by name."""
        return {entry.name: entry for entry in self.content.presets if entry.name is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of this study for JSON."""
        held, best = self.content, self.content.best
        return {
            "name": self.name,
            "study": held.study,
            "objective": held.objective,
            "direction": held.direction,
            "best": None if best is None else {"trial": best.trial, "value": best.value, "config": dict(best.config)},
            "likely_best": None if held.likely_best is None else asdict(held.likely_best),
            "presets": {name: entry.value for name, entry in self.presets.items()},
            "lines": dict(held.lines),
            "steps": [asdict(step) for step in self.steps],
            "trials": self.trials,
            "epochs": self.epochs,
            "importances": [asdict(row) for row in held.importances],
        }


@dataclass(frozen=True, slots=True)
class TwoStudies:
    """Two studies and what differs between them."""

    made: str  # date and time, ISO 8601
    first: StudySide
    second: StudySide
    differences: Sequence[Difference]

    @property
    def comparable(self) -> bool:
        """Tell whether values of the two may be compared."""
        return not any(each.of_values for each in self.differences)

    @property
    def lead(self) -> float | None:
        """Return how much better the second's best is, whatever the direction; None if that does not compare."""
        first, second = self.first.content.best, self.second.content.best
        if not self.comparable or first is None or second is None or first.value is None or second.value is None:
            return None
        key = self.first.content.measure.key
        return key(second.value) - key(first.value)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, ready for JSON."""
        told: dict[str, Any] = finite(
            {
                "version": VERSION,
                "made": self.made,
                "comparable": self.comparable,
                "lead_of_second": self.lead,
                "differences": [{**asdict(each), "of_values": each.of_values} for each in self.differences],
                "studies": [self.first.to_dict(), self.second.to_dict()],
            }
        )
        return told


def two_studies(first: Findings, second: Findings, names: tuple[str, str], made: datetime) -> TwoStudies:
    """Put two studies beside each other; `names` tell them apart."""
    sides = [_side(found, name, made) for found, name in zip((first, second), names, strict=True)]
    facts = [_facts(side.content) for side in sides]
    keys = dict.fromkeys([*facts[0], *facts[1]])
    differences = [Difference(key, facts[0].get(key), facts[1].get(key)) for key in keys]
    differing = [each for each in differences if each.first != each.second]
    return TwoStudies(made.isoformat(timespec="minutes"), sides[0], sides[1], differing)


def _side(found: Findings, name: str, made: datetime) -> StudySide:
    steps: list[Step] = []
    epochs, ended = 0, []
    for trial in found.trials:
        if counts(trial) and trained_here(trial) and trial.datetime_complete is not None:
            ended.append((trial.datetime_complete, trial.number, trial))
    for trials, (_, _, trial) in enumerate(sorted(ended, key=lambda each: each[:2]), 1):
        epochs += TrialAttr.epochs_run.get(trial.user_attrs, 0)
        best = steps[-1].value if steps else None
        if trial.state == TrialState.COMPLETE and found.objective.better(trial.value, best):
            steps.append(Step(trials, epochs, float(trial.value or 0.0)))
    return StudySide(name, content(found, made), steps, len(ended), epochs)


def _facts(held: Content) -> dict[str, str | None]:
    """Return what a study searches, on which data and how, by name of the setting."""
    script, data, settings = held.script, held.data, held.settings
    facts: dict[str, Any] = {
        "trainer": "script" if script else "built-in",
        "script": script["path"] if script else None,
        "metric": held.objective,
        "direction": held.direction,
        "data": f"{data['source']} ({data['fingerprint']})" if data else None,
        "folds": held.folds,
        "script_files": ", ".join(digest[:8] for digest in script["sources"].values()) if script else None,
        "arguments": " ".join(script.get("arguments", ())) or None if script else None,
        "layout": settings.get("layout"),
        "epochs": settings["epochs"],
        "budget": held.budget,
        "sampler": held.effort.get("sampler"),
        "pruner": held.effort.get("pruner"),
        "seed": settings["seed"],
        "from": held.follows["study"] if held.follows else None,
    }
    space = space_module.from_stored(settings["space"])
    facts |= {f"space.{name}": space_module.describe(row) for name, row in space.items()}
    facts |= {f"fixed.{name}": value for name, value in settings["fixed"].items()}
    return {name: None if value is None else str(value) for name, value in facts.items()}


def configs(pair: TwoStudies) -> tuple[list[tuple[str, Any, Any]], int]:
    """Return the settings in which the winning configs differ, and the number of those that are equal."""
    held: list[Mapping[str, Any]] = [side.content.best.config if side.content.best else {} for side in _sides(pair)]
    names = [*dict.fromkeys([*held[0], *held[1]])]
    differing = [(name, held[0].get(name), held[1].get(name)) for name in names]
    rows = [row for row in differing if row[1] != row[2]]
    return rows, len(names) - len(rows)


def _sides(pair: TwoStudies) -> tuple[StudySide, StudySide]:
    return pair.first, pair.second
