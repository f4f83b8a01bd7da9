"""What both kinds of `confirm` say about their trainings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from face3d_tune.cli.console import Console
    from face3d_tune.refit.candidates import Candidate
    from face3d_tune.refit.script_candidates import ScriptCandidate
    from face3d_tune.refit.stored_trainings import StoredTrainings


def require_preset(name: str | None, picked: "Sequence[Candidate | ScriptCandidate]") -> None:
    """Raise StudyError unless this preset is among the candidates."""
    from face3d_tune.errors import StudyError, did_you_mean

    known = [each for candidate in picked if candidate.preset for each in (candidate.name, *candidate.aliases)]
    if name is not None and name not in known:
        raise StudyError(
            f"--baseline: no preset named {name!r} in the study{did_you_mean(name, known)}",
            f"it has {', '.join(known) or 'none'}",
        )


def stored_already(trainings: "StoredTrainings[Any]") -> str:
    """Return the end of a sentence on all trainings: how many an earlier run stored; empty if none."""
    stored = len(trainings.jobs) - len(trainings.missing)
    return f"; {stored} of them are stored already" if stored else ""


@contextmanager
def interruption_explained(console: "Console", trainings: "StoredTrainings[Any]") -> Iterator[None]:
    """Print what is stored, and how to resume, if a person interrupts the block."""
    try:
        yield
    except KeyboardInterrupt:
        stored = len(trainings.jobs) - len(trainings.missing)
        console.print(f"{stored} of {len(trainings.jobs)} trainings are stored")
        console.print("hint: run the same command to resume")
        raise
