"""The package has one way down: every module imports from earlier layers only, and a few alone know each tool."""

import ast
import re
import sys
from pathlib import Path

import pytest

import face3d_tune

PACKAGE = Path(face3d_tune.__file__).parent

# A module may import from every layer above its own line, and from no other.
LAYERS = (
    "__init__ errors paths safe_text sqlite_file signals",
    "seeds stopping presets builtin pace blame race extrapolation verdict confirmation svg",  # nothing of ours
    "masks folds regular_file",
    "config script",
    "storage device checkpoint artifacts",  # the machine: databases, ports, GPUs, files
    "workers outage foreign",
    "data.problems",
    "data.metadata",
    "data.files",
    "data.pairs",
    "data.doubts",
    "data.face_data",
    "data",  # what the rest of the package sees of data
    "data.copy",
    "importance ridge",
    "space losses model export judge augmentation schedules",
    "study_file",
    "algorithms results conditions weights",
    "stages steering queued",
    "training earlier_run",
    "trainer engine.layers engine.parameters engine.sites engine.state",
    "engine.network",
    "engine.table",
    "engine.epoch",
    "engine.batch",
    "engine",  # what the rest of the package sees of the engine
    "history",
    "target",
    "tasks curve importing",
    "resume",
    "slots",
    "processes objective full_training",
    "findings smoke readings",
    "fresh",
    "dashboard.wsgi",
    "dashboard.guard dashboard.mended dashboard.current dashboard.figures dashboard.notes",
    "dashboard.enrich",
    "dashboard.server",
    "dashboard",  # what the commands see of it
    "report.blocks report.content",
    "report.words",
    "report.charts",
    "report.confirmed report.result report.searching report.training",
    "report.story",
    "report.html report.markdown",
    "report",  # the same
    "ledger",
    "archive loop",
    "plan search copying",
    "doctor candidates",
    "retraining",
    "confirming",
    "cli.base cli.streams",
    "cli.table cli.live",
    "cli.progress",
    "cli.run cli.watch cli.status cli.dashboard cli.report cli.export cli.train cli.data cli.importing cli.copy "
    "cli.confirm cli.doctor cli.completion",  # no command knows another
    "cli",
    "__main__",
)

# Which modules may use a package that is not ours; every other package is for any module.
ONLY = {
    "click": "cli.base cli.run cli.watch cli.status cli.dashboard cli.report cli.export cli.train cli.data "
    "cli.importing cli.copy cli.confirm cli.doctor cli.completion cli",
    "rich": "cli.table cli.live cli.progress cli.run cli.watch cli.export cli.train cli.importing cli.confirm",
    "sqlalchemy": "storage workers fresh ledger copying",
    "filelock": "sqlite_file",
    "optuna_dashboard": "dashboard.server",
    "waitress": "dashboard.server",
    "tomli_w": "export",
    "torch": "seeds masks device checkpoint losses model weights conditions training earlier_run trainer engine.layers "
    "engine.parameters engine.sites engine.state engine.network engine.table engine.epoch engine.batch importing "
    "augmentation schedules "
    "resume slots processes objective full_training smoke plan retraining cli.importing",
    "psutil": "regular_file smoke plan doctor",
    "optuna": "storage foreign space extrapolation judge algorithms results conditions stages steering queued history "
    "target importing findings fresh dashboard.current "
    "dashboard.figures dashboard.notes dashboard.enrich dashboard.server report.content ledger archive loop search "
    "copying candidates confirming cli.confirm "
    "cli.table cli.progress cli.run cli.watch cli.status cli.dashboard cli.report cli.export "
    "cli.train cli.importing cli.copy cli.doctor",
    "numpy": "verdict ridge extrapolation confirming "
    "masks checkpoint data.problems data.metadata data.files data.pairs data.doubts data.face_data data.copy "
    "importance export augmentation training importing cli.data",
}

HEAVY = ("torch", "optuna", "optuna_dashboard", "sqlalchemy", "numpy", "rich")
IMPORTED_LATE = ("cli.progress", "cli.table", "cli.live")  # by the commands, inside their functions


def name_of(path):
    """`cli.run`, or `cli` for its __init__.py, or `__init__` for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer.split()}


def imported(nodes):
    """What these nodes import, as full dotted names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import says where it leads in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(nodes):
    """The modules of ours among them."""
    for name in imported(nodes):
        if name.split(".")[0] == "face3d_tune":
            inner = name.removeprefix("face3d_tune").removeprefix(".")
            yield next((known for known in (inner, inner.rpartition(".")[0]) if known in TREES), "__init__")


def others(nodes):
    """The packages that are neither ours nor Python's."""
    packages = {name.split(".")[0] for name in imported(nodes)}
    return packages - set(sys.stdlib_module_names) - {"face3d_tune"}


def at_import(tree):
    """Every statement that runs when the module is imported."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            waiting += ast.iter_child_nodes(node)


def inside_functions(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [node for function in functions for node in ast.walk(function)]


def test_every_module_has_a_place_and_every_place_a_module():
    listed = [module for layer in LAYERS for module in layer.split()]
    assert sorted(listed) == sorted(TREES)


@pytest.mark.parametrize("module", TREES)
def test_a_module_imports_from_earlier_layers_only(module):
    wrong = {name for name in ours(ast.walk(TREES[module])) if RANK[name] >= RANK[module]}
    assert not wrong


def test_a_module_stands_in_the_table_of_the_design_below_all_that_it_imports():
    design = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/?` \|", design, flags=re.MULTILINE)
    assert "search" in rows
    for module in set(rows) & set(TREES):
        above = {*rows[: rows.index(module)], module, "__init__"}
        assert {name.split(".")[0] for name in ours(ast.walk(TREES[module]))} <= above, module


def test_only_the_faces_of_data_and_engine_are_known_outside():
    outside = {module: tree for module, tree in TREES.items() if not module.startswith(("data", "engine"))}
    inner = {
        name for tree in outside.values() for name in ours(ast.walk(tree)) if name.startswith(("data.", "engine."))
    }
    assert inner == {"data.copy"}


@pytest.mark.parametrize("package", ONLY)
def test_only_a_few_modules_know_a_tool(package):
    using = [module for module, tree in TREES.items() if package in others(ast.walk(tree))]
    assert sorted(using) == sorted(ONLY[package].split())


def looks_at_test_people(tree):
    """Where a part of the data is named "test": as an argument (`Pairs(data, "test", …)`), or of `parts`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("parts"):
            named = [node.slice]
        else:
            continue
        yield from (node for each in named if isinstance(each, ast.Constant) and each.value == "test")


def test_only_the_confirmation_evaluates_test_people():
    looking = {module for module, tree in TREES.items() if list(looks_at_test_people(tree))}
    assert {module for module in looking if not module.startswith("data")} == {"confirming"}


def test_every_package_in_use_is_in_the_table():
    assert set().union(*(others(ast.walk(tree)) for tree in TREES.values())) == ONLY.keys()


@pytest.mark.parametrize("module", [module for module in TREES if module.split(".")[0] == "cli"])
def test_commands_are_told_apart_without_loading_what_they_need(module):
    if module in IMPORTED_LATE:
        waiting_for_it = [TREES[name] for name in TREES if name.startswith("cli") and name not in IMPORTED_LATE]
        assert not any(module in ours(at_import(tree)) for tree in waiting_for_it)
        return
    loaded, waiting = set(), ["__init__", module]
    while waiting:
        name = waiting.pop()
        loaded.add(name)
        assert not others(at_import(TREES[name])) & set(HEAVY), name
        waiting += set(ours(at_import(TREES[name]))) - loaded


@pytest.mark.parametrize("module", [module for module in TREES if module.split(".")[0] != "cli"])
def test_imports_stand_at_the_top_except_in_commands(module):
    assert not list(imported(inside_functions(TREES[module])))


def test_the_rules_would_notice():
    tree = ast.parse("from face3d_tune.cli import main\ndef work():\n    import torch\n")
    assert list(ours(ast.walk(tree))) == ["cli"]
    assert others(ast.walk(tree)) == {"torch"}
    assert not others(at_import(tree))
    assert others(at_import(ast.parse("try:\n    import torch\nexcept ImportError:\n    torch = None\n"))) == {"torch"}
    assert not others(at_import(ast.parse("if TYPE_CHECKING:\n    import torch\n")))
    assert list(imported(inside_functions(tree))) == ["torch"]
    for code in ('Pairs(data, "test", unit)', 'data.parts["test"]', 'no_model_cosine(part="test")'):
        assert list(looks_at_test_people(ast.parse(code)))
    assert not list(looks_at_test_people(ast.parse('people["test"]; words("tests")')))
