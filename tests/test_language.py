"""Pages, help texts and source use none of a short list of phrases; the list says what to write instead.

The rule behind the list is in CONTRIBUTING.md: name the actor, one idea a sentence, the vocabulary of docs/concepts.md.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

INSTEAD = {
    r"whoever": "the user, the worker, the server: name the actor",
    r"nobody": "no worker, no person: name the actor",
    r"somebody": "a user, another program: name the actor",
    r"everybody": "all users, every person",
    r"those of whom": "name the actor",
    r"be no \w+ any more": "deregister, stop",
    r"signs? of life": "heartbeat",
    r"taken for dead": "presumed dead",
    r"silent for": "no heartbeat for",
    r"leaves? \S+ away": "omit",
    r"go(?:es)? on (?:from|with it|after epoch|there|where)": "resume",
    r"begins? (?:again at|anew)": "restart",
    r"taken up": "resumed",
    r"(?:has|have|were|was) (?:been )?asked for": "requested, of a total of",
    r"the test people (?:said|say|spoke|speak)": "results on the test people",
    r"asks? the test people": "evaluate on the test people",
    r"looks? (?:\d+ )?at the test people": "evaluation on the test people",
    r"all the same\b(?! (?:values|size))": "anyway",
    r"for want of": "for lack of",
    r"told on": "reported",
    r"by no one's": "without",
    r"makes? one up": "generates one",
    r"shall": "the present tense, or must",
    r"is no more": "no longer",
}
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docker-compose.yml",
    "docs/*.md",
    "studies/*.toml",
    "face3d_tune/report/en.toml",
)
# Rooms of the package whose source is held to the list. The tuple only grows.
ROOMS = (
    "analysis",
    "cli",
    "dashboard",
    "data",
    "executor",
    "refit",
    "report",
    "script",
    "search",
    "storage",
    "study",
    "system",
    "training",
)
BANNED = re.compile("|".join(rf"(?P<_{number}>\b{turn}\b)" for number, turn in enumerate(INSTEAD)), re.IGNORECASE)


def found(text):
    """Each banned phrase of a text, with what to say instead."""
    flat = re.sub(r"\s+(?:#\s)?", " ", text)
    return [(match[0], list(INSTEAD.values())[int(match.lastgroup[1:])]) for match in BANNED.finditer(flat)]


def files():
    """The pages, and the source of the rooms that are held to the list."""
    for pattern in PAGES:
        yield from sorted(ROOT.glob(pattern))
    for room in ROOMS:
        yield from sorted((ROOT / "face3d_tune" / room).rglob("*.py"))


@pytest.mark.parametrize("path", [*files()], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_text_uses_no_banned_phrase(path):
    assert found(path.read_text(encoding="utf-8")) == []


def test_the_next_versions_changes_use_no_banned_phrase():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert found(changes.partition("\n## [0.1.0]")[0]) == []


def test_a_banned_phrase_would_be_noticed_across_a_line_break():
    assert found("Whoever dies\n    # gives no sign\n    # of life.") == [
        ("Whoever", "the user, the worker, the server: name the actor"),
        ("sign of life", "heartbeat"),
    ]
