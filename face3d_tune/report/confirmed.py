"""The sections on the test people, the first of a report once a confirmation exists, and on all people in rotations."""

from collections.abc import Mapping, Sequence
from typing import Any

from face3d_tune.analysis.confirmation import (
    better_methods,
    chosen_by,
    entry_of,
    old_intervals,
    rank1_known,
    recognised_against,
    recognised_alike,
    resolved,
    simple_methods,
    tells_curse,
    value_in_study,
)
from face3d_tune.report.blocks import Block, Paragraph, Runs, Table, Tiles
from face3d_tune.report.content import Content
from face3d_tune.report.words import NOT_KNOWN, Words


def confirmed(content: Content, say: Words) -> list[Block]:
    """Show verdict, numbers, by yaw, the winner's curse and the evaluations; empty without a confirmation."""
    confirmation = content.confirmation
    if confirmation is None:
        return []
    seeds = len(confirmation["seeds"])
    blocks: list[Block] = [] if content.confirmed_best else [Paragraph(say("confirmed_outdated"), "warning")]
    blocks += _only_cosine(confirmation, say)
    blocks += [Paragraph(_headline(confirmation, say)), _tiles(confirmation, say)]
    if simpler := _simpler(confirmation, say):
        blocks.append(simpler)
    blocks += [
        Paragraph(say("confirmed_how", seeds=seeds, people=confirmation["people"]), "note"),
        _candidates(confirmation, say),
        Paragraph(say(_how(confirmation), winner=_name(confirmation["winner"], say))),
        _differences(confirmation, say),
        *_recognised(confirmation, say),
        *_resolution(confirmation, say),
    ]
    if tells_curse(confirmation):
        blocks.append(Paragraph(_curse(confirmation["winner"], seeds, say)))
    if "by_identity" in (winner := confirmation["winner"]):
        again = f"{chosen_by(winner)['validation']:.4f}"
        blocks.append(Paragraph(say("chosen_by_identity", winner=_name(winner, say), again=again), "note"))
    return [*blocks, _looks(confirmation, say)]


def rotated(content: Content, say: Words) -> list[Block]:
    """Show what all people say, each judged in one of several rotations; empty without them."""
    rotation = content.rotation
    if rotation is None:
        return []
    blocks: list[Block] = [] if content.rotated_best else [Paragraph(say("rotated_outdated"), "warning")]
    blocks += _only_cosine(rotation, say)
    blocks.append(Paragraph(_headline(rotation, say, "rotated_")))
    if simpler := _simpler(rotation, say, "rotated_"):
        blocks.append(simpler)
    numbers = {"seeds": len(rotation["seeds"]), "people": rotation["people"], "rotations": rotation["rotations"]}
    return [
        *blocks,
        Paragraph(say("rotated_how", **numbers), "note"),
        _candidates(rotation, say, "judged"),
        Paragraph(say("rotated_differences", winner=_name(rotation["winner"], say))),
        _differences(rotation, say),
        *_recognised(rotation, say),
        *_resolution(rotation, say, "rotated_"),
        Paragraph(say("rotated_flattered"), "warning"),
        _looks(rotation, say),
    ]


def _name(row: Mapping[str, Any], say: Words) -> str:
    """Name a candidate, or what it was compared with."""
    if row.get("kind") == "simple":
        return say.text(_key(row["name"]))
    if row.get("preset") or row.get("kind") == "preset":
        return say.preset(row["name"])
    return say.text("trial_number", trial=row["trial"])


def _key(method: str) -> str:
    """Return the key of a method without training, in a confirmation and in the texts."""
    return method.replace(" ", "_")


def _only_cosine(confirmation: Mapping[str, Any], say: Words) -> list[Block]:
    """Say that the winner raises the cosine, but is not shown to recognise people better; nothing if it is."""
    if not (names := recognised_alike(confirmation)):
        return []
    winner = _name(confirmation["winner"], say)
    return [Paragraph(say("only_cosine_confirmed", winner=winner, names=say.methods(names)), "warning")]


def _simpler(confirmation: Mapping[str, Any], say: Words, kind: str = "") -> Paragraph | None:
    """Say that a method without training is better; None if none is."""
    if not (simpler := better_methods(confirmation)):
        return None
    names = say.text("and").join(say.text(f"simpler_{_key(name)}") for name in simpler)
    return Paragraph(say(f"{kind}simpler", names=names, winner=_name(confirmation["winner"], say)), "warning")


def _looks(confirmation: Mapping[str, Any], say: Words) -> Paragraph:
    looks = len(confirmation["looks"])
    look = say("looks_one") if looks == 1 else say("looks_many", n=looks)
    return Paragraph(look, "note" if looks == 1 else "warning")


def _headline(confirmation: Mapping[str, Any], say: Words, kind: str = "") -> Runs:
    entry = entry_of(confirmation, confirmation["headline"])
    verdict = "one_person" if entry["low"] is None else entry["verdict"]
    sentence = say(f"{kind}headline_{verdict}", winner=_name(confirmation["winner"], say), **_numbers(entry, say))
    if confirmation["headline"] is None:
        return (*sentence, *say("headline_no_preset"))
    return (*sentence, *say("every_yes" if confirmation["better_than_every_preset"] else "every_no"))


def _numbers(entry: Mapping[str, Any], say: Words) -> dict[str, Any]:
    """Return the values of a verdict's sentence; for a worse one, by how much it is worse."""
    sign = -1 if entry["verdict"] == "worse" else 1
    low, high = (None, None) if entry["low"] is None else sorted(sign * entry[key] for key in ("low", "high"))
    form = "{:.4f}" if entry["verdict"] in ("better", "worse") else "{:+z.4f}"
    numbers = {"by": sign * entry["difference"], "low": low, "high": high}
    return {
        "name": _name(entry, say),
        "people": entry["people"],
        **{key: NOT_KNOWN if value is None else form.format(value) for key, value in numbers.items()},
    }


def _tiles(confirmation: Mapping[str, Any], say: Words) -> Tiles:
    winner, presets = confirmation["winner"], {row["name"]: row for row in confirmation["candidates"] if row["preset"]}
    tiles = [(f"{winner['test']:.4f}", say.text("tile_confirmed"), _name(winner, say))]
    if confirmation["headline"] is not None:
        preset = presets[confirmation["headline"]]
        tiles.append((f"{preset['test']:.4f}", say.text("tile_confirmed_preset"), _name(preset, say)))
    tiles += [
        (f"{confirmation[key]['test']:.4f}", say.text(f"tile_{key}"), say.text(f"tile_{key}_hint"))
        for key in simple_methods(confirmation).values()
    ]
    return Tiles(tiles)


def _candidates(confirmation: Mapping[str, Any], say: Words, judged: str = "test") -> Table:
    bands, rank1 = list(confirmation["no_model"]["test_by_yaw"]), rank1_known(confirmation)
    header = [say.text(f"column_{name}") for name in ("confirmed", "in_study", "again", judged)]
    header += map(say.band, bands)
    if rank1:
        header.append(say.text("column_rank1_by", enrolled=confirmation["recognition"]["enrolled"]))

    def rates(row: Mapping[str, Any]) -> list[str]:
        by_yaw = [_three(row["test_by_yaw"][band]) for band in bands]
        return [*by_yaw, _three(row["test_rank1_enrolled"])] if rank1 else by_yaw

    rows: list[Sequence[str]] = []
    for row in confirmation["candidates"]:
        name = " = ".join((_name(row, say), *map(say.preset, row["aliases"])))
        value = value_in_study(row, NOT_KNOWN)
        if row["error"] is not None:
            rows.append((name, value, say.text("diverged"), *[NOT_KNOWN] * (len(header) - 3)))
            continue
        means = [_spread(row[part], row[f"{part}_sd"]) for part in ("validation", "test")]
        rows.append((name, value, *means, *rates(row)))
    for key in simple_methods(confirmation).values():
        means = [f"{confirmation[key][part]:.4f}" for part in ("validation", "test")]
        rows.append((say.text(key), NOT_KNOWN, *means, *rates(confirmation[key])))
    marked = [row["name"] for row in confirmation["candidates"]].index(confirmation["winner"]["name"])
    return Table(header, rows, marked=marked)


def _how(confirmation: Mapping[str, Any]) -> str:
    """Return the key of the sentence on the differences and their intervals."""
    if old_intervals(confirmation):
        return "confirmed_differences_old"
    return "confirmed_differences_one_seed" if len(confirmation["seeds"]) == 1 else "confirmed_differences"


def _differences(confirmation: Mapping[str, Any], say: Words) -> Table:
    bands = list(confirmation["no_model"]["test_by_yaw"])
    header = [say.text(f"column_{name}") for name in ("against", "verdict", "difference")]
    rows = [
        (
            _name(entry, say),
            say.text(f"verdict_{entry['verdict']}"),
            _interval(entry, "{:+z.4f}", say),
            *(_interval(entry["by_yaw"][band], "{:+z.3f}", say) for band in bands),
        )
        for entry in confirmation["against"]
    ]
    return Table([*header, *map(say.band, bands)], rows)


def _recognised(confirmation: Mapping[str, Any], say: Words) -> list[Block]:
    """Compare rank-1 among all enrolled; nothing if an earlier version has confirmed."""
    record = confirmation.get("recognition")
    if record is None:
        return []
    enrolled, rates = record["enrolled"], record["rank1_enrolled"]
    header = [
        say.text(f"column_{name}", enrolled=enrolled) for name in ("against", "rank1_by", "verdict", "difference")
    ]
    rows = [
        (
            _name(entry, say),
            _three(entry["rate"]),
            say.text(f"verdict_{entry['verdict']}"),
            _interval(entry, "{:+z.3f}", say),
        )
        for entry in recognised_against(confirmation)
    ]
    winner = _name(confirmation["winner"], say)
    said = say("confirmed_recognised", winner=winner, rate=_three(rates["winner"]), enrolled=enrolled)
    return [Paragraph(said), Table(header, rows)]


def _resolution(confirmation: Mapping[str, Any], say: Words, kind: str = "") -> list[Block]:
    """Say which differences the test people can show, and how many can show a small one."""
    runs = list(say(f"{kind}resolution", people=confirmation["people"]))
    for entry in (entries := resolved(confirmation)):
        now = "resolution_none" if entry["verdict"] == "uncertain" else "resolution_now"
        later = "resolution_seeds" if entry["people_needed"] is None else f"{kind}resolution_people"
        runs += say(now, name=_name(entry, say), half=f"{entry['half_width']:.4f}")
        runs += say(later, wanted=f"{confirmation['wanted_difference']:g}", people=entry["people_needed"])
    return [Paragraph(tuple(runs), "note")] if entries else []


def _curse(winner: Mapping[str, Any], seeds: int, say: Words) -> Runs:
    chosen = chosen_by(winner)
    fall = chosen["value"] - chosen["validation"]
    values = {"winner": _name(winner, say), "value": f"{chosen['value']:.4f}", "by": f"{fall:.4f}", "seeds": seeds}
    again = _spread(chosen["validation"], chosen["validation_sd"])
    return say("curse" if fall > 0 else "curse_none", again=again, **values)


def _interval(entry: Mapping[str, Any], form: str, say: Words) -> str:
    if entry["difference"] is None:
        return NOT_KNOWN
    if entry["low"] is None:
        return form.format(entry["difference"])
    values = {key: form.format(entry[key]) for key in ("difference", "low", "high")}
    return say.text("interval", **values)


def _spread(value: float, deviation: float | None) -> str:
    return f"{value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _three(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3f}"
