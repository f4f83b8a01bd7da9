"""Pieces of Markdown for notes."""

import re


def plain(text: str) -> str:
    """Escape text so that Markdown has nothing to parse."""
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", text)


def block(commands: str) -> str:
    """Return commands as a block, a line for each flag: a single line would be too wide to read."""
    lines = commands.splitlines()
    shown = [line if line.startswith("#") else line.replace(" --", " \\\n  --") for line in lines]  # comments end there
    return "\n".join(["```", *shown, "```"])
