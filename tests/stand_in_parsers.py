"""The argument parsers of an old and a new copy of the users' script, as files to read and as parsers to try."""

import argparse
import importlib.util
from pathlib import Path

OLD_SCRIPT = Path(__file__).parent / "scripts" / "train_3d_old.py"
NEW_SCRIPT = Path(__file__).parent / "scripts" / "train_3d_new.py"


def build_old() -> argparse.ArgumentParser:
    return _build(OLD_SCRIPT)


def build_new() -> argparse.ArgumentParser:
    return _build(NEW_SCRIPT)


def _build(path: Path) -> argparse.ArgumentParser:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_parser()
