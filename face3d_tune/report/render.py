"""A study as one file to send to a colleague: HTML, Markdown or JSON."""

import json
from datetime import datetime
from typing import Literal

from face3d_tune.analysis.findings import Findings
from face3d_tune.report.blocks import MARK
from face3d_tune.report.content import content
from face3d_tune.report.html import to_html
from face3d_tune.report.markdown import to_markdown
from face3d_tune.report.story import tell
from face3d_tune.report.words import Language

Form = Literal["html", "md", "json"]

_JSON_MARK = {"face3d-tune": "report"}


def is_report(text: str) -> bool:
    """Whether a file with this text, or beginning of some thousand characters, is a report of ours, of whatever form.

    Many files name the program; only a report carries one of these marks near its beginning.
    """
    return MARK in text or json.dumps(_JSON_MARK)[1:-1] in text


def report(found: Findings, form: Form, language: Language, made: datetime) -> str:
    """The text of the file. JSON has no language; its keys are those of `report.content.Content`."""
    held = content(found, made)
    if form == "json":
        return json.dumps({**_JSON_MARK, **held.to_dict()}, indent=1, ensure_ascii=False) + "\n"
    document = tell(held, language)
    return to_html(document) if form == "html" else to_markdown(document)


__all__ = ["Form", "Language", "is_report", "report"]
