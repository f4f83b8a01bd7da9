"""The flags that a user's training script accepts: its `add_argument` calls, read from the source and never run."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from face3d_tune.errors import ExportError
from face3d_tune.script import sources


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN  # a default that is no literal in the source

# What a flag takes: `switch` is true or false without a value, `other` none of these, such as a count.
Kind = Literal["int", "float", "str", "bool", "switch", "other"]

_NUMBERS: tuple[Kind, ...] = ("int", "float")
_MEASURED = r"[-+]?(0?\.\d+|\d+\.?\d*(?=e)|\.\d+(?=e))(e[-+]?\d+)?"  # as text in the source; no version such as 11.8
_TRUTH = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}
_OTHER_PARSERS = ("click", "typer", "fire", "absl", "hydra", "tyro", "jsonargparse", "simple_parsing")
_REPEATING = ("append", "extend")
_VALUELESS = ("store_const", "append_const", "count", "help", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One option of a script. `name` is typed after two dashes to give its value or to set True.

    `off_name` sets False, if the script has such a flag: `no-x` of a BooleanOptionalAction, or a `store_false`. `name`
    is None if only that exists.
    """

    name: str | None
    takes_value: bool = True
    default: Any = UNKNOWN  # a literal, or UNKNOWN
    choices: tuple[Any, ...] | None = None  # None: anything, or no literal
    off_name: str | None = None
    required: bool = False
    kind: Kind = "str"  # of each value
    many: bool = False  # takes a list of such values
    repeats: bool = False  # each value of the list follows a flag of its own
    false: str = "False"  # how a bool is typed that is false: type=bool takes every text but the empty one for true

    @property
    def typed(self) -> str:
        """Return the option as typed; the one that sets False if there is no other."""
        return f"--{self.name or self.off_name}"


@dataclass(frozen=True, slots=True)
class Script:
    """A training script: its path as typed, and its flags.

    A flag is found by its destination and by each of its long names that do not set False, all spelt with underscores.
    """

    path: str
    flags: Mapping[str, Flag]


def _documented() -> Script:
    no_value = ("use_mixed_precision", "use_spatial_attention", "use_pose_attention", "deterministic")
    defaults = {
        "data_dir": "train/datas/file",
        "batch_size": 32,
        "epochs": 100,
        "d_model": 512,
        "nhead": 8,
        "num_layers": 4,
        "dim_feedforward": 2048,
        "dropout": 0.1,
        "weight_decay": 1e-5,
    }
    unsaid = (
        "lr",
        "mse_weight",
        "cosine_weight",
        "scheduler_factor",
        "scheduler_patience",
        "scheduler_min_lr",
        "early_stopping_patience",
        "early_stopping_min_delta",
        "num_workers",
        "device",
        "save_dir",
        "log_dir",
        "resume",
    )
    flags = {
        **{name: Flag(name=name, default=value) for name, value in defaults.items()},
        **{name: Flag(name=name) for name in unsaid},
        "loss_type": Flag(name="loss_type", choices=("mse", "cosine", "combined")),
        **{name: Flag(name=name, takes_value=False, default=False) for name in no_value},
    }
    return Script("train_transformer3D/train_3d.py", MappingProxyType(flags))


DOCUMENTED = _documented()  # the copy that the tuning guide describes (trainer contract §5)


def read_script(path: Path) -> Script:
    """Read the flags of the script at `path`.

    A script without any may build its argument parser in a file that it imports: that file's flags count then. Raises
    ExportError if the file does not exist, if it is not Python, or if it declares no `--` option.
    """
    tree = sources.parse(path)
    flags = _read(tree)
    if not flags:
        for each in sources.imported(path):
            with suppress(ExportError):
                flags = flags or _read(sources.parse(each))
    if not flags:
        hint = "name the file that builds the argument parser, usually train_transformer3D/train_3d.py"
        if other := next((name for name in _imported(tree) if name in _OTHER_PARSERS), None):
            hint = (
                f"only flags of argparse can be read: write a short script with argparse that calls this one of {other}"
            )
        raise ExportError(f'{path} has no add_argument("--…") call, so it takes no flags', hint)
    return Script(str(path), MappingProxyType(flags))


def arguments(script: Script, name: str, value: Any) -> list[str] | str:
    """Return the arguments that give the flag `name` this value, or why there are none.

    They are none if the script has the value without being told. A float is written in full, so that it is read back
    exactly.
    """
    flag = script.flags.get(name)
    if flag is None:
        return f"{script.path} has no --{name}"
    if not flag.takes_value:
        return _switch(value, flag)
    values = value if flag.many and isinstance(value, list | tuple) else [value]
    texts = [_text(each, flag) for each in values]
    for text in texts:
        if flag.choices is not None and text not in map(str, flag.choices):
            return f"{flag.typed} takes only {', '.join(map(str, flag.choices))}"
    if flag.many and not flag.repeats:
        return [flag.typed, *texts]
    # argparse takes a text that begins with a dash for another flag, unless = binds it to its own.
    pairs = [[f"{flag.typed}={text}"] if text.startswith("-") else [flag.typed, text] for text in texts]
    return [word for pair in pairs for word in pair]


def values(script: Script, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Read the flags' values from the arguments of a command, and return them with the arguments that remain.

    An argument remains if the source does not declare it, such as a positional one, or if its value does not fit.
    """
    by_word: dict[str, str] = {}
    for name, declared in script.flags.items():
        for each in (declared.name, declared.off_name):
            by_word.setdefault(f"--{each}", name)
    found: dict[str, Any] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word, equals, bound = waiting.pop(0).partition("=")
        flag = script.flags[by_word[word]] if word in by_word else None
        texts = [bound] if equals else []
        if flag is not None and flag.takes_value and not equals:
            count = next((n for n, text in enumerate(waiting) if text.startswith("--")), len(waiting))
            count = count if flag.many and not flag.repeats else min(count, 1)
            texts, waiting = waiting[:count], waiting[count:]
        try:
            value = _value(flag, word, texts)
        except (ValueError, IndexError):
            rest += [word + equals + bound] if equals else [word, *texts]
            continue
        name = by_word[word]
        found[name] = [*found.get(name, []), *value] if flag is not None and flag.repeats else value
    return found, rest


def _value(flag: Flag | None, word: str, texts: Sequence[str]) -> Any:
    """Convert the texts after a flag. Raises ValueError, or IndexError if there is none."""
    if flag is None or flag.kind == "other":
        raise ValueError(word)
    if flag.kind == "switch":
        return word == f"--{flag.name}"
    kinds: Mapping[str, Any] = {"int": int, "float": float, "str": str, "bool": _TRUTH.__getitem__}
    read = kinds[flag.kind]
    try:
        return [read(text) for text in texts] if flag.many else read(texts[0])
    except KeyError as error:
        raise ValueError(word) from error


def _switch(value: Any, flag: Flag) -> list[str] | str:
    if not isinstance(value, bool):
        return f"{flag.typed} takes no value"
    word = flag.name if value else flag.off_name
    if word is not None:
        return [f"--{word}"]
    if flag.default is UNKNOWN:
        return f"no flag says so, and the default of {flag.typed} cannot be read from the source"
    return [] if bool(flag.default) is value else f"{flag.typed} is {flag.default} by default and no flag undoes that"


def _text(value: Any, flag: Flag) -> str:
    if value is False:
        return flag.false
    if flag.many and isinstance(value, float) and value < 0:
        return format(Decimal(repr(value)), "f")  # argparse knows -0.00001 for a number in a list, but not -1e-05
    return value if isinstance(value, str) else repr(value)


def _read(tree: ast.Module) -> dict[str, Flag]:
    """Return the flags that a file declares."""
    flags: dict[str, Flag] = {}
    for call in _calls(tree, "add_argument"):
        _add(flags, call)
    for call in _calls(tree, "set_defaults"):
        for name, value in _keywords(call).items():
            if name in flags:
                flags[name] = replace(flags[name], default=_literal(value))
    return flags


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the packages that a file imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name.partition(".")[0] for each in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0]


def _calls(tree: ast.Module, method: str) -> Iterator[ast.Call]:
    """Yield every call of a method of that name, in the order of the source."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == method]
    return iter(sorted(named, key=lambda call: (call.lineno, call.col_offset)))


def _add(flags: dict[str, Flag], call: ast.Call) -> None:
    """Enter the option that an `add_argument` call declares under its destination and each of its long names."""
    words = [_literal(argument) for argument in call.args]
    names = [word[2:] for word in words if isinstance(word, str) and re.match("--.", word)]
    if not names:
        return  # a positional argument, a short option, or a name that only running the script would show
    keywords = _keywords(call)
    stated = _literal(keywords["dest"]) if "dest" in keywords else None
    destination = stated if stated and isinstance(stated, str) else names[0]
    flag = _flag(names[0], keywords)
    # `--no_amp` with dest="amp" is amp = false: no_amp = true would read as its opposite.
    words = [destination, *names] if flag.name else [destination]
    for key in dict.fromkeys(str(word).replace("-", "_") for word in words):
        flags[key] = _merge(flags[key], flag) if key in flags else flag


def _flag(name: str, keywords: Mapping[str, ast.expr]) -> Flag:
    action = _last_name(keywords.get("action"))
    default = _literal(keywords["default"]) if "default" in keywords else None
    required = "required" in keywords and _literal(keywords["required"]) is True
    if action == "store_true":
        return Flag(name=name, takes_value=False, default=default or False, required=required, kind="switch")
    if action == "store_false":
        value = default if "default" in keywords else True
        return Flag(name=None, takes_value=False, default=value, off_name=name, required=required, kind="switch")
    if action == "BooleanOptionalAction":
        off = f"no-{name}"
        return Flag(name=name, takes_value=False, default=default, off_name=off, required=required, kind="switch")
    if action in _VALUELESS:
        return Flag(name=name, takes_value=False, default=default, required=required, kind="other")
    listed = _literal(keywords["choices"]) if "choices" in keywords else None
    choices = tuple(listed) if isinstance(listed, (list, tuple, set)) else None
    nargs = _literal(keywords["nargs"]) if "nargs" in keywords else None
    kind_name = _last_name(keywords.get("type"))
    kind = _kind(kind_name, choices or default)
    return Flag(
        name=name,
        default=_converted(default, kind),
        choices=choices,
        required=required,
        kind=kind,
        many=nargs not in (None, "?") or action in _REPEATING,
        repeats=action in _REPEATING,
        false="" if kind_name in ("", "bool") else "False",
    )


def _kind(type_name: str, example: Any) -> Kind:
    """Return what a flag takes, by the name of its `type=`; else by its default or a choice."""
    words = {word.lower() for word in re.split(r"_|(?<=[a-z])(?=[A-Z])", type_name)}
    if isinstance(example, list | tuple):
        example = next(iter(example), None)
    if not words & {*_NUMBERS, "bool"} and isinstance(example, str) and re.fullmatch(_MEASURED, example):
        return "float"  # `--lr` with the default "1e-4": the script converts it itself
    for kind in _NUMBERS:
        if kind in words or (not words & {*_NUMBERS, "str"} and type(example).__name__ == kind):
            return kind  # also positive_int, FloatRange
    return "bool" if "bool" in type_name.lower() or isinstance(example, bool) else "str"


def _converted(default: Any, kind: Kind) -> Any:
    """Return a default as the number that argparse, or the script, makes of its text."""
    if isinstance(default, str) and kind in _NUMBERS:
        with suppress(ValueError):
            return int(default) if kind == "int" else float(default)
    return default


def _merge(first: Flag, second: Flag) -> Flag:
    """Merge two options with the same destination, as `--amp` and `--no_amp`; the first's default applies."""
    return replace(first, name=first.name or second.name, off_name=first.off_name or second.off_name)


def _last_name(node: ast.expr | None) -> str:
    """Return the name that an action or type has in the source, without its module; empty if it has none."""
    match node:
        case ast.Constant(value=str(name)) | ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Lambda():
            return "lambda"
    return ""


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN
