"""A research code base as the users have one, with a script that really trains; every test gets its own."""

import contextlib
import io
import runpy
import shutil
import sys
from pathlib import Path
from unittest import mock

from stand_in_parsers import OLD_SCRIPT

HERE = Path(__file__).parent
REAL_SCRIPT = HERE / "scripts" / "train_3d_real.py"
PRESENT_SCRIPT = HERE / "scripts" / "train_3d_present.py"
DOCUMENTED_SCRIPT = HERE / "scripts" / "train_3d_documented.py"


def write_repo(folder: Path, *changes: tuple[str, str], source: Path = REAL_SCRIPT) -> Path:
    """Write `train_transformer3D/train_3d.py` and what it imports into `folder`; returns the script.

    Each change is a text of the script and what to put in its place.
    """
    text = source.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "train_transformer3D").mkdir(parents=True)
    (folder / "models").mkdir()
    script = folder / "train_transformer3D" / "train_3d.py"
    script.write_text(text, encoding="utf-8")
    shutil.copyfile(REAL_SCRIPT, script.with_name("train_3d_first.py"))  # which the others import
    (folder / "models" / "__init__.py").write_text("", encoding="utf-8")
    shutil.copyfile(HERE / "reference_model.py", folder / "models" / "transformer.py")
    return script


def script_of(folder: Path, main: str, imports: str = "") -> Path:
    """Write a script with the guide's parser that does `main` instead of training, without loading torch."""
    text = OLD_SCRIPT.read_text(encoding="utf-8")
    text = text.replace("import argparse\n", f"import argparse, json, os, sys, time\n{imports}")
    text = text.replace('raise RuntimeError("the script was run; it may only be read")', main)
    path = folder / "train_3d.py"
    path.write_text(text, encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def train(script: Path | str, *words: object) -> str:
    """Run the script in this process, which has loaded torch already; returns what it printed.

    As Python does, it lets the script import what lies beside it; those modules are forgotten afterwards.
    """
    script, printed, modules = Path(script), io.StringIO(), set(sys.modules)
    with (
        mock.patch.object(sys, "argv", [str(script), *map(str, words)]),
        mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
        contextlib.redirect_stdout(printed),
    ):
        runpy.run_path(str(script), run_name="__main__")
    for name in set(sys.modules) - modules:
        if str(script.parent.parent) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    return printed.getvalue()
