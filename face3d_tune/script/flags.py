"""The flags that a user's training script accepts: its `add_argument` calls, read from the source and never run."""

import ast
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from face3d_tune.errors import ExportError
from face3d_tune.system import regular_file


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN  # a default that is no literal in the source

_VALUELESS = ("store_true", "store_false", "store_const", "append_const", "count", "help", "version")


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

    @property
    def typed(self) -> str:
        """Return the option as typed; the one that sets False if there is no other."""
        return f"--{self.name or self.off_name}"


@dataclass(frozen=True, slots=True)
class Script:
    """A training script: its path as typed, and its flags.

    A flag is found by its destination and by each of its long names, all spelt with underscores.
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
        *("lr", "mse_weight", "cosine_weight", "scheduler_factor", "scheduler_patience", "scheduler_min_lr"),
        *(
            "early_stopping_patience",
            "early_stopping_min_delta",
            "num_workers",
            "device",
            "save_dir",
            "log_dir",
            "resume",
        ),
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

    Raises ExportError if the file does not exist, if it is not Python, or if it declares no `--` option.
    """
    tree = _parse(path)
    flags: dict[str, Flag] = {}
    for call in _calls(tree, "add_argument"):
        _add(flags, call)
    if not flags:
        raise ExportError(
            f'{path} has no add_argument("--…") call, so it takes no flags',
            "name the file that builds the argument parser, usually train_transformer3D/train_3d.py",
        )
    for call in _calls(tree, "set_defaults"):
        for name, value in _keywords(call).items():
            if name in flags:
                flags[name] = replace(flags[name], default=_literal(value))
    return Script(str(path), MappingProxyType(flags))


def _parse(path: Path) -> ast.Module:
    """Parse the script into a syntax tree, with byte-order mark and coding cookie."""
    hint = "name a Python file, usually train_transformer3D/train_3d.py"
    try:
        regular_file.require(path, most=regular_file.MOST_TEXT)
        with tokenize.open(path) as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "\d" in a string: the script's own affair
            return ast.parse(source)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}", hint) from error
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise ExportError(f"{path} is not Python: {where}{error.msg}", hint) from error
    except ValueError as error:  # bytes that the declared encoding does not have, or a null byte
        raise ExportError(f"{path} is not Python text: {error}", hint) from error


def _calls(tree: ast.Module, method: str) -> Iterator[ast.Call]:
    """Yield every call of a method of that name, in the order of the source."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == method]
    return iter(sorted(named, key=lambda call: (call.lineno, call.col_offset)))


def _add(flags: dict[str, Flag], call: ast.Call) -> None:
    """Enter the option that an `add_argument` call declares under its destination and each of its long names."""
    words = [_literal(argument) for argument in call.args]
    names = [word[2:] for word in words if isinstance(word, str) and word.startswith("--")]
    if not names:
        return  # a positional argument, a short option, or a name that only running the script would show
    keywords = _keywords(call)
    destination = _literal(keywords["dest"]) if "dest" in keywords else names[0]
    flag = _flag(names[0], keywords)
    for key in {str(name).replace("-", "_") for name in (destination, *names)}:
        flags[key] = _merge(flags[key], flag) if key in flags else flag


def _flag(name: str, keywords: Mapping[str, ast.expr]) -> Flag:
    action = _action(keywords.get("action"))
    default = _literal(keywords["default"]) if "default" in keywords else None
    required = "required" in keywords and _literal(keywords["required"]) is True
    if action == "store_true":
        return Flag(name=name, takes_value=False, default=default or False, required=required)
    if action == "store_false":
        value = default if "default" in keywords else True
        return Flag(name=None, takes_value=False, default=value, off_name=name, required=required)
    if action == "BooleanOptionalAction":
        return Flag(name=name, takes_value=False, default=default, off_name=f"no-{name}", required=required)
    choices = _literal(keywords["choices"]) if "choices" in keywords else None
    return Flag(
        name=name,
        takes_value=action not in _VALUELESS,
        default=default,
        choices=tuple(choices) if isinstance(choices, (list, tuple, set)) else None,
        required=required,
    )


def _merge(first: Flag, second: Flag) -> Flag:
    """Merge two options with the same destination, as `--amp` and `--no_amp`; the first's default applies."""
    return replace(first, name=first.name or second.name, off_name=first.off_name or second.off_name)


def _action(node: ast.expr | None) -> str:
    match node:
        case ast.Constant(value=str(name)) | ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return "store"


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN
