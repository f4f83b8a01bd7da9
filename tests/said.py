"""Every sentence in the package's source that the terminal may print, as it is written there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import face3d_tune

ROOT = Path(face3d_tune.__file__).parent

# What is written into files and pages, or only shown as help.
_ELSEWHERE = {"report", "dashboard", "analysis/curve.py", "analysis/svg.py", "cli/completion.py"}
_ELSEWHERE |= {"refit/inference/predict.py"}  # a program of its own
_ELSEWHERE |= {
    "__init__.py",
    "study/loaded_study.py",
    "search/from_python.py",
    "search/checked_options.py",
}  # in Python
_ELSEWHERE |= {"script/draft.py"}  # writes a study file
_ELSEWHERE |= {"storage/wide_reads.py"}  # questions to a database, in pieces
# Calls whose texts are help, patterns, or questions to a database.
_OTHER_CALLS = {"option", "argument", "example", "version_option", "option_group", "Option"} | {
    *("study_name_option", "data_dir_option", "trying_options", "notify_option"),
    *("compile", "search", "match", "fullmatch", "findall", "sub", "text", "execute", "cast"),
}
# Sentences that no person reads: errors of the programmer, patterns, queries, and other programs' messages.
_NOT_SAID = (
    r"no such distribution in a study file|training with dropout needs masks|every time has a unit|"
    r"Record does not exist\.|has already finished and can not be updated|REPEATABLE READ|_privilege\(|"
    r"^\s*(select|insert|update|delete|exists|\(case|extract)\b|- seen|READ COMMITTED|"
    r"^[\s7,]*(\w+ as \(|select |trials t )|isolation level|\\s\+|"
    r"^\s*(with \w+ as \(|create table|(studies s|trials t|t\.trial_id) )|"
    r"^out of memory\||^__init__|^\^|requires TensorBoard|embed_dim must|Invalid learning|Factor should|shapes cannot|"
    r"more than 1 value|Traceback \(most|Object arrays|^# Trained with|"
    r"^(as they are|turned back)$|^pip install [^i]*$|"
    r"^(Show the traceback|Language of results|The study; may be left out)"
)


def sentences() -> Iterator[tuple[str, str]]:
    """Yield each sentence with its place; every value in it is a 7."""
    for place, text in texts():
        if is_english(text) and not re.search(_NOT_SAID, text):
            yield place, text


@cache
def texts() -> list[tuple[str, str]]:
    """Return every text of the package that is not certainly shown elsewhere, sentence or not, with its place."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not {name, name.partition("/")[0]} & _ELSEWHERE:
            for node, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
                found.append((f"{name}:{node.lineno}", text))
    return found


def _texts(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield the texts below a node, without docstrings, annotations and asserted messages."""
    match node:
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _OTHER_CALLS:
            return
        case ast.Constant(value=str(text)):
            yield node, text
        case ast.JoinedStr(values=values):
            yield node, "".join(str(each.value) if isinstance(each, ast.Constant) else "7" for each in values)
            for each in values:
                if isinstance(each, ast.FormattedValue):
                    yield from _texts(each.value)
        case ast.Expr(value=ast.Constant()):
            pass
        case ast.AnnAssign(value=value):
            yield from _texts(value) if value else ()
        case ast.Assert() | ast.arg():
            pass
        case ast.FunctionDef():
            for part in (*node.decorator_list, node.args, *node.body):
                yield from _texts(part)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _texts(child)


def untranslated() -> Iterator[tuple[str, str]]:
    """Yield what the commands print past the translation: texts in `click.echo`, and consoles of Rich itself."""
    for path in sorted((ROOT / "cli").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="click"), attr="echo"), args=[first, *_]):
                    yield from ((f"{path.name}:{node.lineno}", text) for _, text in _texts(first))
                case ast.ImportFrom(module="rich.console" | "rich.table", names=names):
                    yield from ((f"{path.name}:{node.lineno}", f"Rich's {name.name}") for name in names)


def is_english(text: str) -> bool:
    """Tell whether a text has two words, or a word beside a value."""
    words, beside = r"[A-Za-z]{2,}[^A-Za-z]* [^A-Za-z]*[A-Za-z]{2,}", r"(^|[ ,;]) *7 [a-z]{2,}|[a-z]{2,} +7"
    return re.search(f"{words}|{beside}", text) is not None
