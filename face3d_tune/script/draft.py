"""The study file that `face3d-tune script` writes: commented TOML, which a person edits and then searches."""

import math
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from face3d_tune.errors import StudyFileError
from face3d_tune.script import guesses, study_file
from face3d_tune.script.flags import Script
from face3d_tune.script.guesses import Guess, Roles, ScriptStart
from face3d_tune.script.metrics import Metric, ProbedNumber
from face3d_tune.script.probe import Probe
from face3d_tune.study.presets import PRESETS
from face3d_tune.system.safe_text import visible

_EPOCHS, _TRIALS = 100, 50
_OF_THE_GUIDE = {"lr", "mse_weight", "cosine_weight"}  # a script with these flags knows the guide's presets
_LEAST_LIMIT = 600.0  # seconds
_SLOWER = 3.0  # a trial may take so many times what the probe took for its epochs
_WHEN = {
    "json": "appears at once",
    "printed": "appears at once",
    "csv": "appears when the script writes its file",
    "tensorboard": "appears when the script flushes its event file: at the latest 2 minutes after an epoch",
    "checkpoint": "appears when the script saves a checkpoint",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a study file is written from; `python` is None for this program's."""

    out: Path
    script: Script
    plan: ScriptStart
    metric: Metric | None  # None: the script was not run
    probe: Probe | None
    python: str | None = None

    def rows(self) -> list[Guess]:
        """Return the rows of [space], the searched ones first."""
        return guesses.searchable(self.script, self.plan)

    def searched(self) -> list[Guess]:
        """Return the rows that the file searches: those of the usual flags, else the first of all."""
        rows = self.rows()
        return [row for row in rows if row.searched] or rows[:1]


def write(draft: Draft) -> str:
    """Return the study file, with those of the guide's presets that fit it.

    Raises UnsearchableError if there is nothing to search, and StudyFileError if the file would not read back.
    """
    fitting = []
    if draft.script.flags.keys() >= _OF_THE_GUIDE:
        fitting = [name for name in PRESETS if _reads_back(draft, name)]
    text = _text(draft, fitting)
    if text != text.encode(errors="replace").decode():
        raise StudyFileError(
            f"{draft.out} would hold text that is not Unicode, such as a file name of another encoding",
            "rename the file, or give the flag another value after --",
        )
    study_file.parse(draft.out, tomllib.loads(text))
    return text


def _reads_back(draft: Draft, preset: str) -> bool:
    """Tell whether a preset of the guide fits the ranges, and sets nothing else than what the person has fixed."""
    if any(PRESETS[preset].get(name, value) != value for name, value in draft.plan.fixed.items()):
        return False
    try:
        study_file.parse(draft.out, tomllib.loads(_text(draft, [preset])))
    except StudyFileError:
        return False
    return True


def _text(draft: Draft, presets: Sequence[str]) -> str:
    return "\n".join((*_head(draft), *_script(draft), *_study(draft, presets), *_space(draft))) + "\n"


def _head(draft: Draft) -> Iterator[str]:
    name = visible(os.path.basename(draft.script.path))
    yield f"# A search with {name}, drafted by `face3d-tune script` from its flags"
    yield "# and from two epochs of it. Edit it, then search:" if draft.probe else "# alone. Edit it, then search:"
    yield f"#   face3d-tune run --study {visible(shlex.quote(draft.out.name))}"
    yield ""


def _script(draft: Draft) -> Iterator[str]:
    roles, metric = draft.plan.roles, draft.metric
    yield "[script]"
    yield _line("path", _relative(draft.script.path, draft.out), "relative to this file")
    if metric is None:
        yield '# The script was not run: name a number that it gives once an epoch.\nmetric = "val_loss"'
        yield 'source = "printed"       # or tensorboard, checkpoint, json, csv\ndirection = "minimize"   # or maximize'
    else:
        yield from _metric(metric, draft.probe)
    yield from _roles(roles, draft)
    if draft.python is not None:
        yield _line("python", draft.python)
    if draft.plan.rest:
        yield _line("arguments", list(draft.plan.rest), "as they are")
    if draft.probe and draft.probe.import_from:
        yield _line("environment", {"PYTHONPATH": os.pathsep.join(draft.probe.import_from)}, "for its own modules")
    yield _line("time_limit", _limit(draft), "of a trial") if draft.probe else '# time_limit = "2h"  # of a trial'
    yield ""


def _metric(metric: Metric, probe: Probe | None) -> Iterator[str]:
    number = metric.number
    yield _line("metric", number.name, "what a trial is worth, guessed from its name")
    if number.test:
        yield "# It is of test data: after a search over it, nothing unseen is left to test the winner on."
    if number.rough:
        yield "# It has few digits, so many trials will look equal: let the script print more."
    yield _line("source", number.source, _WHEN[number.source])
    yield _line("direction", metric.direction)
    if metric.keep_lowest:
        yield _line("keep_lowest", metric.keep_lowest, "the epoch that the script keeps: its checkpoint has it best")
    else:
        yield '# keep_lowest = "…"  # or keep_highest: what decides which epoch the script keeps, if not the metric'
    others = [each for each in (probe.every_epoch() if probe else ()) if each != number]
    if others:
        yield "# Also once an epoch:"
        yield from (f"#   {_shown(each)}" for each in others[:20])


def _shown(number: ProbedNumber) -> str:
    return f"{_toml(number.name)} from {number.source}, last {number.values[-1]:.6g}"


def _roles(roles: Roles, draft: Draft) -> Iterator[str]:
    if roles.epochs:
        yield _line("epochs_flag", roles.epochs, "gets budget.epochs")
    else:
        yield "# epochs_flag: the script has no flag for epochs, so it decides how long a trial trains"
    if roles.seed:
        yield _line("seed_flag", roles.seed, "gets the trial's seed")
    else:
        yield "# seed_flag: no flag sets a seed, so every trial has the script's own"
    if roles.folders:
        yield _line("folder_flags", list(roles.folders), "get folders of the trial's own")
    else:
        yield "# folder_flags: no flag names a folder for results; a trial starts in a folder of its own"
    if roles.resume:
        yield _line("resume_flag", roles.resume, "takes a checkpoint, so that an interrupted trial resumes")
        if draft.probe and draft.probe.checkpoint:
            yield _line("checkpoint", draft.probe.checkpoint, "which one")
        else:
            yield '# checkpoint = "*last*.pth"     # which one; default: the newest *.pth, *.pt, *.ckpt of the trial'
    else:
        yield "# resume_flag: no flag takes a checkpoint, so an interrupted trial restarts"


def _study(draft: Draft, presets: Sequence[str]) -> Iterator[str]:
    yield "[study]"
    yield _line("description", f"Flags of {os.path.basename(draft.script.path)}")
    if presets:
        yield _line("presets", list(presets), "of the tuning guide")
    yield "\n[budget]"
    yield _line("trials", _TRIALS, "finished trials: completed or pruned")
    if draft.plan.roles.epochs:
        yield _line("epochs", _epochs(draft), "of one trial, at most")
    yield ""
    if draft.plan.fixed:
        yield "[fixed]"
        yield from (_line(name, value) for name, value in draft.plan.fixed.items())
        yield ""


def _space(draft: Draft) -> Iterator[str]:
    flags, searched = draft.script.flags, draft.searched()
    offered = [row for row in draft.rows() if row not in searched]
    yield "# Ranges round the script's defaults, guessed from names; a flag that is not here keeps its default."
    yield "[space]"
    yield from (_line(row.name, row.row, f"default {_toml(flags[row.name].default)}") for row in searched)
    if offered:
        yield "# Not searched; remove the # of a row to search it as well."
        yield from (f"# {_line(row.name, row.row, f'default {_toml(flags[row.name].default)}')}" for row in offered)
    yield "\n# The first trial: the script's own values."
    yield "[presets.defaults]"
    yield from (_line(row.name, flags[row.name].default) for row in searched)


def _epochs(draft: Draft) -> int:
    flag = draft.plan.roles.epochs
    default = draft.plan.epochs or (draft.script.flags[flag].default if flag else None)
    return int(default) if isinstance(default, int | float) and 1 <= default < math.inf else _EPOCHS


def _limit(draft: Draft) -> str:
    """Return the time limit of a trial: several times what the probe's epochs let expect."""
    seconds = draft.probe.seconds if draft.probe else 0.0
    minutes = math.ceil(max(_LEAST_LIMIT, _SLOWER * seconds * _epochs(draft)) / 60)
    return f"{minutes}m" if minutes < 120 else f"{math.ceil(minutes / 60)}h"


def _relative(path: str, out: Path) -> str:
    """Return a path relative to the study file, with forward slashes; absolute from another drive."""
    try:
        return Path(os.path.relpath(path, out.absolute().parent)).as_posix()
    except ValueError:
        return os.path.abspath(path)


def _line(key: str, value: Any, comment: str = "") -> str:
    line = f"{_key(key)} = {_toml(value)}"
    return f"{line:<30}  # {comment}" if comment else line


def _key(name: str) -> str:
    """Return a name as a key of TOML: in quotes if it has, say, a dot, which would make a table of it."""
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def _toml(value: Any) -> str:
    """Return a value on one line of TOML."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")
