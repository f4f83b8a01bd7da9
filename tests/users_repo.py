"""A research code base as the users have one, with a script that really trains; every test gets its own."""

import shutil
from pathlib import Path

HERE = Path(__file__).parent
REAL_SCRIPT = HERE / "scripts" / "train_3d_real.py"


def write_repo(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write `train_transformer3D/train_3d.py` and what it imports into `folder`; returns the script.

    Each change is a text of the script and what to put in its place.
    """
    source = REAL_SCRIPT.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    (folder / "train_transformer3D").mkdir(parents=True)
    (folder / "models").mkdir()
    script = folder / "train_transformer3D" / "train_3d.py"
    script.write_text(source, encoding="utf-8")
    (folder / "models" / "__init__.py").write_text("", encoding="utf-8")
    shutil.copyfile(HERE / "reference_model.py", folder / "models" / "transformer.py")
    return script


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
