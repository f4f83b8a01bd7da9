"""A report as one HTML file that needs nothing else: style, script and pictures are inside, and no text is markup."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from face3d_tune.analysis.svg import STYLE, swatch
from face3d_tune.report.blocks import (
    MARK,
    Block,
    Code,
    Columns,
    Document,
    Figure,
    Paragraph,
    Runs,
    Section,
    Table,
    Tiles,
)

_STYLE = STYLE + Path(__file__).with_name("style.css").read_text(encoding="utf-8")
_SCRIPT = """
for (const button of document.querySelectorAll("button")) {
  const code = button.parentElement.querySelector("pre");
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    await navigator.clipboard.writeText(code.textContent.trim());
    button.textContent = button.dataset.done;
  });
}
"""
# The browser itself refuses whatever is not in the file.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_TAGS = {"strong": "strong", "code": "code"}


def to_html(document: Document) -> str:
    """Render the document as an HTML file.

    Elements are built one by one, so a study's name is never parsed as markup.
    """
    page = Element("html", {"lang": document.language})
    head = SubElement(page, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    SubElement(head, "meta", {"name": "color-scheme", "content": "light dark"})
    SubElement(head, "meta", {"name": "generator", "content": "face3d-tune"})
    SubElement(head, "title").text = document.title
    SubElement(head, "style").text = _STYLE
    body = SubElement(page, "body")
    header = SubElement(body, "header")
    SubElement(header, "h1").text = document.title
    SubElement(header, "p", {"class": "subtitle"}).text = document.subtitle
    listed = SubElement(header, "nav", {"aria-label": document.contents})
    main = SubElement(body, "main")
    for section in document.sections:
        SubElement(listed, "a", {"href": f"#{section.name}"}).text = section.title
        main.append(_section(section, document.copy))
    SubElement(body, "script").text = _SCRIPT
    indent(head)
    return f"<!DOCTYPE html>\n{MARK}\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _section(section: Section, copy: tuple[str, str]) -> Element:
    element = Element("section", {"id": section.name})
    SubElement(element, "h2").text = section.title
    for block in section.blocks:
        element.append(_block(block, copy))
    return element


def _block(block: Block, copy: tuple[str, str]) -> Element:
    match block:
        case Paragraph(text, kind):
            return _runs(Element("p", {} if kind == "text" else {"class": kind}), text)
        case Tiles(tiles):
            return _tiles(tiles)
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Code(commands):
            return _code(commands, copy)
        case Columns(blocks):
            element = Element("div", {"class": "columns"})
            element.extend([_block(each, copy) for each in blocks])
            return element


def _runs(element: Element, runs: Runs) -> Element:
    """Append text in its styles to an element."""
    last: Element | None = None
    for style, text in runs:
        if style in _TAGS:
            last = SubElement(element, _TAGS[style])
            last.text = text
        elif last is None:
            element.text = (element.text or "") + text
        else:
            last.tail = (last.tail or "") + text
    return element


def _code(commands: Sequence[Sequence[str]], copy: tuple[str, str]) -> Element:
    """Build one line a command; it breaks between options only, and copies as one line."""
    element = Element("div", {"class": "command"})
    SubElement(element, "button", {"type": "button", "data-done": copy[1]}).text = copy[0]
    pre = SubElement(element, "pre", {"tabindex": "0"})
    for command in commands:
        line = SubElement(pre, "code")
        for place, piece in enumerate(_pieces(command)):
            span = SubElement(line, "span")
            span.text, span.tail = piece, "\n" if place == len(_pieces(command)) - 1 else " "
    return element


def _pieces(command: Sequence[str]) -> list[str]:
    """Return a command's arguments, quoted, each option with its value."""
    pieces: list[str] = []
    for word in map(shlex.quote, command):
        if pieces and pieces[-1].startswith("--") and " " not in pieces[-1] and not word.startswith("--"):
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    return pieces


def _tiles(tiles: Sequence[tuple[str, str, str]]) -> Element:
    element = Element("div", {"class": "tiles"})
    for value, label, hint in tiles:
        tile = SubElement(element, "div", {"class": "tile"})
        SubElement(tile, "span", {"class": "what"}).text = label
        SubElement(tile, "span", {"class": "value"}).text = value
        SubElement(tile, "span", {"class": "hint"}).text = hint
    return element


def _table(block: Table) -> Element:
    frame = Element("div", {"class": "scroll", "tabindex": "0"})
    table = SubElement(frame, "table", {"class": "numbers" if block.numeric else "words"})
    if any(block.header):
        row = SubElement(SubElement(table, "thead"), "tr")
        for text in block.header:
            SubElement(row, "th", {"scope": "col"}).text = text
    body = SubElement(table, "tbody")
    for place, cells in enumerate(block.rows):
        row = SubElement(body, "tr", {"class": "marked"} if place == block.marked else {})
        for column, cell in enumerate(cells):
            label = {"data-label": block.header[column]} if block.header[column] else {}
            element = SubElement(row, "td", label) if column else SubElement(row, "th", {"scope": "row"})
            _runs(element, (("plain", cell),) if isinstance(cell, str) else cell)
    return frame


def _figure(block: Figure) -> Element:
    figure = Element("figure")
    legend = SubElement(figure, "ul", {"class": "legend"})
    for label, kind in block.legend:
        entry = SubElement(legend, "li")
        entry.append(swatch(kind))
        SubElement(entry, "span").text = label
    panels = SubElement(figure, "div", {"class": "panels"})
    for drawing in block.drawings:
        panel = SubElement(panels, "div", {"class": "panel"})
        SubElement(panel, "h3").text = drawing.title
        panel.append(drawing.svg)
    _runs(SubElement(figure, "figcaption"), block.caption)
    return figure
