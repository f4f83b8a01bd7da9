"""The command that starts a user's script with the values of a trial, as the search runs it and `export` prints it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from face3d_tune.script.flags import Script, arguments
from face3d_tune.study.attrs import StoredScript

EPOCHS = "epochs"  # key of a config, whatever the script calls its flag
_SEEDS = 2**31  # numpy takes no seed from 2**32 on, and some scripts make an int32 of theirs


@dataclass(frozen=True, slots=True)
class TrainingCommand:
    """A command as a list of arguments, and what it cannot say: one line for each value."""

    words: list[str]
    missing: tuple[str, ...] = ()


def command(
    stored: StoredScript, script: Script, config: Mapping[str, Any], *, seed: int | None, epochs: int | None
) -> TrainingCommand:
    """Return the command that trains a script with these values, without folders and without a checkpoint to resume.

    The study file's own arguments come first, because the first may choose a subcommand of the script. Then follow the
    config's values, the epochs and the seed.

    Args:
        stored: The table of the script, as a study stores it.
        script: Its flags.
        config: Values by flag, spelt with underscores.
        seed: Of the trial; not typed without a flag for it.
        epochs: Of the trial; the same.
    """
    words, missing = [*stored["command"], *stored.get("arguments", ())], []
    for name, value in typed(stored, script, config, seed=seed, epochs=epochs).items():
        answer = arguments(script, name, value)
        if isinstance(answer, list):
            words += answer
        else:
            missing.append(f"{name} = {value!r}: {answer}")
    return TrainingCommand(words, tuple(missing))


def typed(
    stored: StoredScript, script: Script, config: Mapping[str, Any], *, seed: int | None, epochs: int | None
) -> dict[str, Any]:
    """Return every value that a command says, by flag."""
    values = {name: value for name, value in config.items() if name != EPOCHS or name in script.flags}
    if stored["epochs_flag"] is not None and epochs is not None:
        values[stored["epochs_flag"]] = epochs
    if stored["seed_flag"] is not None and seed is not None:
        values[stored["seed_flag"]] = seed_for(seed)
    return values


def typeable(path: str) -> str:
    """Return a path in a form that no command takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def interpreter(program: str) -> str:
    """Return a Python as a person types it: `python` if it runs this program."""
    return "python" if os.path.abspath(program) == os.path.abspath(sys.executable) else program


def seed_for(seed: int) -> int:
    """Return the seed that a script gets: small enough for every library's generator."""
    return seed % _SEEDS
