"""The command of a trial of the user's own script, for a reader who need not have the script.

It is what `export` prints where the script can be read, and else what the study stores says.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from face3d_tune.errors import ExportError
from face3d_tune.script.command import EPOCHS, command, interpreter, seed_for, typeable
from face3d_tune.script.flags import Script, read_script
from face3d_tune.study.attrs import StoredScript, TrialAttr


def stored_command(script: StoredScript, trial_attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return python, script, flags and values of a trial, and a line for each value that they do not say.

    Folders are left to the script's defaults. Without the script, nothing says which flag switches something off, and
    a flag is spelt with underscores.
    """
    program, *_, path = script["command"]
    start = [interpreter(program), typeable(script["path"])]
    config, seed = dict(TrialAttr.config.get(trial_attrs, {})), TrialAttr.seed.get(trial_attrs)
    if (flags := _flags(path, _changed(path))) is not None:
        composed = command(script, flags, config, seed=seed, epochs=config.get(EPOCHS))
        return [*start, *composed.words[len(script["command"]) :]], list(composed.missing)
    words, missing = [*start, *script.get("arguments", ())], [f"how the script spells its flags: it is not at {path}"]
    for name, value in _values(script, config, seed).items():
        if value is False:
            missing.append(f"{name} = False")
        elif value is True:
            words.append(f"--{name}")
        elif value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{name}", *(each if isinstance(each, str) else repr(each) for each in values)]
    return words, missing


def _values(script: StoredScript, config: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """Return the values to type by flag; epochs and seed only if the script has flags for them."""
    own = {script["epochs_flag"]: config.pop(EPOCHS, None)}
    own[script["seed_flag"]] = None if seed is None else seed_for(seed)
    return config | {name: value for name, value in own.items() if name is not None and value is not None}


def _changed(path: str) -> int:
    """Return when a file was last written; 0 without a file."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=8)  # the dashboard shows many trials of one script
def _flags(path: str, changed: int) -> Script | None:
    """Return the flags of a script as it was written then; None if it cannot be read."""
    try:
        return read_script(Path(path)) if changed else None
    except ExportError:
        return None
