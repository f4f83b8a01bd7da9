"""The names of the studies in a storage, and the choice of the one that a name means."""

import unicodedata
from collections.abc import Iterable, Sequence

import optuna
from optuna.storages import BaseStorage

from face3d_tune.errors import StudyError, did_you_mean
from face3d_tune.storage.database import Storage
from face3d_tune.system.safe_text import fits_a_line

ANOTHER = "start another study with --study-name NEW"  # a hint

LONGEST_NAME = 200  # characters; PostgreSQL would refuse 513


def study_names(storage: BaseStorage) -> list[str]:
    """Return the names of all studies, of other programs' too, in alphabetical order."""
    far = getattr(storage, "study_names", None)  # Optuna would read all attributes of all studies
    return sorted(far() if far else optuna.get_all_study_names(storage))


def existing_name(storage: BaseStorage, name: str | None, elsewhere: Storage | None = None) -> str:
    """Return that name if a study has it; without a name, the only study's. Raises StudyError.

    `elsewhere` is the storage if it was typed as `URL#STUDY`, where --study-name would name another study.
    """
    names = study_names(storage)
    if name is None and len(names) == 1:
        name = names[0]
    listed = f"{listed_names(names)}{'' if names else ' yet; make one with `face3d-tune run`'}"
    if name is None:
        hint = "name one with --study-name" if elsewhere is None else f"name one after the URL: {elsewhere}#STUDY"
        raise StudyError(f"which study? {listed}", hint if names else None)
    if existing := alike(name, names):
        return existing
    raise StudyError(f"no study named {name!r}{did_you_mean(name, names)}", listed)


def alike(name: str, names: Iterable[str]) -> str | None:
    """Return the study that a name means: the one of that name, else the only one that looks the same; or None.

    Names look the same if they differ only in the Unicode form or in spaces at the ends. A keyboard and a Mac's file
    name write é differently. Raises StudyError if several look the same.
    """
    matches = [each for each in names if _plain(each) == _plain(name)]
    if name in matches or not matches:
        return name if matches else None
    if len(matches) > 1:
        raise StudyError(
            f"which study? {len(matches)} look like {name!r}", f"they are {', '.join(map(ascii, matches))}"
        )
    return matches[0]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def named_elsewhere(typed: str, here: Storage) -> tuple[Storage, str | None]:
    """Return storage and name of the study that is typed as `URL#STUDY`, as `URL`, or as `STUDY` of the storage here.

    What follows the last `#` is a name unless it may belong to a password or to a file. Raises StorageError.
    """
    if "://" not in typed:
        return here, typed
    url, mark, name = typed.rpartition("#")
    if not mark or any(each in name for each in "@/?=") or "://" not in url:
        return Storage.parse(typed), None
    return Storage.parse(url), name or None


def name_to_search(place: Storage, name: str) -> str:
    """Return the study that a search under this name continues, else the name in plain form for a new study.

    Raises StudyError if no new study can have it, and StorageError.
    """
    if place.holds_studies():
        with place.opened() as storage:
            if existing := alike(name, study_names(storage)):
                return existing
    plain = _plain(name)
    if fault := fault_of_new(plain):
        raise StudyError(
            f"the study's name, {name!r}, {fault}; expected 1 to {LONGEST_NAME}", "give another with --study-name"
        )
    return plain


def fault_of_new(name: str) -> str | None:
    """Return what is wrong with a name for a new study; None if nothing is."""
    if not fits_a_line(name):
        return "has a character that no line can show"
    length = len(name.strip())
    return None if 0 < length <= LONGEST_NAME else f"has {length} characters"


def listed_names(names: Sequence[str]) -> str:
    """List the studies of a storage."""
    return f"this storage holds {', '.join(names) or 'no study'}"
