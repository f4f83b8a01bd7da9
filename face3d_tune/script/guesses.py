"""What a flag of a script means, guessed from its name, kind and default: what it is for, and in which range to search.

The names are those that trainers use; a person edits what is guessed wrong.
"""

import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from face3d_tune.errors import UnsearchableError
from face3d_tune.script.flags import Flag, Script, values

Values = list[Any] | dict[str, Any]  # a row of [space]: choices, or a range

_EPOCHS = r"(n_?|num_?|nb_?|max_?|total_?|train_?|num_train_?)?epochs?"
_SEED = r"(random_?|manual_?|rng_?|global_?)?seed|random_state"
_RESUME = r"(resume|restart|continue)(_from|_path|_file|_ckpt|_checkpoint|_from_checkpoint|_training)*"
_PLACE = r"(dir|directory|folder|path|root)"
_INPUT = rf"(^|_)({_PLACE}|files?)$|^data$"  # a `dataset` is often a name
_OUTPUT = (
    r"(default_root|save|log|logs|out|output|checkpoint|checkpoints|ckpt|result|results|run|runs|exp|experiment|work|workdir|model|"
    r"models|snapshot|snapshots|tensorboard|tb|summary|artifact|artifacts|train_log)"
)
_FOLDER = rf"{_OUTPUT}_?{_PLACE}|out|output|outdir|logdir|savedir|rundir|workdir"
_NOT_OF_THE_MODEL = (
    r"(num_|n_)?workers?|threads|gpus?|gpu_ids?|cuda|device|port|rank|local_rank|world_size|verbose|quiet|debug|deterministic|"
    r"fold|folds|.*(_freq|_interval|_every|_steps_per.*|_port|_rank|_id|_version)|(log|print|save|eval|val|test)_.*"
)
# Epochs between two validations; a search needs a number after every epoch.
_VALIDATE = (
    r"(check_)?(eval|val|valid|validate|validation|test)_?"
    r"(every|interval|freq|frequency|period|epochs?)(_n)?(_epochs?)?"
)
_MOST_BETWEEN = 20  # more are steps
_PRECISION = r"(use_)?(amp|fp16|bf16|half|mixed_precision|compile)"


@dataclass(frozen=True, slots=True)
class Roles:
    """The flags that a trial sets by itself; None or empty where the script has none."""

    epochs: str | None
    seed: str | None
    folders: tuple[str, ...]
    resume: str | None

    def all(self) -> set[str]:
        """Return the names of all of them."""
        return {name for name in (self.epochs, self.seed, self.resume, *self.folders) if name}


@dataclass(frozen=True, slots=True)
class Guess:
    """A row of [space] for a flag, and whether it is searched unless a person says otherwise."""

    name: str
    row: Values
    searched: bool


def distinct(script: Script) -> dict[str, Flag]:
    """Return the flags of a script, each by one of its names: its destination."""
    first: dict[str, str] = {}
    for name, flag in script.flags.items():
        first.setdefault(flag.typed, name)
    return {name: script.flags[name] for name in first.values()}


def roles(script: Script) -> Roles:
    """Guess which flags set epochs, seed and folders, and which takes a checkpoint."""
    flags = distinct(script).items()
    valued = {name: flag for name, flag in flags if flag.takes_value and not flag.many and not flag.choices}
    names = {name: " ".join({name, (flag.name or "").replace("-", "_")}).lower() for name, flag in valued.items()}

    def find(pattern: str, *kinds: str) -> list[str]:
        return [
            name
            for name, flag in valued.items()
            if flag.kind in kinds and any(re.fullmatch(pattern, word) for word in names[name].split())
        ]

    folders = [name for name in find(_FOLDER, "str") if not _is_file(valued[name].default)]
    epochs, seeds, resumes = find(_EPOCHS, "int", "float"), find(_SEED, "int"), find(_RESUME, "str")
    return Roles(next(iter(epochs), None), next(iter(seeds), None), tuple(folders), next(iter(resumes), None))


@dataclass(frozen=True, slots=True)
class ScriptStart:
    """How a script is started: the flags that a trial sets, and what stays as the person or their files say."""

    roles: Roles
    epochs: int | None  # of a trial, if the person says
    fixed: Mapping[str, Any]
    rest: tuple[str, ...]  # arguments that are no flags of the source


def plan(script: Script, words: Sequence[str]) -> ScriptStart:
    """Return how a script is started with the arguments `words` of a person; relative paths become absolute.

    Raises UnsearchableError if the script needs a flag that has no value then.
    """
    typed, rest = values(script, words)
    guessed = roles(script)
    seed = None if guessed.seed in typed else guessed.seed
    resume = None if guessed.resume in typed else guessed.resume  # every trial begins with that checkpoint
    own = replace(guessed, seed=seed, resume=resume)
    epochs = typed.get(own.epochs) if own.epochs else None
    kept = {name: _absolute(value, name) for name, value in typed.items() if name not in own.all()}
    fixed = {**_every_epoch(script), **inputs(script, {*own.all(), *kept}), **kept}
    given = {*own.all(), *fixed}
    needed = [flag.typed for name, flag in distinct(script).items() if flag.required and name not in given]
    if missing := [flag for flag in needed if not any(word.partition("=")[0] == flag for word in rest)]:
        raise lacking(script.path, missing)
    return ScriptStart(own, epochs, fixed, tuple(map(_absolute, rest)))


def _every_epoch(script: Script) -> dict[str, int]:
    """Return 1 for the flags that let a script validate more rarely than after every epoch."""
    return {
        name: 1
        for name, flag in distinct(script).items()
        if re.fullmatch(_VALIDATE, name.lower()) and flag.kind == "int" and flag.default in range(2, _MOST_BETWEEN + 1)
    }


def lacking(path: str, needed: Sequence[str], printed: str = "") -> UnsearchableError:
    """Return the error of a script that needs arguments, flags or positional ones."""
    example = " ".join(f"{each} {each.strip('-').upper()}" if each.startswith("-") else each for each in needed)
    hint = f"give what it needs after --: face3d-tune script {shlex.quote(path)} -- {example}"
    return UnsearchableError(f"{path} does not start without {', '.join(needed)}", hint, printed)


def searchable(script: Script, plan: ScriptStart) -> list[Guess]:
    """Return the rows of the flags that a search may vary, the usual ones first. Raises UnsearchableError if none."""
    found = sorted(rows(script, {*plan.roles.all(), *plan.fixed}), key=lambda row: not row.searched)
    if not found:
        raise UnsearchableError(
            f"{script.path} has no flag left that a search could vary",
            "a searched flag needs a default in the source that is a number, true or false, or one of its choices",
        )
    return found


def _absolute(value: Any, name: str = "") -> Any:
    """Return a relative path that exists as an absolute one; any other value as it is.

    A word alone is a path only as the value of a flag whose `name` says so.
    """
    if not isinstance(value, str) or not os.path.exists(value):
        return value
    return os.path.abspath(value) if re.search(_INPUT, name.lower()) or re.search(r"[/\\.]", value) else value


def rows(script: Script, taken: set[str]) -> Iterator[Guess]:
    """Yield a row for each flag that a search may vary, but those in `taken`."""
    for name, flag in distinct(script).items():
        if name in taken or flag.many or flag.kind == "other":
            continue
        word = name.lower()
        if re.fullmatch(_NOT_OF_THE_MODEL, word) or re.fullmatch(_PRECISION, word):
            continue
        if (found := _row(word, flag)) and _begins_with(found[0], flag.default):
            yield Guess(name, *found)


def _begins_with(row: Values, default: Any) -> bool:
    """Tell whether the first trial can have a flag's default: it lies in the row, or is the 0 beside a log range."""
    if isinstance(row, Mapping):
        inside = row["low"] <= default <= row["high"] < math.inf
        return inside or ("scale" in row and default == 0)
    return any(default == each and isinstance(default, bool) == isinstance(each, bool) for each in row)


def _row(name: str, flag: Flag) -> tuple[Values, bool] | None:
    """Return a row of the space and whether to search it; None if nothing can be searched."""
    schedule = bool(re.search(r"sched", name))
    if flag.kind == "switch":
        both = flag.name is not None and (flag.off_name is not None or not flag.default)
        return ([False, True], False) if both or (flag.off_name and flag.default) else None
    if flag.choices:
        plain = [each for each in flag.choices if isinstance(each, int | float | str)]  # no None, which cannot be typed
        return plain, bool(re.fullmatch(r".*(scheduler|schedule)(_type|_name)?|lr_policy", name))
    default = flag.default
    if flag.kind == "int" and isinstance(default, int) and not isinstance(default, bool):
        return _whole(name, default, schedule)
    if flag.kind == "float" and isinstance(default, int | float) and not isinstance(default, bool):
        return _number(name, float(default), schedule) if abs(default) <= sys.float_info.max else None
    return ([False, True], False) if flag.kind == "bool" else None


def _whole(name: str, default: int, schedule: bool) -> tuple[Values, bool] | None:
    words = name.split("_")
    if "warmup" in words:
        return _range(0, max(10, 2 * default)), True
    if "patience" in words:
        return _range(max(1, default // 3), max(8, 3 * default)), schedule or "lr" in words
    if default < 1:
        return None
    if {"layers", "layer", "blocks", "depth", "nlayers"} & {*words}:
        return _range(max(1, default // 2), 2 * default), False
    if name in ("bs", "batch_size", "batchsize") or default >= 8 or {"heads", "head", "nhead"} & {*words}:
        sizes = [size for size in (default // 2, default, 2 * default) if size]
        return list(dict.fromkeys(sizes)), False
    return _range(max(1, default // 3), 3 * default), schedule


def _number(name: str, default: float, schedule: bool) -> tuple[Values, bool] | None:
    words = {*name.split("_")}
    if name in ("l2", "wd") or re.search(r"weight_?decay|l2_reg|reg_l2", name):
        return (_log(default / 30, default * 30) if default > 0 else _log(1e-6, 0.1)), True
    if {"dropout", "drop"} & words or name.endswith("dropout"):
        return _range(0.0, max(0.5, min(0.95, 1.5 * default))), True
    if re.search(r"(factor|lr_decay|gamma)$", name) and 0 < default <= 1:
        of_schedule = "gamma" not in words or schedule or "lr" in words  # else perhaps the gamma of a focal loss
        return _range(min(0.1, default), 1.0 if default > 0.9 else 0.9), of_schedule
    if name in ("lr", "learning_rate") or re.search(r"(^|_)(lr|learning_rate|eta_min)$", name):
        least = bool({"min", "eta"} & words)
        main = not least and "warmup" not in words
        spread = _log(default / 30, min(default * 30, max(1.0, 3 * default))) if default > 0 else None
        return (spread or _log(1e-8, 1e-5)), main or (least and schedule)
    if {"weight", "w", "coef", "coeff", "lambda", "share"} & words and default >= 0:
        # Two weights of 0 would train nothing.
        return _range(min(0.05, default), 1.0 if default <= 1 else 2 * default), True
    if {"temperature", "temp", "tau"} & words and default > 0:
        return _range(default / 4, default * 4), True
    if "margin" in words and default >= 0:
        return _range(0.0, 1.0 if default <= 1 else 2 * default), True
    if "smoothing" in words:
        return _range(0.0, max(0.3, default)), False
    if "momentum" in words and 0 <= default < 1:
        return _range(min(0.5, default), max(0.99, default)), False
    if "warmup" in words and 0 <= default <= 1:
        return _range(0.0, max(0.3, default)), True
    if 0 < default <= 1 and {"alpha", "beta", "ratio", "rate", "prob", "p"} & words:
        return _range(0.0, 1.0), False
    return (_log(default / 10, default * 10), False) if default > 0 else None


def _range(low: float, high: float) -> Values:
    return {"low": min(low, _rounded(low)), "high": max(high, _rounded(high))}  # either may be the default


def _log(low: float, high: float) -> Values:
    return {"low": _rounded(low), "high": _rounded(high), "scale": "log"}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.2g}")


def inputs(script: Script, taken: set[str]) -> dict[str, str]:
    """Return the defaults that are files or folders of the person's, made absolute, by flag.

    A relative one counts from the current folder, else from the script's or the one above.
    """
    places = (Path.cwd(), Path(script.path).absolute().parent, Path(script.path).absolute().parent.parent)
    found = {}
    for name, flag in distinct(script).items():
        default = flag.default if isinstance(flag.default, str) else ""
        if name in taken or flag.kind != "str" or flag.many or flag.choices or not default.strip():
            continue
        if re.search(_INPUT, name.lower()) or re.search(r"[/\\.]", default):
            paths = [place / Path(default).expanduser() for place in places]
            if existing := next((path for path in paths if path.exists()), None):
                found[name] = os.path.abspath(existing)
    return found


def _is_file(default: object) -> bool:
    return isinstance(default, str) and re.search(r"\.\w{1,5}$", default) is not None
