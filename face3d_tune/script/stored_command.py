"""The command of a trial of the user's own script, from what its study stores: a reader need not have the script."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from face3d_tune.study.attrs import StoredScript, TrialAttr

_EPOCHS = "epochs"  # key of a config, whatever the script calls its flag


def stored_command(script: StoredScript, trial_attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return python, script, flags and values of a trial, and a line for each value that they do not say.

    Folders are left to the script's defaults. Which flag switches something off stands in the script alone.
    """
    program, *_ = script["command"]
    same = os.path.abspath(program) == os.path.abspath(sys.executable)
    words, missing = ["python" if same else program, _typeable(script["path"])], []
    for name, value in _values(script, trial_attrs).items():
        if value is False:
            missing.append(f"{name} = off")
        elif value is True:
            words.append(f"--{name}")
        elif value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{name}", *(each if isinstance(each, str) else repr(each) for each in values)]
    return words, missing


def _values(script: StoredScript, trial_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values to type by flag; epochs and seed only if the script has flags for them."""
    values = dict(TrialAttr.config.get(trial_attrs, {}))
    own = {script["epochs_flag"]: values.pop(_EPOCHS, None), script["seed_flag"]: TrialAttr.seed.get(trial_attrs)}
    return values | {name: value for name, value in own.items() if name is not None and value is not None}


def _typeable(path: str) -> str:
    """Return the path in a form that no command takes for an option."""
    return f"./{path}" if path.startswith("-") else path
