"""A confirmation as stored with a study, and in English: for the terminal and the dashboard.

`refit.confirm` makes it and documents its content; the report has words of its own.
"""

from collections.abc import Mapping
from typing import Any

from face3d_tune.analysis import recognising

# Methods without training, and their keys in a confirmation. The first that it holds is the line to pass.
_SIMPLE = {"kernel ridge": "kernel_ridge", "ridge": "ridge", "no model": "no_model"}


def simple_methods(confirmation: Mapping[str, Any]) -> dict[str, str]:
    """Return the methods without training of a confirmation, and their keys; an older one lacks kernel ridge."""
    return {name: key for name, key in _SIMPLE.items() if key in confirmation}


def value_in_study(candidate: Mapping[str, Any], none: str) -> str:
    """Return a candidate's value in the study: at least so much if its trial was pruned; `none` without a trial."""
    if candidate["value"] is None:
        return none
    return f"{'≥ ' if candidate.get('pruned') else ''}{candidate['value']:.4f}"  # an older one does not say


def part_of(confirmation: Mapping[str, Any]) -> str:
    """Return the part of the people that judged: `test`, or `judged` of several rotations, which are all people."""
    return "judged" if "rotations" in confirmation else "test"


def sentence(compared: Mapping[str, Any], part: str = "test") -> str:
    """Describe an entry of a confirmation's `against`: `better than recommended by 0.0520 (0.0370 to 0.0660)`.

    `part` is the part of the people that was compared.
    """
    name, (difference, low, high) = compared["name"], (compared[key] for key in ("difference", "low", "high"))
    if difference is None:
        return f"not compared with {name}: no pairs"
    if low is None:
        return f"one {part} person is too few for a verdict against {name}: {difference:+z.4f}, without an interval"
    if difference == low == high == 0:  # people without any deviation do not show how sure that is
        return f"the same as {name} for all {compared['people']} {part} people"
    span = f"({low:+z.4f} to {high:+z.4f})"
    match compared["verdict"]:
        case "better":
            return f"better than {name} by {difference:.4f} ({low:.4f} to {high:.4f})"
        case "worse":
            return f"worse than {name} by {-difference:.4f} ({-high:.4f} to {-low:.4f})"
        case "same":
            return f"not distinguishable from {name}: {difference:+z.4f} {span}"
        case _:
            few = f"{compared['people']} {part} people are too few"
            return f"{few} for a verdict against {name}: {difference:+z.4f} {span}"


def headline(confirmation: Mapping[str, Any]) -> str:
    """Say the verdict that matters in one sentence: against the best preset, and whether against every one."""
    winner, first = confirmation["winner"]["name"], confirmation["headline"]
    entry = entry_of(confirmation, first)
    colon = ":" if entry["verdict"] == "uncertain" else " is"
    part = part_of(confirmation)
    if first is None:
        return f"{winner}{colon} {sentence(entry, part)}; no preset could be trained to compare it with."
    presets = sum(each["kind"] == "preset" for each in confirmation["against"])
    which = f"{first} (the best preset)" if confirmation["headline_is_best"] and presets > 1 else first
    comparison = f"{winner}{colon} {sentence({**entry, 'name': which}, part)}"
    if presets == 1:
        return f"{comparison}."
    every = (
        "better than every preset"
        if confirmation["better_than_every_preset"]
        else "not shown to be better than every one"
    )
    return f"{comparison}; it is {every}."


def entry_of(confirmation: Mapping[str, Any], preset: str | None, simple: str | None = None) -> Mapping[str, Any]:
    """Return the comparison with that preset; without one, with that simple method, or the line to pass."""
    simple = next(iter(simple_methods(confirmation))) if simple is None else simple
    wanted = ("simple", simple) if preset is None else ("preset", preset)
    entry: Mapping[str, Any] = next(each for each in confirmation["against"] if (each["kind"], each["name"]) == wanted)
    return entry


def better_methods(confirmation: Mapping[str, Any]) -> list[str]:
    """Return the methods without training that are better than the winner."""
    methods = simple_methods(confirmation)
    return [name for name in methods if entry_of(confirmation, None, name)["verdict"] == "worse"]


def simpler(confirmation: Mapping[str, Any]) -> str:
    """Say that a method without training is better; empty if none is."""
    winner = confirmation["winner"]["name"]
    beaten = better_methods(confirmation)
    if not beaten:
        return ""
    names = {
        "kernel ridge": "kernel ridge (seconds, and no tuning)",
        "ridge": "ridge regression (seconds, and no tuning)",
        "no model": "using no model at all",
    }
    return f"A simpler method wins: {winner} is worse than {' and '.join(names[name] for name in beaten)}."


def chosen_by(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what validation people choose a candidate by: `value` in the study, `validation` over seeds, and its
    deviation `validation_sd`. They are cosines, or identities in a study with that objective.
    """
    chosen: Mapping[str, Any] = row.get("by_identity", row)
    return chosen


def choice(confirmation: Mapping[str, Any]) -> str:
    """Say that the winner was chosen by its identity over seeds; empty if by its cosine, or over rotations."""
    winner = confirmation["winner"]
    if "by_identity" not in winner or "rotations" in confirmation:
        return ""
    return (
        f"{winner['name']} was chosen by its identity on the validation people: {chosen_by(winner)['validation']:.4f}."
    )


def tells_curse(confirmation: Mapping[str, Any]) -> bool:
    """Tell whether the winner's value in the study and over fresh seeds are of the same validation people.

    They are not over rotations, nor in a study of folds, whose values are means over other people and other trainings.
    """
    folded = confirmation.get("folds", 1) > 1
    return confirmation["winner"]["value"] is not None and "rotations" not in confirmation and not folded


def curse(confirmation: Mapping[str, Any]) -> str:
    """Describe the winner's curse with its numbers; empty where other people gave the value in the study."""
    name, winner = confirmation["winner"]["name"], chosen_by(confirmation["winner"])
    if not tells_curse(confirmation):
        return ""
    spread = "" if winner["validation_sd"] is None else f" ± {winner['validation_sd']:.4f}"
    fall = winner["value"] - winner["validation"]
    what = f"{fall:.4f} of it was luck" if fall > 0 else "none of it was luck"
    return (
        f"Winner's curse: in the study {name} had {winner['value']:.4f} on the validation people; over "
        f"{len(confirmation['seeds'])} fresh seeds it is {winner['validation']:.4f}{spread}, so {what}."
    )


def cross_validated(confirmation: Mapping[str, Any]) -> str:
    """Say what a confirmation by several rotations is, and what it is not; empty for one by the test people."""
    if "rotations" not in confirmation:
        return ""
    return (
        f"Cross-validated, no test: each of {confirmation['people']} people is judged once, in one of "
        f"{confirmation['rotations']} rotations, by models trained on others. The settings were chosen with some of "
        "these people, which flatters the trials; on the bundled sample by less than its test people can show."
    )


def old_intervals(confirmation: Mapping[str, Any]) -> bool:
    """Return whether the intervals are percentile bootstraps, as version 0.1.0 stored them without a `method`."""
    return any("method" not in entry for entry in confirmation["against"])


def intervals(confirmation: Mapping[str, Any]) -> str:
    """Say in which way the intervals fall short of 95 % over people and seeds; empty if they do not."""
    if old_intervals(confirmation):
        return (
            "The intervals are percentile bootstraps of version 0.1.0, too narrow with few people; `face3d-tune "
            "confirm` again trains nothing and computes 95 % intervals."
        )
    if "rotations" in confirmation:
        return (
            "The intervals count rotations, not people, because the people of a rotation share models and seeds. "
            "Rotations share training people, so with few people they cover a little less than 95 %."
        )
    if len(confirmation["seeds"]) == 1:
        return "With one seed the intervals leave out how much seeds differ; `--seeds 5` includes it."
    return ""


def resolved(confirmation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the comparisons with headline and line to pass, where it is known what their people can show.

    People who do not deviate at all, as between two trainings with equal predictions, do not show it.
    """
    first, line = (entry_of(confirmation, preset) for preset in (confirmation["headline"], None))
    return [entry for entry in ([first] if first is line else [first, line]) if entry.get("half_width")]


def resolution(confirmation: Mapping[str, Any]) -> str:
    """Say which differences the test people can show, and how many can show a small one; empty if that is unknown."""

    def part(entry: Mapping[str, Any]) -> str:
        wanted, needed = confirmation["wanted_difference"], entry["people_needed"]
        people = "only with more seeds" if needed is None else f"from about {needed} people on"
        few = entry["verdict"] == "uncertain"
        shown = "no difference, as they are too few" if few else f"a difference of {entry['half_width']:.4f} or more"
        return f"against {entry['name']} {shown} ({wanted} {people})"

    parts = "; ".join(map(part, resolved(confirmation)))
    return f"What {confirmation['people']} {part_of(confirmation)} people can show: {parts}." if parts else ""


def looks(confirmation: Mapping[str, Any]) -> str:
    """Say how many times the test people have been evaluated."""
    count = len(confirmation["looks"])
    if count == 1:
        return "First evaluation on the test people."
    return f"Evaluation {count} on the test people: each one makes the verdict a little less trustworthy."


def recognised(confirmation: Mapping[str, Any]) -> list[str]:
    """Compare the winner's rank-1 among all enrolled with a preset and methods without training, a line each.

    A confirmation of an earlier version has none.
    """
    record = confirmation.get("recognition")
    if record is None:
        return []
    part = part_of(confirmation)
    return [f"  rank-1 of {record['enrolled']}: {sentence(each, part)}" for each in recognised_against(confirmation)]


def recognised_against(confirmation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the comparisons of rank-1 among all enrolled; at first they had no `kind`, and no preset was compared."""
    record = confirmation.get("recognition")
    return [] if record is None else [{"kind": "simple", **entry} for entry in record["rank1_enrolled"]["against"]]


def rank1_known(confirmation: Mapping[str, Any]) -> bool:
    """Return whether the rank-1 of every candidate and method is stored, except of what diverged."""
    rows = [row for row in confirmation["candidates"] if row["error"] is None]
    rows += [confirmation[key] for key in simple_methods(confirmation).values()]
    return all(row.get("test_rank1_enrolled") is not None for row in rows)


def recognised_alike(confirmation: Mapping[str, Any]) -> list[str]:
    """Return the methods without training that the winner is not shown to recognise people better than.

    There are none if the winner does not raise the cosine over no model, or if an earlier version has confirmed.
    """
    raised = entry_of(confirmation, None, "no model")["difference"]
    if raised is None or raised <= 0:
        return []
    against = [entry for entry in recognised_against(confirmation) if entry["kind"] == "simple"]
    names = [entry["name"] for entry in against if entry["verdict"] != "better"]
    return [name for name in ("no model", "ridge", "kernel ridge") if name in names]


def no_better_recognised(confirmation: Mapping[str, Any]) -> str | None:
    """Say that the winner raises the cosine, but that its rank-1 is not shown to be above a baseline's; else None."""
    if not (names := recognised_alike(confirmation)):
        return None
    winner, listed = confirmation["winner"]["name"], recognising.listed(names)
    return f"{winner} raises the cosine, but is not shown to recognise people better than {listed}."


def told(confirmation: Mapping[str, Any]) -> list[str]:
    """Return a confirmation as lines: headline, every comparison, by yaw, resolution, intervals, curse and looks."""
    first = confirmation["headline"]
    headed = entry_of(confirmation, first)
    judged = part_of(confirmation)
    others = [f"  {sentence(entry, judged)}" for entry in confirmation["against"] if entry is not headed]
    by_yaw = [
        f"  |yaw| {band}°: {sentence({'name': headed['name'], **entry}, judged)}"
        for band, entry in headed["by_yaw"].items()
        if entry["people"]
    ]
    tellers = (resolution, intervals, simpler, choice, curse, cross_validated, looks)
    return [
        headline(confirmation),
        *others,
        *by_yaw,
        *recognised(confirmation),
        *filter(None, (tell(confirmation) for tell in tellers)),
    ]
