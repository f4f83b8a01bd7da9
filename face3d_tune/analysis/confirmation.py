"""A confirmation as it is stored with a study, and in English: for the terminal and the dashboard.

`confirming` makes it and says what is in it; the report has words of its own.
"""

from collections.abc import Mapping
from typing import Any

SIMPLE = {"ridge": "ridge", "no model": "no_model"}  # what needs no training, and its key in a confirmation


def sentence(compared: Mapping[str, Any]) -> str:
    """`better than recommended by 0.0520 (0.0370 to 0.0660)`, of an entry of a confirmation's `against`."""
    name, (difference, low, high) = compared["name"], (compared[key] for key in ("difference", "low", "high"))
    if difference is None:
        return f"not compared with {name}: no pairs"
    span = f"({low:+.4f} to {high:+.4f})"
    match compared["verdict"]:
        case "better":
            return f"better than {name} by {difference:.4f} ({low:.4f} to {high:.4f})"
        case "worse":
            return f"worse than {name} by {-difference:.4f} ({-high:.4f} to {-low:.4f})"
        case "same":
            return f"not distinguishable from {name}: {difference:+.4f} {span}"
        case _:
            few = f"{compared['people']} test people are too few"
            return f"{few} for a verdict against {name}: {difference:+.4f} {span}"


def headline(held: Mapping[str, Any]) -> str:
    """The verdict that matters, in one sentence: against the best preset, and whether against every one."""
    winner, first = held["winner"]["name"], held["headline"]
    entry = entry_of(held, first)
    colon = ":" if entry["verdict"] == "uncertain" else " is"
    if first is None:
        return f"{winner}{colon} {sentence(entry)}; no preset could be trained to compare it with."
    presets = sum(each["kind"] == "preset" for each in held["against"])
    which = f"{first} (the best preset)" if held["headline_is_best"] and presets > 1 else first
    said = f"{winner}{colon} {sentence({**entry, 'name': which})}"
    if presets == 1:
        return f"{said}."
    every = "better than every preset" if held["better_than_every_preset"] else "not shown to be better than every one"
    return f"{said}; it is {every}."


def entry_of(held: Mapping[str, Any], preset: str | None, simple: str = "ridge") -> Mapping[str, Any]:
    """The comparison with that preset; without one, with that simple method."""
    wanted = ("simple", simple) if preset is None else ("preset", preset)
    entry: Mapping[str, Any] = next(each for each in held["against"] if (each["kind"], each["name"]) == wanted)
    return entry


def simpler(held: Mapping[str, Any]) -> str:
    """That a method without training is the better one, if it is."""
    winner = held["winner"]["name"]
    beaten = [name for name in SIMPLE if entry_of(held, None, name)["verdict"] == "worse"]
    if not beaten:
        return ""
    names = {"ridge": "ridge regression (seconds, and no tuning)", "no model": "using no model at all"}
    return f"A simpler method wins: {winner} is worse than {' and '.join(names[name] for name in beaten)}."


def curse(held: Mapping[str, Any]) -> str:
    """The winner's curse, with its numbers."""
    winner = held["winner"]
    if winner["value"] is None:
        return ""
    spread = "" if winner["validation_sd"] is None else f" ± {winner['validation_sd']:.4f}"
    fall = winner["value"] - winner["validation"]
    what = f"{fall:.4f} of it was luck" if fall > 0 else "none of it was luck"
    return (
        f"Winner's curse: in the study {winner['name']} had {winner['value']:.4f} on the validation people; over "
        f"{len(held['seeds'])} fresh seeds it is {winner['validation']:.4f}{spread}, so {what}."
    )


def looks(held: Mapping[str, Any]) -> str:
    """How often anybody has looked at the test people."""
    count = len(held["looks"])
    if count == 1:
        return "First evaluation on the test people."
    return f"Evaluation {count} on the test people: each one makes the verdict a little less trustworthy."


def told(held: Mapping[str, Any]) -> list[str]:
    """Everything that a confirmation says, as lines: the headline, every comparison, by yaw, curse and looks."""
    first = held["headline"]
    headed = entry_of(held, first)
    others = [f"  {sentence(entry)}" for entry in held["against"] if entry is not headed]
    by_yaw = [
        f"  |yaw| {band}°: {sentence({'name': headed['name'], **entry})}"
        for band, entry in headed["by_yaw"].items()
        if entry["people"]
    ]
    return [headline(held), *others, *by_yaw, *filter(None, (simpler(held), curse(held), looks(held)))]
