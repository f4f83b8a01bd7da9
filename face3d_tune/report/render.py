"""A study as one file to send to a colleague: HTML, Markdown or JSON."""

import json
from datetime import datetime
from typing import Literal

from face3d_tune.analysis.findings import Findings
from face3d_tune.report.blocks import MARK
from face3d_tune.report.content import content
from face3d_tune.report.html import to_html
from face3d_tune.report.markdown import to_markdown
from face3d_tune.report.side_by_side import tell_two
from face3d_tune.report.story import tell
from face3d_tune.report.two_studies import two_studies
from face3d_tune.report.words import Language

Form = Literal["html", "md", "json"]

_JSON_MARK = {"face3d-tune": "report"}


def is_report(text: str) -> bool:
    """Tell whether a file is a report of ours, in any form, from its text or its first thousands of characters.

    Many files name the program; only a report has one of these marks near its beginning.
    """
    return MARK in text or json.dumps(_JSON_MARK)[1:-1] in text


def report(findings: Findings, form: Form, language: Language, made: datetime) -> str:
    """Render the report as text. JSON has no language; its keys are those of `report.content.Content`."""
    numbers = content(findings, made)
    if form == "json":
        return json.dumps({**_JSON_MARK, **numbers.to_dict()}, indent=1, ensure_ascii=False) + "\n"
    document = tell(numbers, language)
    return to_html(document) if form == "html" else to_markdown(document)


def report_two(
    first: Findings, second: Findings, names: tuple[str, str], form: Form, language: Language, made: datetime
) -> str:
    """Render a report on two studies as text; `names` tell them apart. JSON has the keys of `two_studies`."""
    pair = two_studies(first, second, names, made)
    if form == "json":
        return json.dumps({**_JSON_MARK, **pair.to_dict()}, indent=1, ensure_ascii=False) + "\n"
    document = tell_two(pair, language)
    return to_html(document) if form == "html" else to_markdown(document)


__all__ = ["Form", "Language", "is_report", "report", "report_two"]
