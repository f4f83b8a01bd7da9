"""A study as one file to send to a colleague: HTML, Markdown or JSON."""

import json
from datetime import datetime
from typing import Literal

from face3d_tune.findings import Findings
from face3d_tune.report.content import content
from face3d_tune.report.html import to_html
from face3d_tune.report.markdown import to_markdown
from face3d_tune.report.story import tell
from face3d_tune.report.words import Language

Form = Literal["html", "md", "json"]


def report(found: Findings, form: Form, language: Language, made: datetime) -> str:
    """The text of the file. JSON has no language; its keys are those of `report.content.Content`."""
    held = content(found, made)
    if form == "json":
        return json.dumps({"face3d-tune": "report", **held.to_dict()}, indent=1, ensure_ascii=False) + "\n"
    document = tell(held, language)
    return to_html(document) if form == "html" else to_markdown(document)


__all__ = ["Form", "Language", "report"]
