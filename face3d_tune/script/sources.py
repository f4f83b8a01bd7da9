"""The source of a user's training script: parsed, never run, with the local Python files that it imports."""

import ast
import hashlib
import os
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from face3d_tune.errors import ExportError
from face3d_tune.system import regular_file

_MOST_FILES = 1_000  # of one script; more than that is an environment, not a project


def text(path: Path) -> str:
    """Read a Python file, with byte-order mark and coding cookie. Raises OSError, SyntaxError or ValueError."""
    regular_file.require(path, most=regular_file.MOST_TEXT)
    with tokenize.open(path) as file:
        return file.read()


def parse(path: Path) -> ast.Module:
    """Parse a Python file into a syntax tree. Raises ExportError."""
    hint = "name a Python file, usually train_transformer3D/train_3d.py"
    try:
        source = text(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "\d" in a string: the script's own affair
            return ast.parse(source)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}", hint) from error
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise ExportError(f"{path} is not Python: {where}{error.msg}", hint) from error
    except ValueError as error:  # bytes that the declared encoding does not have, or a null byte
        raise ExportError(f"{path} is not Python text: {error}", hint) from error
    except (RecursionError, MemoryError) as error:
        raise ExportError(f"{path} is not Python: it nests too deeply", hint) from error


def hashes(script: Path) -> dict[str, str]:
    """Return the SHA-256 of the script and of each local file that it imports, by path from the script's folder.

    A path has forward slashes, on every system. Raises ExportError if the script cannot be parsed.
    """
    folder = script.absolute().parent
    found = {}
    for path in (script.absolute(), *imported(script)):
        with suppress(OSError):  # removed meanwhile
            found[Path(os.path.relpath(path, folder)).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def digest(hashes_by_path: Mapping[str, str]) -> str:
    """Return one short hash of a script and its files: which version of it a trial was trained with."""
    whole = "\n".join(f"{path} {hashes_by_path[path]}" for path in sorted(hashes_by_path))
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def whole_text(script: Path) -> str:
    """Return the text of the script and of the local files that it imports, as far as they can be read."""
    texts = []
    for path in (script, *imported(script)):
        with suppress(OSError, SyntaxError, ValueError):
            texts.append(text(path))
    return "\n".join(texts)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files whose hash is new, gone or another, sorted."""
    return sorted({name for name, _ in before.items() ^ now.items()})


def imported(script: Path) -> list[Path]:
    """Return the Python files below the script's folder, or the folder above, that it imports, directly or not.

    The script is not among them. An import that only running the script would show is not found. Raises ExportError if
    the script cannot be parsed; an imported file that cannot be parsed imports nothing.
    """
    script = script.absolute()
    roots = (script.parent, script.parent.parent)
    found: dict[Path, None] = {}
    waiting = list(_imports(parse(script), script, roots))
    while waiting and len(found) < _MOST_FILES:
        path = waiting.pop(0)
        if path in found or path == script:
            continue
        found[path] = None
        with suppress(ExportError):
            waiting += _imports(parse(path), path, roots)
    return list(found)


def _imports(tree: ast.Module, path: Path, roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the local files that a file imports, with the `__init__.py` of each package on the way."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name, roots)
        elif isinstance(node, ast.ImportFrom):
            places = [path.parents[node.level - 1]] if 0 < node.level <= len(path.parents) else list(roots)
            module = [node.module] if node.module else []
            for alias in node.names:  # a module or a name in one
                yield from _files(".".join([*module, alias.name]), places)


def _files(module: str, roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that `import module` reads below the first root that has its first part."""
    first, *others = module.split(".")
    for root in roots:
        place = root / first
        if not place.with_suffix(".py").is_file() and not place.is_dir():
            continue
        for name in (*others, None):
            if place.is_dir():
                if (init := place / "__init__.py").is_file():
                    yield init
            elif (file := place.with_suffix(".py")).is_file():
                yield file
                return
            else:
                return
            if name is not None:
                place = place / name
        return
