"""README.zh-CN.md says what README.md says: the same sections, commands, figures, numbers and links, in Chinese."""

import re
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
# What differs on purpose: each links to the other, and each shows a report in its own language.
OTHERS = {"README.zh-CN.md": "README.md", "docs/pictures/report.zh.png": "docs/pictures/report.en.png"}


def sections(page):
    """Of each section what does not depend on the language."""
    parts = re.split(r"^(?=#+ )", page, flags=re.MULTILINE)[1:]
    return [facts(part) for part in parts]


def facts(part):
    code = re.findall(r"(?:^(?: {4}.*)?\n)*^ {4}.*\n", part, flags=re.MULTILINE)
    prose = re.sub(r"^ {4}.*\n", "", part, flags=re.MULTILINE)
    links = [OTHERS.get(target, target) for target in re.findall(r"\]\(([^)]+)\)", prose)]
    prose = re.sub(r"\]\([^)]+\)", "]", prose)
    return {
        "level": re.match("#+", part)[0],
        "code": [block.strip("\n") for block in code],
        "links": links,
        "words in code": Counter(re.findall(r"`([^`]+)`", prose)),
        "numbers": Counter(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"`[^`]+`", "", prose))),
        "rows": len(re.findall(r"^\|", prose, flags=re.MULTILINE)),
        "paragraphs": len(re.findall(r"\n\n+(?=\S)", prose)),
    }


def differences(one, other):
    """Number and name of what differs, section by section."""
    pairs = zip_longest(sections(one), sections(other), fillvalue={})
    return [
        (number, name)
        for number, (ours, theirs) in enumerate(pairs)
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]


def test_the_two_readmes_say_the_same():
    assert differences(ENGLISH, CHINESE) == []


def test_there_is_something_to_compare():
    found = sections(ENGLISH)
    assert len(found) == 9
    assert all(sum(map(len, (section[name] for section in found))) >= 8 for name in ("code", "links", "numbers"))


@pytest.mark.parametrize(
    ("said", "instead", "noticed"),
    [
        ("--timeout 8h", "--timeout 9h", "code"),
        ("80.0 %", "80.1 %", "numbers"),
        ("`--quiet`", "`--json`", "words in code"),
        ("(docs/extending.md)", "(docs/design.md)", "links"),
        ("| `face3d-tune run --study stage1-lr` | 指南三个阶段中的第一个 |\n", "", "rows"),
        ("## 更多机器\n", "### 更多机器\n", "level"),
        ("## 更多机器\n", "", "level"),
        ("`--quiet` 只打印", "\n\n`--quiet` 只打印", "paragraphs"),
    ],
)
def test_a_difference_would_be_noticed(said, instead, noticed):
    assert CHINESE.count(said) >= 1
    assert noticed in {name for _, name in differences(ENGLISH, CHINESE.replace(said, instead, 1))}


def test_the_pictures_of_both_are_there():
    for page in (ENGLISH, CHINESE):
        pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
        assert len(pictures) == 3
        assert all((ROOT / picture).exists() for picture in pictures)
