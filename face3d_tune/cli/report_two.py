"""The two studies of `face3d-tune report STUDY STUDY`, each from the storage here or from one of its own."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face3d_tune.analysis.findings import Findings
    from face3d_tune.storage.database import Storage


def read_two(here: "Storage", typed: tuple[str, ...]) -> "tuple[tuple[Findings, Findings], tuple[str, str]]":
    """Return the findings of two studies, and names that tell them apart. Raises StorageError and StudyError."""
    from face3d_tune.analysis.findings import find
    from face3d_tune.storage.study_names import named_elsewhere
    from face3d_tune.study.lookup import find_study

    found, places = [], []
    for each in typed:
        place, name = named_elsewhere(each, here)
        with place.opened() as opened:
            found.append(find(find_study(opened, name, place)))
        places.append(str(place))
    first, second = found
    if first.name != second.name:
        return (first, second), (first.name, second.name)
    names = [f"{each.name} ({place})" for each, place in zip(found, places, strict=True)]
    return (first, second), (names[0], names[1])
