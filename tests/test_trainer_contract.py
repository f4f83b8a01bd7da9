"""Every citation of docs/trainer-contract.md names a section that the page has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "trainer-contract.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## ((\d+)\. .+)$", PAGE, flags=re.MULTILINE)
SECTIONS = [int(number) for _, number in HEADINGS]
ANCHORS = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading, _ in HEADINGS}
CITATION = re.compile(r"trainer contract §\d+(?:(?:,| and| to) §\d+)*")
FOLDERS = ("face3d_tune", "tests", "benchmarks", "docs", "studies")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")))
    if path.suffix in (".py", ".md", ".toml") and path != Path(__file__)
}


def mistakes(text):
    """The citations in a text that lead nowhere, or are written in another form."""
    flat = re.sub(r"\s*\n\s*(?:# )?", " ", text)
    cited = [int(number) for citation in CITATION.findall(flat) for number in re.findall(r"§(\d+)", citation)]
    return [
        *(f"§{number}" for number in cited if number not in SECTIONS),
        *re.findall(r"\S* ?§\S*|CONTRACT.{0,20}", CITATION.sub("", flat)),
        *(anchor for anchor in re.findall(r"trainer-contract\.md#([^)\s`]+)", flat) if anchor not in ANCHORS),
    ]


def test_sections_are_numbered_from_1_without_a_gap():
    assert list(range(1, len(SECTIONS) + 1)) == SECTIONS
    assert len(SECTIONS) >= 6


def test_there_are_citations_to_check():
    assert sum(len(CITATION.findall(text)) for text in TEXTS.values()) > 30
    assert "face3d_tune/training/model.py" in TEXTS


def test_every_citation_names_a_section_that_exists():
    assert {path: found for path, text in TEXTS.items() if (found := mistakes(text))} == {}


def test_the_page_refers_to_its_own_sections_only():
    referred = [int(number) for number in re.findall(r"[Ss]ection (\d+)", PAGE)]
    assert referred
    assert set(referred) <= set(SECTIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        "trainer contract §99",
        "trainer contract §3 and §99",
        "trainer contract §0",
        "see §4",
        "CONTRACT section 4",
        "[the loss](trainer-contract.md#4-training-and-more)",
    ],
)
def test_a_wrong_citation_would_be_noticed(wrong):
    assert mistakes(wrong) != []


def test_a_right_citation_is_not_taken_for_a_wrong_one():
    text = "(trainer contract §3, §4 and §6), trainer\n    # contract §2 to §4, [so](trainer-contract.md#4-training)"
    assert mistakes(text) == []
