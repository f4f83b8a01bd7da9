"""Pieces of Markdown for notes: what a database holds is shown as text, whatever it is."""

import re
import shlex

from face3d_tune.system.safe_text import visible

_SYNTAX = re.compile(r"[\\`*_{}\[\]<>|#!~$&]")
_BLOCK = re.compile(r"[-+=](?=[-=\s]|$)|\d+(?=[.)](?:\s|$))")  # begins a list or a heading where it begins a line
_LINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=\w)", re.IGNORECASE)  # GitHub's Markdown makes links of these
_JOINER = "\u2060"  # of no width


def plain(content: object) -> str:
    r"""Return content on one line, escaped so that Markdown has nothing to parse.

    A line break, or what else no line can show, stands there as Python writes it: `\n`.
    """
    line = visible(str(content)).strip()
    first = _BLOCK.match(line)
    start = first.end() if first else 0
    escaped = line[:start] + _SYNTAX.sub(r"\\\g<0>", line[start:])
    if first:
        escaped = f"{escaped[:start]}\\{escaped[start:]}" if line[0].isdigit() else f"\\{escaped}"
    return _LINK.sub(_JOINER, escaped)


def word(text: str) -> str:
    """Quote text for bash, on one line."""
    if text.isprintable():
        return shlex.quote(text)
    quoted = text.replace("\\", r"\\").replace("'", r"\'")
    return "$'" + "".join(each if each.isprintable() else repr(each)[1:-1] for each in quoted) + "'"


def block(commands: str) -> str:
    """Return commands as a block, a line for each flag: a single line would be too wide to read."""
    lines = commands.splitlines()
    shown = [line if line.startswith("#") else line.replace(" --", " \\\n  --") for line in lines]  # comments end there
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", commands)), default=0))
    return "\n".join([fence, *shown, fence])
