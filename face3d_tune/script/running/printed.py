"""The numbers in what a script prints: `name: value` in many styles, and rows of printed tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from face3d_tune.script.running.records import Given, unwrapped

_LONGEST, _LONGEST_NAME, _MOST_WORDS = 2_000, 60, 6  # characters of a line and of a name; words of a name

_COLOUR = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07?|.)")
_CLOCK = r"\d{1,3}:\d\d(?::\d\d)?(?:[.,]\d+)?"
_TIME = re.compile(
    rf"\[?\b\d{{4}}[-/]\d\d[-/]\d\d(?:[T ]+{_CLOCK})?(?:Z|[+-]\d\d:?\d\d)?\b\]?"  # 2026-01-01 12:00:00,123
    rf"|(?<![\d.:])\[?{_CLOCK}\b\]?"
    r"|\b[\w/]+\.py[: ]\d+\b"  # of a log: train.py:12
)
_LEVEL = r"(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|SUCCESS)"
_LOGGING = re.compile(
    rf"^[^\w]{{0,20}}(?:[\w.]{{1,60}}(?: ?- ?|: ?| ))?\[?\b{_LEVEL}\b\]?"  # `name - INFO - `, `[INFO] `
    r"(?: *\| *[\w.<>]+:[\w.<>]+:\d+ - |:[\w.]+:|[ :|-]*)"  # `INFO | module:function:12 - `, `INFO:root:`
    r"|^[IWEF]\d{4} .{0,60}?\] |^\[?rank ?\d+\]?:? *",
    re.IGNORECASE,
)
_BAR = re.compile(
    r"\d{1,3}%\|[^|]*\|(?: *[\d.]+\w?/[\d.?]+\w?)?"  # of tqdm
    r"|[\u2501\u2500\u2588\u2578\u257a]{5,}|\[[=>.\s]{5,}\]"  # of Keras
)
_SPEED = re.compile(
    r"\[[\d:?]*<[\d:?]*, *[\d.?]+ ?(?:\w+/s|s/\w+)(?:,|\]|(?=\s|$))"  # [00:10<00:12, 4.5it/s
    r"|\b[\d.]+ ?(?:it|m?s|us)/(?:step|it|s)\b"
)

_OF = r"(?:\s*(?:/|of|共)\s*\d+)?"
_EPOCH = re.compile(
    r"(?<![\w.])(?:epoch|ep|轮次|轮|周期)(?:\s?\(\w+\))?"
    r"(?:['\"]?\s*[:=：#]\s*[\[(]?\s*|\s*[\[(]\s*|\s+|(?=\d))"
    rf"(\d+)(?:\.\d+)?{_OF}\s*[\])]?(?![\w.%])"
    rf"|第\s*(\d+){_OF}\s*(?:个\s*)?(?:训练)?(?:轮次?|epoch|周期)"
    r"|^\s*train:\s*\[?(\d+)(?:/\d+\])?(?=\s*\[)",  # of timm, with the batch in brackets
    re.IGNORECASE,
)
_COUNTED_EPOCH = re.compile(r"^\s*\[?\s*(\d+)\s*/\s*\d+\s*\]?(?=\s|$|[:：,|])")  # [3/10]
_OTHER_EPOCH = re.compile(
    r"best|最佳|最优|最好|patience|early|stop|from|since|every|resum|load|恢复|加载|total|max|num|warm|总|共",
    re.IGNORECASE,
)
_EPOCH_ENDS = re.compile(r"^\W*(?:(?:done|finish\w*|complete\w*|end\w*|took)\b|结束|完成|用时|耗时)", re.IGNORECASE)
_COUNTER = re.compile(
    r"(?<![\w.])(?:(?:global[_ ])?step|iter(?:ation)?|batch|it|批次|步)s?\s*[:=：#]?\s*"
    r"[\[(]?\s*\d+(?:\s*/\s*\d+)?\s*[\])]?(?![\w.])"
    r"|[\[(]?\s*\b\d+\s*/\s*\d+\b(?:\s*\(\s*[\d.]+%\))?\s*[\])]?",
    re.IGNORECASE,
)
_SHARE = re.compile(r"(?<=[:=：])\s*\d+\s*/\s*\d+\s*\(([\d.]+)\s*%\)")  # Accuracy: 9847/10000 (98%)
_NUMBER = re.compile(
    r"(?:(?P<sep>[:=：→>]|\bis\b|为|是)\s*[\[(（'\"$]?\s*|(?<=[\s|(（,，\u4e00-\u9fff]))"
    r"(?P<value>[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan\b|inf(?:inity)?\b))"
    r"(?P<unit>\s?[%％]|[a-zA-Z°μ\u4e00-\u9fff]{1,5}(?:/[a-zA-Z]+)?\b)?(?![\w.@/]{0,20}\w|\s*[:=：])",
    re.IGNORECASE,
)
_MEASURED = re.compile(r"[.e%％]|nan|inf", re.IGNORECASE)  # a number that does not only count
_IN_BRACKETS = re.compile(r"(?<=\w)\s?[(（]\s*([^()（）:=]*?)\s*[)）]\s*$")
_SPLIT = re.compile(r"[,;!?！？|\t:=\[\]{}<>()，；、。：（）【】│┃→]+|\s+[-–—]+\s+|\s{2,}")
_ROUND_A_NAME = re.compile(r"^[\W_]+|[^\w%]+$")
_PHASE_WORD = r"(?:train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|test(?:ing)?|dev|训练集?|验证集?|测试集?)"
_PHASE = re.compile(rf"{_PHASE_WORD}(?:[ _]?(?:set|phase|metrics|results?|阶段|结果))?", re.IGNORECASE)
_BEGINS_WITH_PHASE = re.compile(rf"({_PHASE_WORD})(?:\s|(?=[\u4e00-\u9fff]))", re.IGNORECASE)
_ENDS_WITH_PHASE = re.compile(rf"(.+)\s{_PHASE_WORD}", re.IGNORECASE)
_NAMES_PHASE = re.compile(r"train|val|eval|test|dev|训练|验证|测试", re.IGNORECASE)
_OF_NO_PHASE = re.compile(r"(?:lr|learning.rate|time|学习率|用时|耗时)$", re.IGNORECASE)
_NO_NAME = {"to", "from", "in", "of", "at", "is", "and", "or", "for", "by", "it", "s", "ms", "eta", "than"}

_PATH = re.compile(r"^[\d.]*/|/.*\.[a-z]{2,}", re.IGNORECASE)

_CELLS = re.compile(r"\s*[|│┃]\s*|\s*[,\t]\s*|\s{2,}")
_CELL = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?%?[a-z]?|nan|inf|\d+/\d+", re.IGNORECASE)
_NO_NUMBER = re.compile(rf"{_CLOCK}|\d+/\d+|-|—|none|null", re.IGNORECASE)
_EPOCH_COLUMNS = ("epoch", "ep", "轮次", "轮")
_COLUMN = re.compile(r"[^\W\d][^:=：]{0,29}")
_VALUE = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf", re.IGNORECASE)


@dataclass(slots=True)
class _Pair:
    """A number in a line, with the headings before it: a phase, such as `Train:`, and any other."""

    name: str
    value: float
    phase: str
    heading: str


@dataclass(slots=True)
class Printed:
    """Lines of output, read one after another: an epoch that a line states also counts for those that follow."""

    epoch: int | None = None
    _worded: bool = False  # lines say the epoch as `Epoch 3`; so `3/10` counts something else
    _heading: str = ""  # a line such as `Validation:`
    _columns: list[str] = field(default_factory=list)

    def read(self, line: str) -> list[Given]:
        """Return the numbers of a line without its end."""
        text = unwrapped(_COLOUR.sub("", line[:_LONGEST])).replace("\x08", "").replace("−", "-")
        text, bar = _BAR.subn(" | ", text)
        text = _SPEED.sub(" | ", text)
        if (row := self._row(text)) is not None:
            return row
        text = _LOGGING.sub("", _TIME.sub("  ", text).strip()).strip()
        pairs = list(_pairs(_COUNTER.sub(" | ", _SHARE.sub(r"\1%", self._take_epoch(text)))))
        phase = text.strip(" \t|:：-=*#[]【】.…>")
        if not pairs and not bar and _PHASE.fullmatch(phase):
            self._heading = phase
        return [(name, self.epoch, value) for name, value in _named(pairs, self._heading)]

    def _take_epoch(self, text: str) -> str:
        """Take the epoch out of a line that states one."""
        for match in _EPOCH.finditer(text):
            if _OTHER_EPOCH.search(text[: match.start()]):
                continue
            self._worded = True
            self._state(int(next(group for group in match.groups() if group)))
            text = f"{text[: match.end()]}{_EPOCH_ENDS.sub('', text[match.end() :])}"
            break
        text = _EPOCH.sub(" | ", text)
        if not self._worded and (counted := _COUNTED_EPOCH.match(text)):
            self._state(int(counted[1]))
        return text

    def _state(self, epoch: int) -> None:
        if epoch != self.epoch:
            self._heading = ""
        self.epoch = epoch

    def _row(self, text: str) -> list[Given] | None:
        """Return the numbers of a table's row; None if the line is none."""
        cells = _cells(text)
        if len(cells) < 2:
            return None
        numeric = [bool(_CELL.fullmatch(cell)) for cell in cells]
        if not any(numeric):
            if all(_COLUMN.fullmatch(cell) for cell in cells):
                self._columns = cells
            return None
        known = [number or bool(_NO_NUMBER.fullmatch(cell)) for number, cell in zip(numeric, cells, strict=True)]
        if len(cells) != len(self._columns) or not all(known[1:]):
            return None
        label = "" if known[0] or cells[0].lower() == "all" else f"{cells[0]} "
        for name, cell in zip(self._columns, cells, strict=True):
            if name.lower() in _EPOCH_COLUMNS and (digits := re.match(r"\d+", cell)):
                self._state(int(digits[0]))
        return [
            (label + name, self.epoch, _value(cell))
            for name, cell in zip(self._columns, cells, strict=True)
            if _VALUE.match(cell) and not _NO_NUMBER.fullmatch(cell) and name.lower() not in _EPOCH_COLUMNS
        ]


def _cells(text: str) -> list[str]:
    """Split a line into the cells of a table."""
    cells = (cell.rstrip(":：").strip() for cell in _CELLS.split(text.strip().strip("|│┃").strip()))
    return [cell for cell in cells if cell]


def _value(text: str) -> float:
    match = _VALUE.match(text)
    return float(match[0]) if match else float("nan")


def _pairs(text: str) -> Iterator[_Pair]:
    """Find each `name: value` of a line, from left to right."""
    before, phase, heading, measure = 0, "", "", ""
    for match in _NUMBER.finditer(text):
        label, unit = text[before : match.start()], (match["unit"] or "").strip()
        if not match["sep"]:
            # Without `:` a number counts if it looks measured, or stands in a cell beside its name.
            cell = re.search(r"[|\t]\s*$", label) and re.match(r"\s*(?:[|\t]|$)", text[match.end() :])
            if not (_MEASURED.search(match["value"] + unit[:1]) or cell):
                continue
        elif bracket := _IN_BRACKETS.search(label):  # `Loss (mean): 0.5`
            label = f"{label[: bracket.start()]} {bracket[1]}"
        before = match.end()
        parts = [_ROUND_A_NAME.sub("", part) for part in _SPLIT.split(label)]
        parts = [part for part in parts if re.search(r"[^\W\d_]", part)]
        for part in parts[:-1]:
            heading = part
            if _PHASE.fullmatch(part):
                phase = part
            else:
                measure = part
        if not parts or not _is_name(parts[-1]):
            continue
        name = parts[-1]
        if ends := _ENDS_WITH_PHASE.fullmatch(name):
            measure = ends[1]
        elif measure and _PHASE.fullmatch(name):  # `Loss: train 0.5, val 0.4`
            name = f"{measure} {name}"
        own = _BEGINS_WITH_PHASE.match(name)
        yield _Pair(name, float(match["value"]), phase, own[1] if own else heading)
        heading = own[1] if own else heading


def _is_name(text: str) -> bool:
    words = text.lower().split()
    short = len(text) <= _LONGEST_NAME and len(words) <= _MOST_WORDS
    return short and words[-1] not in _NO_NAME and not _PATH.search(text)


def _named(pairs: list[_Pair], heading: str) -> Iterator[tuple[str, float]]:
    """Give each number its name, with the phase that it belongs to if the name alone does not say it."""
    if not pairs:
        return
    names = [pair.name for pair in pairs]
    phases = {match[1].lower() for name in names if (match := _BEGINS_WITH_PHASE.match(name))}
    first = _BEGINS_WITH_PHASE.match(names[0])
    for pair in pairs:
        prefix = ""
        if not _NAMES_PHASE.search(pair.name) and not _OF_NO_PHASE.match(pair.name):
            if pair.phase:
                prefix = pair.phase
            elif names.count(pair.name) > 1:
                prefix = pair.heading
            elif first and len(phases) == 1:
                prefix = first[1]
            else:
                prefix = heading
        yield _joined(prefix, pair.name), pair.value


def _joined(prefix: str, name: str) -> str:
    if not prefix:
        return name
    return f"{prefix}{name}" if re.match(r"[\u4e00-\u9fff]", name) else f"{prefix} {name}"
