"""The errors that a user can cause or meet, as one tree: a caller catches at the level it needs.

TuneError                 anything this package raises on purpose
├── ConfigError           a value that no training can use
├── DataError             the six data files are missing, broken or do not fit together
├── StudyFileError        a study file cannot be read or contradicts itself
├── StorageError          the database cannot be reached, created or used
│   ├── NoStudiesError    it was reached, and holds no study
│   └── StorageAwayError  it went away during a search, for longer than the search waits
├── ArtifactError         the folder or bucket for checkpoints cannot be reached or used
├── StudyError            a study or trial is missing, or was made under other conditions
│   └── StudyGoneError    it was deleted or renamed while something worked on it
├── EarlierRunError       a file of an earlier run cannot be read
│   └── RefusedRunError   runs do not belong in the study
├── CheckpointError       a checkpoint or baseline file holds no model that can be used
├── ExportError           the flags of the user's script cannot express a trial
│   └── ScriptError       the user's script did not train with these flags
│       └── UnsearchableError  it cannot be searched as it is, or not with these arguments
└── TrainingError         a training that started could not be finished
    └── NonFiniteError    its loss or metric was NaN or infinite
"""

from collections.abc import Iterable
from difflib import get_close_matches


class TuneError(Exception):
    """An error with a one-line message for the user, and a hint at what to do about it."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def near_miss(word: str, words: Iterable[str]) -> str | None:
    """Return the known word that a mistyped one is closest to; None if none is close."""
    return next(iter(get_close_matches(word, list(words), n=1)), None)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean 'run'?` for the end of a message; empty if no known word is close."""
    near = near_miss(word, words)
    return "" if near is None else f"; did you mean {near!r}?"


class ConfigError(TuneError):
    """A value that no training can use."""


class DataError(TuneError):
    """The six data files are missing, broken or do not fit together."""


class StudyFileError(TuneError):
    """A study file cannot be read or contradicts itself."""


class StorageError(TuneError):
    """The database cannot be reached, created or used."""


class NoStudiesError(StorageError):
    """The database was reached, and holds no study."""


class StorageAwayError(StorageError):
    """The database went away while a search ran; a supervisor may start the same command again."""

    exit_code = 1


class ArtifactError(TuneError):
    """The folder or bucket for checkpoints cannot be reached or used."""


class StudyError(TuneError):
    """A study or trial is missing, or was made under other conditions."""


class StudyGoneError(StudyError):
    """The study was deleted or renamed while something worked on it."""


class EarlierRunError(TuneError):
    """A file of an earlier run cannot be read."""


class RefusedRunError(EarlierRunError):
    """Runs do not belong in the study; the others, if any, were imported."""

    exit_code = 1


class CheckpointError(TuneError):
    """A checkpoint or baseline file holds no model that can be used."""


class ExportError(TuneError):
    """The flags of the user's script cannot express a trial."""


class ScriptError(ExportError):
    """The user's script did not train with these flags; `printed` is all that it printed."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None, printed: str = "") -> None:
        super().__init__(message, hint)
        self.printed = printed


class UnsearchableError(ScriptError):
    """The user's script cannot be searched as it is, or not with these arguments."""

    exit_code = 2


class TrainingError(TuneError):
    """A training that started could not be finished."""

    exit_code = 1


class NonFiniteError(TrainingError):
    """A loss or metric was NaN or infinite."""
