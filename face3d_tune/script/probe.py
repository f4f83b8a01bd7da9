"""A user's script tried for two short epochs: which numbers it gives, where and how often.

It starts in a temporary folder, and everything that it started is ended with it. Two epochs, because only the second
shows what comes once an epoch.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from face3d_tune.errors import ScriptError, UnsearchableError
from face3d_tune.script import diagnosis
from face3d_tune.script.flags import Script, arguments
from face3d_tune.script.guesses import ScriptStart, lacking
from face3d_tune.script.metrics import Often, ProbedNumber, is_result
from face3d_tune.script.running.numbers import Numbers, Source
from face3d_tune.script.running.run_once import run_once
from face3d_tune.script.surroundings import changed, environment, files_in, program, roots_of

EPOCHS = 2

_USUAL, _UNUSUAL = (".pth", ".pt", ".ckpt"), (".npz", ".pkl", ".tar", ".h5", ".safetensors", ".joblib")
_NOTHING = "nothing"
_ASKED = r"^EOFError: EOF when reading a line|^EOFError$"
_TEXT = (
    r"(?i)\b((?:val|test|dev)\w*|\w*(?:acc|accuracy|loss|cosine|cos_sim|similarity|f1|auc|score|metric))"
    r"[\"']?(?:\s*[:=]\s*|[ \t]+)[\"']?([a-z][\w-]*)[\"']?[ \t]*(?:[,}\n]|$)"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What one trial run of a script has shown."""

    numbers: tuple[ProbedNumber, ...]
    seconds: float  # of an epoch, with a share of the start
    import_from: tuple[str, ...]  # folders that it needs in PYTHONPATH
    checkpoint: str | None  # pattern of the checkpoint to resume from; None: the newest of the usual names
    notes: tuple[str, ...]

    def every_epoch(self) -> list[ProbedNumber]:
        """Return the numbers that come once an epoch."""
        return [number for number in self.numbers if number.often == "epoch"]


def try_script(
    script: Script,
    plan: ScriptStart,
    *,
    python: str,
    timeout: float,
) -> Probe:
    """Run the script for two epochs as planned; its folders are temporary.

    Without a flag for epochs it is ended after its second one. At `timeout` (seconds), or on an interrupt, it is ended
    with every process that it started. Raises UnsearchableError, with what the script printed, if no number comes once
    an epoch.
    """
    path, roles = os.path.abspath(script.path), plan.roles
    before = files_in(Path(path).parent)
    with tempfile.TemporaryDirectory(prefix="face3d-tune-", ignore_cleanup_errors=True) as name:
        own: dict[str, Any] = {roles.epochs: EPOCHS} if roles.epochs else {}
        own |= {flag: str(Path(name, "trial", flag)) for flag in roles.folders}
        words = [_program(python), path, *plan.rest]
        for flag, value in {**plan.fixed, **own}.items():
            said = arguments(script, flag, value)
            if isinstance(said, str):
                raise UnsearchableError(f"{flag} = {value!r}: {said}")
            words += said
        run = _Run(script, words, Path(name), timeout, stop_early=roles.epochs is None)
        run.start()
        if run.code and re.search(r"^ModuleNotFoundError", run.printed, re.MULTILINE):
            again = _Run(script, words, Path(name), timeout, run.stop_early, import_from=roots_of(path))
            again.start()
            run = again if again.code == 0 or again.numbers() else run
        probe = run.result(EPOCHS if roles.epochs else None)
    notes = list(probe.notes)
    if written := changed(before, files_in(Path(path).parent)):
        listed = ", ".join(written)
        notes.append(f"it wrote into its own folder, so trials that run at once may disturb each other: {listed}")
    return replace(probe, notes=tuple(notes))


class _Run:
    """One run of the script in an empty folder."""

    def __init__(
        self,
        script: Script,
        words: Sequence[str],
        folder: Path,
        timeout: float,
        stop_early: bool,
        import_from: tuple[str, ...] = (),
    ) -> None:
        self.script, self.words, self.folder, self.timeout = script, words, folder, timeout
        self.stop_early, self.import_from = stop_early, import_from
        self.code: int | None = None  # None: it was ended
        self.stopped = False  # after its second epoch
        self.seconds = 0.0
        self.printed = ""
        self.strays: tuple[str, ...] = ()
        self._trial = folder / ("again" if import_from else "trial")
        self._numbers = Numbers(self._trial)
        self._seen: set[tuple[Source, str]] = set()  # numbers that appeared before the end

    def start(self) -> None:
        """Run it to its end, its second epoch or the timeout."""
        self._trial.mkdir()
        run = run_once(
            self.words,
            cwd=self._trial,
            environment=environment(self.import_from),
            log=self.folder / f"{self._trial.name}.txt",
            timeout=self.timeout,
            hear=self._numbers.hear,
            enough=self._enough,
        )
        self.code, self.seconds, self.printed, self.strays = run.code, run.seconds, run.printed, run.strays
        self._numbers.look(ended=True)

    def _enough(self) -> bool:
        """Look at the numbers, and tell whether the script may be ended."""
        self._numbers.look()
        curves = self._numbers.curves()
        self._seen |= curves.keys()
        self.stopped = self.stop_early and self._third_value(curves)
        return self.stopped

    def _third_value(self, curves: Mapping[tuple[Source, str], Mapping[int, float]]) -> bool:
        """Tell whether the third epoch of a script that trains as long as it likes has begun."""
        return any(len(curve) > EPOCHS and is_result(name) for (_, name), curve in curves.items())

    def numbers(self, epochs: int | None = None) -> tuple[ProbedNumber, ...]:
        """Return what it gave; of a script that decides on its epochs, most numbers come once in each."""
        curves = self._numbers.curves()
        lengths = [len(curve) for curve in curves.values() if len(curve) > 1]
        epochs = epochs or max(lengths, key=lambda length: (lengths.count(length), -length), default=EPOCHS)
        within = self._numbers.repeated()  # such as the loss of a progress bar
        return tuple(
            ProbedNumber(
                *key,
                tuple(curve.values()),
                "many" if key in within else _often(len(curve), epochs),
                late=key not in self._seen,
            )
            for key, curve in curves.items()
            if curve
        )

    def result(self, epochs: int | None) -> Probe:
        """Return what it has shown. Raises UnsearchableError if no number comes once an epoch."""
        numbers = self.numbers(epochs)
        found = [number for number in numbers if number.often == "epoch"]
        if self.code != 0 and not self.stopped:
            self._explain_failure(found, epochs)
        if not numbers:
            raise self._no_number()
        if not found:
            once = [number.name for number in numbers if number.often == "once"]
            listed = ", ".join(dict.fromkeys(once or [number.name for number in numbers]))[:200]
            how = "these came only once" if once else "these came many times an epoch"
            raise UnsearchableError(
                f"{self.script.path} gives no number once an epoch; {how}: {listed}",
                "a search needs one after every epoch: print it as `val_loss: 0.123`, or write it to TensorBoard",
                self.printed,
            )
        count = len(found[0].values)
        notes = []
        if self.import_from:
            where = " or ".join(self.import_from)
            notes.append(f"it finds its own modules only from {where}; PYTHONPATH in the file says so")
        if self.strays:
            listed = "; ".join(self.strays[:3])[:200]
            notes.append(f"it left processes running, which are ended with every trial: {listed}")
        if self.code is None and not self.stopped:
            notes.append(f"it was ended after {self.timeout:g} s and {count} epochs, as it has no flag for epochs")
        checkpoint = _checkpoint(path.name for path in self._trial.rglob("*") if path.is_file())
        return Probe(numbers, self.seconds / max(1, count), self.import_from, checkpoint, tuple(notes))

    def _explain_failure(self, found: Sequence[ProbedNumber], epochs: int | None) -> None:
        """Raise UnsearchableError, unless a script without a flag for epochs has shown enough before the timeout."""
        path = self.script.path
        if self.code is None:
            if epochs is None and found:
                return
            last, hint = _last(self.printed), "it may only be slow: --timeout 1h waits for an hour"
            if any(len(number.values) == EPOCHS for number in found):
                hint = "it gave the numbers of all epochs: see what it waits for after its last one, or --timeout 1h"
            raise UnsearchableError(
                f"{path} did not end {EPOCHS} epochs within {self.timeout:g} s; the last it printed: {last}",
                hint,
                self.printed,
            )
        if re.search(_ASKED, self.printed, re.MULTILINE):
            raise UnsearchableError(
                f"{path} asks a question, which no search can answer: {_question(self.printed)}",
                "let it take the answer as a flag, with a default",
                self.printed,
            )
        cause = diagnosis.find(self.code, self.printed, self.words[2:])
        if missing := re.findall(r"the following arguments are required: (.+)", self.printed):
            raise lacking(path, missing[-1].split(", "), self.printed)
        if re.match("unrecognized arguments", cause.reason):
            hint = "after -- stand arguments that the script takes"
        elif cause.remedy or cause.flags:
            hint = str(cause)
        elif "batch_size" in self.script.flags and cause.reason.startswith("out of memory"):
            hint = "give it less to hold after --, e.g. -- --batch_size 8"
        else:
            hint = "see what it printed above; a flag that it needs goes after --, e.g. -- --data_dir DIR"
        raise UnsearchableError(f"{path} does not train: {cause.reason}", hint, self.printed)

    def _no_number(self) -> UnsearchableError:
        path, hint = self.script.path, "print it after every epoch as `val_loss: 0.123`, or write it to TensorBoard"
        last = _last(self.printed)
        texts = [f"{name} ({text})" for name, text in re.findall(_TEXT, self.printed)]
        if texts:
            listed = ", ".join(dict.fromkeys(texts))[:200]
            return UnsearchableError(f"{path} gives text where a search needs a number: {listed}", hint, self.printed)
        if last == _NOTHING:
            hint = "see that it trains when it is started as a program"
        return UnsearchableError(
            f"{path} ended after {self.seconds:.1f} s without a number; the last it printed: {last}", hint, self.printed
        )


def _program(python: str) -> str:
    try:
        return program(python)
    except ScriptError as error:
        raise UnsearchableError(error.message, error.hint) from error


def _often(count: int, epochs: int) -> Often:
    """Say how often a number came; one that also comes before the first epoch or after the last counts as by epoch."""
    if count == 1:
        return "once"
    return "epoch" if epochs <= count <= epochs + 1 else "many"


def _checkpoint(names: Iterable[str]) -> str | None:
    """Return which of the files that it wrote a script may resume from; None: the newest of the usual ones."""
    saved = [name for name in names if name.endswith((*_USUAL, *_UNUSUAL))]
    for name in saved:
        if re.search("last|latest", name, re.IGNORECASE) and not re.search(r"\d", name):
            return name
    if any(name.endswith(_USUAL) for name in saved):
        return None
    return f"*{Path(saved[0]).suffix}" if saved else None


def _last(printed: str) -> str:
    return (printed.strip().rpartition("\n")[2].rpartition("\r")[2].strip() or _NOTHING)[:200]


def _question(printed: str) -> str:
    head = printed.partition("Traceback (most recent call last):")[0]
    return _last(head)
