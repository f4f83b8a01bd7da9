"""A trial's config as flags of the users' own training script, and in the tool's other export formats.

No command relies on a default, since copies of the script differ in them (trainer contract §5). `Export.missing` names
what a copy has no flag for; nothing is dropped silently.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import tomli_w

from face3d_tune.config import ABOUT, DEFAULTS, PARAMETERS, TrialConfig
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ExportError
from face3d_tune.script.command import typeable
from face3d_tune.script.flags import DOCUMENTED, Script, arguments
from face3d_tune.training.unsearched_flags import UNSEARCHED_FLAGS, schedule_args

Shell = Literal["bash", "powershell", "cmd"]


_KNOWN = (*UNSEARCHED_FLAGS, "model_type", "num_decoder_layers", "min_yaw_angle", "max_yaw_angle")


@dataclass(frozen=True, slots=True)
class Export:
    """Commands to run in order, each a list of arguments, and what to know before running them.

    `missing` says what the commands do not reproduce, `notes` what the reader has to check. One line each.
    """

    commands: tuple[list[str], ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def commands(config: TrialConfig, use: DataUse, script: Script = DOCUMENTED) -> Export:
    """Return the command that repeats a training with `script`, after one that converts the data if need be."""
    data_dir = typeable(use.data_dir)
    convert = []
    if options := conversion(config, use):
        # The script uses poses and embeddings as they are in the files, so others need another folder.
        names = [name for name in (config.inputs, config.pose_unit) if name in options]
        copy = "-".join([data_dir.rstrip("/\\") or data_dir, *names])
        convert = [["face3d-tune", "data", "convert", data_dir, copy, *options]]
        data_dir = copy

    words, missing = ["python", typeable(script.path)], []
    values = _to_say(config, use, data_dir, script)
    if config.warmup_epochs and config.scheduler_type == "plateau" and "warmup_epochs" in script.flags:
        missing.append(f"warmup_epochs = {config.warmup_epochs}: torch cannot chain a warm-up with plateau")
        values["warmup_epochs"] = 0
    for name, value in values.items():
        flag_or_reason = _say(name, value, script)
        if isinstance(flag_or_reason, list):
            words += flag_or_reason
        else:
            missing.append(f"{name} = {_text(value)}: {flag_or_reason}")
    missing += _unsaid_limits(use)
    if config.d_model != use.feature_size:
        missing.append(f"d_model = {config.d_model}: their model needs d_model = {use.feature_size}, the feature size")
    return Export((*convert, words), tuple(missing), _notes(config, use, words, script))


def conversion(config: TrialConfig, use: DataUse) -> list[str]:
    """Return the options of `data convert` that make the copy which a config trains on; empty if it needs none."""
    options = []
    if config.inputs != "view":
        options += ["--inputs", config.inputs]
        options += [] if use.split == "person" else ["--split", use.split]
        options += ["--min-yaw", _text(use.min_yaw)] if use.min_yaw else []
        options += [] if use.max_yaw is None else ["--max-yaw", _text(use.max_yaw)]
        options += [] if use.turn_angle == "first" else ["--turn-angle", use.turn_angle]
    if config.pose_unit != use.file_pose_unit:
        options += ["--pose-unit", config.pose_unit]
    return options


def _to_say(config: TrialConfig, use: DataUse, data_dir: str, script: Script) -> dict[str, Any]:
    """Return the values to state, by flag, in the order of the command."""
    flags = script.flags
    values: dict[str, Any] = {"data_dir": data_dir, **config.to_dict()}
    del values["layout"], values["pose_unit"], values["inputs"]  # no flag sets them: see _notes and `commands`
    if "num_decoder_layers" in flags:
        values["num_decoder_layers"] = config.num_layers
        if "num_layers" not in flags:
            del values["num_layers"]
    if config.early_stopping_patience == 0 and "early_stopping_min_delta" not in flags:
        del values["early_stopping_min_delta"]
    if config.identity_weight == 0 and "identity_temperature" not in flags:
        del values["identity_temperature"]
    schedule = schedule_args(config) if "scheduler_type" in flags else {}
    return values | schedule | _yaw_limits(config, use, script)


def _yaw_limits(config: TrialConfig, use: DataUse, script: Script) -> dict[str, float]:
    """Return the limits of |yaw| to state: those set, and those that override a default of the script."""
    limits = {}
    low, high = use.script_limits
    if low or _has_default("min_yaw_angle", script):
        limits["min_yaw_angle"] = low
    if high is not None or _has_default("max_yaw_angle", script):
        limits["max_yaw_angle"] = float("inf") if high is None else high
    if config.pose_unit == "radians":
        # The script compares |yaw| as it is in the folder that it trains on, in radians there.
        return {name: float(np.deg2rad(limit)) for name, limit in limits.items()}
    return limits


def _unsaid_limits(use: DataUse) -> list[str]:
    """Describe the limits of a head turn that is not the angle which the script limits."""
    limits = {"min_yaw_angle": use.min_yaw or None, "max_yaw_angle": use.max_yaw}
    return [
        f"{name} = {_text(value)} of the {use.turn_angle} angle: the script limits the first"
        for name, value in limits.items()
        if value is not None and use.turn_angle != "first"
    ]


def _has_default(name: str, script: Script) -> bool:
    """Tell whether the script may limit |yaw| without a flag."""
    flag = script.flags.get(name)
    return flag is not None and flag.default not in (None, 0)


def _say(name: str, value: Any, script: Script) -> list[str] | str:
    """Return the arguments that give `name` the `value` (none if the script cannot differ), or why there are none."""
    if name not in script.flags and name in ABOUT and ABOUT[name].optional and value == DEFAULTS[name]:
        return []
    return arguments(script, name, value)


def _notes(config: TrialConfig, use: DataUse, words: list[str], script: Script) -> tuple[str, ...]:
    notes = []
    if config.scheduler_type != "plateau" and "scheduler_type" in script.flags:
        shape = "the learning rate rises in a line, then falls" if config.warmup_epochs else "the learning rate falls"
        over = "the epochs that are left" if config.warmup_epochs else "all epochs"
        notes.append(f"{shape} by a cosine over {over}, set once an epoch; no flag says so, see that your copy does")
    if same := [script.flags[name].typed for name, about in ABOUT.items() if about.ours and name in script.flags]:
        notes.append(f"your copy has {', '.join(same)} of its own; see that it means what docs/tuning.md says")
    if use.turn_angle != "first":
        notes.append(f"the study's head turn is the {use.turn_angle} angle of a pose; the script's yaw is the first")
    if "model_type" in script.flags:
        notes.append(f"your copy chooses the layout by --model_type; see that it builds the `{config.layout}` layout")
    elif config.layout == "pose":
        notes.append("this trial was trained with the `pose` layout: use a copy of the script that builds it")
    unsaid = [flag for flag in script.flags.values() if not {f"--{flag.name}", f"--{flag.off_name}"} & {*words}]
    if needed := {flag.typed for flag in unsaid if flag.required}:
        notes.append(f"your copy does not start without {', '.join(sorted(needed))}: add it")
    expressible = {script.flags[name].typed for name in (*config.to_dict(), *_KNOWN) if name in script.flags}
    if others := {flag.typed for flag in unsaid} - expressible - needed:
        notes.append(f"your copy also has {', '.join(sorted(others))}: no trial sets it, so its default applies")
    return tuple(notes)


def _text(value: Any) -> str:
    """Format a value as typed; a float in full, so that it is read back exactly."""
    return value if isinstance(value, str) else repr(value)


def quote(arguments: Sequence[str], shell: Shell) -> str:
    """Quote a line that passes exactly these arguments to a program when typed into `shell`.

    PowerShell 5.1 loses double quotes inside an argument in any notation; 7.3 keeps them. Raises ExportError if cmd
    cannot express an argument.
    """
    if shell == "bash":
        return shlex.join(arguments)
    words = [(_quote_powershell if shell == "powershell" else _quote_cmd)(argument) for argument in arguments]
    # PowerShell prints a line that begins with a string; & makes it a command.
    return ("& " if shell == "powershell" and words[0].startswith("'") else "") + " ".join(words)


def _quote_powershell(argument: str) -> str:
    # PowerShell would split an option with a dot or colon there.
    if re.fullmatch(r"-[\w-]*|[\w./:\\][\w./:\\+-]*", argument, re.ASCII):
        return argument
    return "'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", argument) + "'"  # typographic quotes end strings too


def _quote_cmd(argument: str) -> str:
    if re.search(r"[%\r\n\0]", argument):
        raise ExportError(
            f"cmd has no way to type the argument {argument!r}",
            "rename what it names without a % or line break, or use --shell powershell",
        )
    if re.fullmatch(r"[\w./:\\+-]+", argument, re.ASCII):
        return argument
    # The program's C runtime reads backslashes as themselves, except before a double quote.
    quoted = '"' + re.sub(r'(\\*)("|$)', lambda run: 2 * run[1] + ('\\"' if run[2] else ""), argument) + '"'
    # cmd itself does not know \" and would take the rest for unquoted, so it must not see any quote at all.
    return re.sub(r'[()!^"<>&|]', r"^\g<0>", quoted) if '"' in argument else quoted


def to_json(config: TrialConfig, use: DataUse, extra: Mapping[str, Any]) -> str:
    """Return the config and its data as a JSON object with the keys of `extra` before them."""
    return json.dumps({**extra, "config": config.to_dict(), "data": asdict(use)}, indent=2, ensure_ascii=False) + "\n"


def to_toml(name: str, config: TrialConfig, feature_size: int) -> str:
    """Return a table `presets.NAME` for a study file that resolves to `config` on data of `feature_size`.

    d_model becomes a `width`. dim_feedforward and a width of 1 are omitted, so that the preset fits other data.
    """
    values = {key: value for key, value in config.to_dict().items() if key in PARAMETERS}
    if config.dim_feedforward == 4 * config.d_model:
        del values["dim_feedforward"]
    del values["d_model"]
    if config.d_model != feature_size:
        values["width"] = config.d_model / feature_size
    run = f'# Trained with epochs = {config.epochs} and layout = "{config.layout}", which a preset does not set.\n'
    return run + tomli_w.dumps({"presets": {name: values}})
