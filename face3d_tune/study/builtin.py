"""The study files that come with the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
# In a wheel they are in the package, in a checkout beside it.
STUDIES = next(folder for folder in (_PACKAGE / "studies", _PACKAGE.parent / "studies") if folder.is_dir())


def builtin_names() -> list[str]:
    """Return the names that `--study` accepts besides a path."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))
