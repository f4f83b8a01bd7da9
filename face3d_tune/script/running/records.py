"""The numbers of dicts: records with an epoch, histories with a place for each epoch, and text that holds a dict."""

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from face3d_tune.training import checkpoint_file

Given = tuple[str, int | None, float]  # the name of a number, its epoch if the source says one, its value

_SAYS_EPOCH = ("epoch", "轮次", "轮", "step", "global_step", "iteration", "iter")
_DEEPEST = 4  # dicts in dicts
_WRAPPED = re.compile(r"\b(?:(?:np|numpy)\.\w+|tensor|array)\(\s*\[?([^()\[\],]*)\]?[^()]*\)")
warnings.filterwarnings("ignore", module="<unknown>")  # of `literal_eval`, at a printed path such as "C:\\data"
_WORDS = {"nan": "NaN", "inf": "Infinity", "None": "null", "True": "true", "False": "false"}


def of_line(line: str) -> Any | None:
    """Parse a line that is a JSON object or a Python dict as `print` writes it; None if it is neither."""
    text = line.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        text = unwrapped(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # TypeError: {{}}, a set with a dict
        text = re.sub(r"(?<![\w'\"])(?:nan|inf|None|True|False)(?![\w'\"])", lambda word: _WORDS[word[0]], text)
    try:
        return json.loads(text.replace("'", '"'))
    except (ValueError, RecursionError):
        return None


def unwrapped(text: str) -> str:
    """Write `tensor(0.5, device='cuda:0')` and `np.float64(0.5)` as 0.5."""
    return _WRAPPED.sub(r"\1", text) if "(" in text else text


def of_record(record: Mapping[Any, Any]) -> list[Given]:
    """Return the numbers of a dict, nested keys joined with a dot, at the epoch that a key of it says."""
    flat = dict(_flat(record))
    epoch = epoch_of(flat)
    return [(name, epoch, value) for name, value in flat.items() if not says_epoch(name)]


def of_file(content: Any) -> list[Given]:
    """Return the numbers of a whole file: a dict or a list of records, with histories and lists of records in it."""
    if isinstance(content, list):
        return [each for place, record in enumerate(content, 1) for each in _placed(record, place)]
    if not isinstance(content, Mapping):
        return []
    return [*of_histories(content), *of_record(content)]


def of_histories(content: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> list[Given]:
    """Return the numbers of every list in a dict, and in the dicts of it, each with its place from 1 as its epoch."""
    given: list[Given] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if says_epoch(name):
            continue
        if (inner := checkpoint_file.mapping(value)) is not None:
            if depth < _DEEPEST:
                given += of_histories(inner, f"{name}.", depth + 1)
        elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
            records = enumerate(value, 1)
            given += [
                (f"{name}.{own}", at, value_there)
                for place, each in records
                for own, at, value_there in _placed(each, place)
            ]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            numbers = [number(each) for each in value]
            if all(each is None or found is not None for each, found in zip(value, numbers, strict=True)):
                given += [(name, place, each) for place, each in enumerate(numbers, 1) if each is not None]
    return given


def _placed(record: Any, place: int) -> list[Given]:
    """Return the numbers of a record in a list, which gives them their epoch if the record does not."""
    given = of_record(record) if isinstance(record, Mapping) else []
    return [(name, place if epoch is None else epoch, value) for name, epoch, value in given]


def epoch_of(numbers: Mapping[str, float]) -> int | None:
    """Return the epoch of a record; a fraction of an epoch counts as the epoch that it is part of."""
    named = {name.lower(): value for name, value in numbers.items()}
    said = [named[key] for key in _SAYS_EPOCH if math.isfinite(named.get(key, math.nan))]
    return math.ceil(said[0]) if said else None


def says_epoch(name: str) -> bool:
    """Return whether a number by this name is the epoch, and no measurement."""
    return name.rpartition(".")[2].lower() in _SAYS_EPOCH


def _flat(record: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Yield the single numbers of a dict and of the dicts in it."""
    for key, value in record.items():
        inner = checkpoint_file.mapping(value)
        if inner is not None:
            if depth < _DEEPEST:
                yield from _flat(inner, f"{prefix}{key}.", depth + 1)
        elif (single := number(value)) is not None:
            yield f"{prefix}{key}", single


def number(value: Any) -> float | None:
    """Return an int, float, or number of numpy or torch as a float; None for truth values, text and all else."""
    if isinstance(value, bool) or value is None or isinstance(value, str | bytes | Sequence):
        return None
    if hasattr(value, "shape") and (tuple(value.shape) not in ((), (1,)) or "bool" in str(value.dtype)):
        return None
    return checkpoint_file.number(value) if hasattr(value, "__float__") else None
