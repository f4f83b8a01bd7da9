"""A confirmation with the user's own script, as stored with a study: its table, and what it means in sentences.

`refit.script_confirm` makes it and documents its content. Terminal, report and dashboard show it from here.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from face3d_tune.study.objective import Objective

number = Objective("", script=True).number  # formats a number of a script, whatever its name

Language = Literal["en", "zh"]
Confirmation = Mapping[str, Any]


@cache
def words(language: Language) -> Mapping[str, str]:
    """Return the sentences of a language by key."""
    texts: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return texts[language]


def headings(found: Confirmation, language: Language = "en") -> list[str]:
    """Return the headings of the table."""
    say = words(language)
    metric = found["metric"]
    return [say["candidate"], f"{metric}, {say['in_study']}", f"{metric}, {say['trained']}", *found["tests"]]


def rows(found: Confirmation) -> list[list[str]]:
    """Return a row for each candidate that could be trained: its name, value in the study, means with their spread."""
    return [_row(found, each) for each in found["candidates"] if each["error"] is None]


def _row(found: Confirmation, each: Mapping[str, Any]) -> list[str]:
    names = [each["name"], *each["aliases"]]
    value = "" if each["value"] is None else number(each["value"])
    tests = [_spread(each["tests"][name]) for name in found["tests"]]
    return [" = ".join(names), value, _spread(each), *tests]


def _spread(summary: Mapping[str, Any]) -> str:
    """Format `0.6531 ± 0.0042`; without the deviation of one training."""
    mean, deviation = summary["mean"], summary["sd"]
    return f"{number(mean)}{'' if deviation is None else f' ± {_beside(mean, deviation)}'}"


def _beside(mean: float, value: float, sign: str = "") -> str:
    """Format a deviation or difference with as many decimals as the mean that it belongs to."""
    return f"{value:{sign}.4f}" if number(mean) == f"{mean:.4f}" else number(value, sign)


def headline(found: Confirmation, language: Language = "en") -> str:
    """Say in one sentence whether the winner is better than the best preset."""
    say, winner = words(language), found["winner"]
    if (entry := _headed(found)) is None:
        return say["no_preset" if any(each["preset"] for each in found["candidates"]) else "no_presets"].format(
            winner=winner
        )
    return _compared(found, entry["name"], found["metric"], entry, language)


def sentences(found: Confirmation, language: Language = "en") -> list[str]:
    """Say what the confirmation found, what weakens it, and what it cannot know; a sentence each."""
    say = words(language)
    winner = _winner(found)
    said = [headline(found, language), *_by_tests(found, winner, language)]
    if winner["value"] is not None:
        of_winner = {"value": number(winner["value"]), "mean": _spread(winner)}
        said.append(say["curse"].format(**_over(found, language), **of_winner))
    if found["identical"]:
        said.append(say[f"identical_{found['by']}"].format(flag=found["seed_flag"]))
    elif found["count"] == 1:
        said.append(say["one"])
    elif found["by"] == "repeats":
        said.append(say["repeats"])
    if found["count"] > 1 and not found["identical"]:
        said.append(say[f"people_{found['by']}"])
    extreme = say["highest" if found["keep_direction"] == "maximize" else "lowest"]
    said.append(say["kept"].format(keep=found["keep"], extreme=extreme))
    said.append(say["unknown"])
    if found["over_time"]:
        said.append(say["over_time"].format(count=found["over_time"]))
    if found["changed"]:
        said.append(say["changed"].format(files=", ".join(found["changed"])))
    lost = [each for each in found["candidates"] if each["error"] is not None]
    return said + [say["failed"].format(name=each["name"], error=each["error"]) for each in lost]


def _by_tests(found: Confirmation, winner: Mapping[str, Any], language: Language) -> list[str]:
    """Say what the script's test numbers show of the winner, against the best preset if there is one."""
    say, entry = words(language), _headed(found)
    if not winner["tests"]:
        return [say["no_test"].format(metric=found["metric"])] if entry is not None else []
    if entry is None:
        return [
            say["test_alone"].format(winner=found["winner"], metric=name, mean=_spread(summary))
            for name, summary in winner["tests"].items()
        ]
    compared = [
        say["test"].format(sentence=_compared(found, entry["name"], name, test, language))
        for name, test in entry["tests"].items()
    ]
    return [*compared, say["test_why"]] if compared else [say["no_test"].format(metric=found["metric"])]


def _winner(found: Confirmation) -> Mapping[str, Any]:
    winner: Mapping[str, Any] = next(each for each in found["candidates"] if each["name"] == found["winner"])
    return winner


def _headed(found: Confirmation) -> Mapping[str, Any] | None:
    """Return the comparison with the best preset; None without one."""
    return next((each for each in found["against"] if each["name"] == found["headline"]), None)


def _compared(found: Confirmation, preset: str, metric: str, entry: Mapping[str, Any], language: Language) -> str:
    """Say one comparison. An interval is as the metric counts: lower is better of some."""
    winner = _winner(found)
    mean = (winner["tests"].get(metric) or winner)["mean"]
    numbers: dict[str, str] = {
        key: "" if entry[key] is None else _beside(mean, entry[key], "+") for key in ("difference", "low", "high")
    }
    over = _over(found, language) | {"metric": metric}
    verdict = "alone" if found["count"] == 1 else entry["verdict"]
    return words(language)[verdict].format(preset=preset, **over, **numbers)


def _over(found: Confirmation, language: Language) -> dict[str, Any]:
    by = words(language)["seeds" if found["by"] == "seeds" else "repeated"]
    return {"winner": found["winner"], "metric": found["metric"], "count": found["count"], "by": by}
