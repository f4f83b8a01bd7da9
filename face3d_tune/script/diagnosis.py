"""The cause of a failed training script, from its output, and which of its flags to blame.

It is a guess that says its evidence: argparse names its arguments, a traceback names a flag, a line of code or a value.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_OUT_OF_MEMORY = r"out of memory|MemoryError|bad_alloc|Cannot allocate memory|not enough memory"
_TAKE_MEMORY = ("batch_size", "d_model", "dim_feedforward", "num_layers", "num_decoder_layers")
_KILLED = (-9, 137)  # SIGKILL, as a child and as a shell say it

# Known errors that no flag causes: a pattern and what to do about it.
_TRAPS = {
    r"__init__\(\) got an unexpected keyword argument 'verbose'": (
        "delete verbose=… from the scheduler's call, which torch 2.7 and later do not take; "
        "or name the Python of an older torch with --python PATH"
    ),
    r"No module named 'tensorboard'|requires TensorBoard version": (
        "pip install tensorboard in the environment that trains, or name its Python with --python PATH"
    ),
    r"^ImportError: cannot import name": (
        "the module was found, but lacks that name: see which file or version of it the error names, "
        "or name the Python that trains with --python PATH"
    ),
    r"^EOFError: EOF when reading a line": (
        "it asks a question, and nothing can be typed into a trial: give the answer with a flag, or take input() out"
    ),
    r"^(ModuleNotFoundError|ImportError)": "name the Python that has it with --python PATH",
}

# Torch's messages about values, without the names of flags.
_PHRASES = {
    "embed_dim must be divisible by num_heads": ("nhead", "d_model"),
    "Invalid learning rate": ("lr",),
    "Factor should be": ("scheduler_factor",),
    "shapes cannot be multiplied": ("d_model",),
    "normalized_shape": ("d_model",),
    "more than 1 value per channel": ("batch_size",),
    "num_samples=0": ("data_dir", "min_yaw_angle", "max_yaw_angle"),
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause in one line, and the flags to blame as typed, the likeliest first; none if no flag can be blamed.

    Its text is the hint: what to do about a known error, or else the flags.
    """

    reason: str
    flags: tuple[str, ...] = ()
    why: str = ""  # the evidence for the flags
    remedy: str = ""
    out_of_memory: bool = False  # as its output says; a kill alone proves nothing

    def __str__(self) -> str:
        if self.remedy:
            return self.remedy
        if not self.flags:
            return "no flag can be blamed for it"
        return f"blame {' or '.join(self.flags)}: {self.why}"


def find(exit_code: int, printed: str, arguments: Sequence[str]) -> Diagnosis:
    """Diagnose a script from its exit code, its output and its arguments."""
    command = _values_by_flag(arguments)
    if exit_code == 2 and (messages := re.findall(r"^\S.*?: error: (.+)$", printed, re.MULTILINE)):
        named = re.findall(r"--[\w-]+", messages[-1])
        return Diagnosis(messages[-1], tuple(dict.fromkeys(named)), "argparse names it")
    if re.search(_OUT_OF_MEMORY, printed, re.IGNORECASE):
        return Diagnosis(
            f"out of memory: {_last_line(printed)}",
            _named(_TAKE_MEMORY, command),
            "it decides how much is taken",
            out_of_memory=True,
        )
    if exit_code in _KILLED:
        reason = "it was killed, probably for lack of memory"
        return Diagnosis(reason, _named(_TAKE_MEMORY, command), "it decides how much is taken")
    head, _, trace = printed.rpartition("Traceback (most recent call last):")
    if not trace or not (head or printed.startswith("Traceback")):
        return Diagnosis(f"it ended with exit code {exit_code}; last it printed: {_last_line(printed) or 'nothing'}")
    return _of_traceback(trace, command)


def _values_by_flag(arguments: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the arguments of each flag, by the flag."""
    values: dict[str, list[str]] = {}
    for word in arguments:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            values[flag] = [value] if equals else []
        elif values:  # else it is positional
            values[list(values)[-1]].append(word)
    return values


def _of_traceback(trace: str, command: Mapping[str, Sequence[str]]) -> Diagnosis:
    """Blame the flag that the error names, else the one that the failing code uses, else the one with the value it
    names.
    """
    lines = trace.strip("\n").splitlines()
    ends = [number for number, line in enumerate(lines) if line and not line[0].isspace()]
    last = ends[0] if ends else len(lines) - 1
    error = lines[last].strip()
    for pattern, remedy in _TRAPS.items():
        if re.search(pattern, error):
            return Diagnosis(error, remedy=remedy)
    if named := [flag for flag in command if _says(error, _name(flag))]:
        return Diagnosis(error, tuple(named), "the error names it")
    for phrase, names in _PHRASES.items():
        if phrase in error and (flags := _named(names, command)):
            return Diagnosis(error, flags, "that is what this error is about")
    if valued := [flag for flag, words in command.items() if any(len(word) > 2 and word in error for word in words)]:
        return Diagnosis(error, tuple(valued), f"its value, {' '.join(command[valued[0]])}, stands in the error")
    for line in reversed(lines[:last]):
        used = [flag for flag in command if re.search(rf"""(\.|\[['"]){re.escape(_name(flag))}\b""", line)]
        if used and not line.lstrip().startswith("File "):
            return Diagnosis(error, tuple(used), f"the code that failed uses it: {line.strip()}")
    return Diagnosis(error)


def _says(text: str, name: str) -> bool:
    typed = re.escape(name).replace("_", "[_-]")
    return re.search(rf"(?<![\w-])(--)?{typed}(?![\w-])", text) is not None


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _named(names: Iterable[str], command: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Select the `names` that stand in the command, as typed."""
    return tuple(flag for name in names for flag in command if _name(flag) == name)


def _last_line(printed: str) -> str:
    return next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
