"""The language of the terminal: chosen once for a command, and every line translated as it is printed.

The rest of the package speaks English. `chinese.toml` maps English sentences to Chinese ones; both are templates with
the same placeholders. A line without an entry is printed as it is. A placeholder matches any text, in which sentences
of the table are translated. The kinds of placeholders:

    {name}      any text
    {n}, {n1}   a number
    {ns}        numbers, separated by commas
    {name!}     sentences of the table alone, or text without Latin letters
    {name~}     any text; its words are translated too, not only its sentences
    {name=}     any text, which stays as it is, such as a command
    {_s}        letters that the Chinese sentence omits, such as the s of a plural
"""

import functools
import locale
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal
from unicodedata import east_asian_width

import click

from face3d_tune.system.safe_text import visible

LANGUAGES = ("en", "zh")
VARIABLE = "FACE3D_TUNE_LANG"

_LOCALES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set counts, as for gettext
_WINDOWS = "win32"
_PLACEHOLDER = re.compile(r"\{(\w+)([!~=]?)\}")
_NUMBER = re.compile(r"[+-]?\d[\d.,:e+–-]*|nan|–")
_SEPARATORS = {"; ": "；", ": ": "：", ", ": "，"}
_SEPARATOR = re.compile("; |: |, ")
_SPACE = re.compile("(?<=[\u4e00-\u9fff）：；，。]) (?=[\u4e00-\u9fff（])")  # a space stands beside Latin letters only
_MOST_PARTS = 12  # of a line; one with more comes from another program

_chosen = "en"


def choose(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Choose the language of this command: `--lang`, else `FACE3D_TUNE_LANG`, else the locale.

    It is English where standard output or error cannot show Chinese characters.
    """
    global _chosen
    wanted = _typed(arguments) or environment.get(VARIABLE) or of_locale(environment)
    _chosen = "zh" if wanted == "zh" and all(map(_shows_chinese, (sys.stdout, sys.stderr))) else "en"


def _typed(arguments: Sequence[str]) -> str | None:
    """Find the last `--lang`: before the options are parsed, because they may be what is wrong."""
    options = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    values = [after for word, after in pairwise(options) if word == "--lang"]
    values += [word.removeprefix("--lang=") for word in options if word.startswith("--lang=")]
    return next((value for value in reversed(values) if value in LANGUAGES), None)


def of_locale(environment: Mapping[str, str], platform: str = sys.platform) -> str:
    """Return the language of the person's locale: `zh` for every Chinese one, else `en`."""
    name = next((environment[each] for each in _LOCALES if environment.get(each)), "")
    if not name and platform == _WINDOWS:  # where these variables are unset
        name = locale.getlocale(locale.LC_CTYPE)[0] or ""
    if name.partition(".")[0] not in ("", "C", "POSIX"):
        name = environment.get("LANGUAGE", "").partition(":")[0] or name
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


def _shows_chinese(stream: object) -> bool:
    try:
        "错误：研究".encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def chosen() -> Literal["en", "zh"]:
    """Return the language of this command, for what has sentences of its own in both."""
    return "zh" if _chosen == "zh" else "en"


def say(text: str, *, err: bool = False) -> None:
    """Print lines for a person, in the chosen language. What programs read goes through `click.echo`."""
    click.echo(visible(translate(text), keep="\n\t"), err=err)


def translate(text: str) -> str:
    """Return lines in the chosen language."""
    return text if _chosen == "en" else "\n".join(map(_line, text.split("\n")))


def word(text: str) -> str:
    """Return a word that stands alone, such as the heading of a column, in the chosen language."""
    return text if _chosen == "en" else _table().words.get(text) or translate(text)


def padded(text: str, columns: int) -> str:
    """Pad text with spaces to a number of columns: a Chinese character takes two."""
    return text + " " * max(0, columns - width(text))


def width(text: str) -> int:
    """Count the columns that a terminal needs for a text."""
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


@dataclass(frozen=True, slots=True)
class Template:
    """An English sentence with placeholders, and its Chinese one.

    `literals` are the texts around the placeholders: one more than there are placeholders.
    """

    literals: tuple[str, ...]
    placeholders: tuple[tuple[str, str], ...]  # name and kind: "", "!", "~" or "="
    chinese: str

    def match(self, text: str) -> dict[str, str] | None:
        """Return the Chinese value of each placeholder, if the whole text is this sentence."""
        first, *between, last = self.literals
        at, end = len(first), len(text) - len(last)
        if at > end or not (text.startswith(first) and text.endswith(last)):
            return None
        texts = []
        for literal in between:
            place = text.find(literal, at, end)
            if place < 0:
                return None
            texts.append(text[at:place])
            at = place + len(literal)
        texts.append(text[at:end])
        values = {}
        for (name, kind), each in zip(self.placeholders, texts, strict=True):
            if (value := _value(each, name, kind)) is None:
                return None
            values[name] = value
        return values

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the Chinese sentence with these values."""
        text = _PLACEHOLDER.sub(lambda match: values[match[1]], self.chinese)
        return _SPACE.sub("", text)


@dataclass(frozen=True)
class _Table:
    sentences: Mapping[str, str]  # without placeholders
    templates: Sequence[Template]  # the one with the most literal text first
    words: Mapping[str, str]
    labels: Mapping[str, str]


@functools.cache
def _table() -> _Table:
    sections = read()
    labels, words = sections.pop("labels"), sections.pop("words")
    entries = {english: chinese for section in sections.values() for english, chinese in section.items()}
    templates = [template(english, chinese) for english, chinese in entries.items() if _PLACEHOLDER.search(english)]
    templates.sort(key=lambda each: -sum(map(len, each.literals)))
    return _Table(entries, templates, words, labels)


def read() -> dict[str, dict[str, str]]:
    """Read the table: section, English, Chinese."""
    return tomllib.loads(Path(__file__).with_name("chinese.toml").read_text(encoding="utf-8"))


def template(english: str, chinese: str) -> Template:
    """Take an entry of the table apart."""
    placeholders = tuple((match[1], match[2]) for match in _PLACEHOLDER.finditer(english))
    return Template(tuple(_PLACEHOLDER.split(english)[::3]), placeholders, chinese)


def _line(line: str) -> str:
    """Translate a line: its indentation stays, and a label such as `error: ` is translated apart from the rest."""
    rest = line.lstrip()
    for label, chinese in _table().labels.items():
        if rest.startswith(label):
            return line[: -len(rest)] + chinese + _line(rest.removeprefix(label))
    return line if (sentence := _sentence(line)) is None else sentence


@functools.lru_cache(maxsize=1024)
def _sentence(text: str, words: bool = False) -> str | None:
    """Return a sentence in Chinese, as wide as before if spaces follow it; None if the table knows no part of it."""
    core = text.strip()
    chinese = _whole(core) or (_table().words.get(core) if words else None) or _parts(core, words)
    if chinese is None:
        return None
    start = text.index(core)
    tail = len(text) - start - len(core)
    return text[:start] + (padded(chinese, width(core) + tail - 1) + " " if tail else chinese)


def _whole(text: str) -> str | None:
    """Return the Chinese of a text that is one sentence of the table."""
    table = _table()
    if (sentence := table.sentences.get(text)) is not None:
        return sentence
    for each in table.templates:
        if (values := each.match(text)) is not None:
            return each.filled(values)
    return None


def _parts(text: str, words: bool) -> str | None:
    """Translate those parts of a text that the table has: between `; `, `: ` and `, `, and in parentheses."""
    cuts = list(_SEPARATOR.finditer(text))
    if len(cuts) <= _MOST_PARTS:
        for cut in reversed(cuts):
            if (head := _whole(text[: cut.start()])) is not None:
                return head + _SEPARATORS[cut[0]] + (_sentence(text[cut.end() :], words) or text[cut.end() :])
        for cut in cuts:
            head, tail = text[: cut.start()], text[cut.end() :]
            first, rest = (_table().words.get(head) if words else None), _sentence(tail, words)
            if first is None and (before := re.fullmatch(r"(.+) \((.+)\)", head)) and (inner := _sentence(before[2])):
                first = f"{before[1]}（{inner}）"
            if first or rest:
                return (first or head) + _SEPARATORS[cut[0]] + (rest or tail)
    if match := re.fullmatch(r"(.*?) ?\((.+)\)(.?)", text):
        outside, inside = _sentence(match[1], words), _sentence(match[2], words)
        if outside or inside:
            return f"{outside or match[1]}（{inside or match[2]}）{match[3]}"
    return None


def _value(text: str, name: str, kind: str) -> str | None:
    """Return the value of a placeholder in Chinese; None if it is not of the placeholder's kind."""
    if re.fullmatch(r"n\d*|ns", name):
        numbers = text.split(", ") if name == "ns" else [text.strip()]
        return text if all(map(_NUMBER.fullmatch, numbers)) else None
    if name.startswith("_"):
        return text if re.fullmatch(r"\w*", text) else None
    if kind in ("", "=") and "; " in f"{text} ":  # another sentence follows
        return None
    if kind == "=":
        return text
    if kind == "!" and not _covers(text.strip()):
        return None
    chinese = _sentence(text, kind == "~") if kind or " " in text else None
    return text if chinese is None else chinese


def _covers(text: str) -> bool:
    """Tell whether the table has all of a text, as one sentence or as several."""
    if not re.search("[A-Za-z]", text) or _whole(text) is not None:
        return True
    return any(_whole(text[: cut.start()]) and _covers(text[cut.end() :]) for cut in _SEPARATOR.finditer(text))
