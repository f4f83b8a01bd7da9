"""The package is a house of rooms: imports between rooms lead one way, and a few rooms alone know each tool."""

import ast
import re
import sys
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import face3d_tune

PACKAGE = Path(face3d_tune.__file__).parent
DOOR = ("__init__", "errors", "config", "seeds", "device")  # the files at the top, which every room may use
DOOR_USES = "system"  # the only room that they import from

# Each room may import from the rooms beside it; `cli` from all of them.
ROOMS = {
    "system": "",
    "data": "system",
    "training": "system data",
    "storage": "system",
    "study": "system data training storage",
    "executor": "system data training storage",
    "script": "system data training study executor",
    "search": "system data training storage study executor script",
    "analysis": "system study",
    "refit": "system data training storage study executor script analysis",
    "report": "system data study script analysis",
    "dashboard": "system data storage study script search analysis",
    "cli": "system data training storage study executor script search analysis refit report dashboard",
}

# Which rooms, or files at the door, may use a package that is not ours.
TOOLS = {
    "click": "cli",
    "rich": "cli",
    "sqlalchemy": "storage study search",
    "filelock": "storage",
    "optuna": "storage study search script analysis refit report dashboard cli",
    "optuna_dashboard": "dashboard",
    "waitress": "dashboard",
    "tomli_w": "script",
    "psutil": "system script search",
    "torch": "seeds device training study executor search script refit",
    "numpy": "data training search script analysis refit cli",
}

HEAVY = ("torch", "optuna", "optuna_dashboard", "sqlalchemy", "numpy", "rich")
# What Python lacks on Windows, as full dotted names: such an import would end every command there.
NOT_ON_WINDOWS = {
    *("fcntl", "grp", "pwd", "pty", "readline", "resource", "syslog", "termios", "tty"),
    *("multiprocessing.context.ForkContext", "multiprocessing.context.ForkServerContext"),
    *("os.fork", "os.killpg", "signal.SIGHUP", "signal.SIGKILL", "signal.pthread_sigmask"),
}
# In functions.
IMPORTED_LATE = {
    f"cli.{name}"
    for name in ("console", "progress", "result_tables", "script_results", "live", "run_heading", "run_output")
}


def name_of(path):
    """`cli.run`, `cli` for the room's __init__.py, or `__init__` for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def room_of(module):
    return module.split(".")[0]


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


@cache
def imports(tree):
    """Every import of a module, found once for all tests."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(nodes):
    """What these nodes import, as full dotted names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import says where it leads in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(nodes):
    """The modules of ours among them, with the __init__.py of every package on the way, which Python runs as well."""
    for name in imported(nodes):
        if name.split(".")[0] == "face3d_tune":
            parts = name.split(".")[1:]
            on_the_way = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            yield from [known for known in on_the_way if known in TREES] or ["__init__"]


def others(nodes):
    """The packages that are neither ours nor Python's."""
    packages = {name.split(".")[0] for name in imported(nodes)}
    return packages - set(sys.stdlib_module_names) - {"face3d_tune"}


@cache
def at_import(tree):
    """Every import that runs when the module is imported."""
    waiting, found = list(tree.body), []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def inside_functions(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [node for function in functions for node in ast.walk(function)]


def rooms_used_by(tree):
    return {room_of(name) for name in ours(imports(tree))}


def test_ls_shows_the_architecture():
    files = {path.name for path in PACKAGE.glob("*.py")}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert files == {f"{name}.py" for name in DOOR} | {"__main__.py"}
    assert folders - {"studies"} == set(ROOMS)  # in a wheel the study files lie in the package
    assert len(files) <= 6
    assert len(folders) <= 13


def test_the_table_of_rooms_leads_one_way():
    above = []
    for room, uses in ROOMS.items():
        assert set(uses.split()) <= set(above), room
        above.append(room)


def test_a_module_imports_from_its_own_room_the_door_and_the_rooms_below():
    beyond = {}
    for module, tree in TREES.items():
        room = room_of(module)
        beyond[module] = rooms_used_by(tree) - {*DOOR, room, *ROOMS.get(room, DOOR_USES).split()}
    del beyond["__main__"], beyond["__init__"]  # it names what Python users import, and loads it when it is used
    assert {module: rooms for module, rooms in beyond.items() if rooms} == {}


def test_no_module_waits_for_itself():
    graph = {module: {name for name in ours(imports(tree)) if name != module} for module, tree in TREES.items()}
    graph["__init__"] = set(ours(at_import(TREES["__init__"])))
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("package", [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE])
def test_the_init_of_a_room_says_what_it_is_and_runs_nothing(package):
    (only,) = ast.parse(package.read_text(encoding="utf-8")).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


def test_where_trainings_run_knows_neither_optuna_nor_a_database():
    for room in ("training", "executor", "script.running"):
        trees = [tree for module, tree in TREES.items() if f"{module}.".startswith(f"{room}.")]
        used = set().union(*(others(imports(tree)) for tree in trees))
        assert not used & {"optuna", "optuna_dashboard", "sqlalchemy", "sqlite3", "psycopg"}, room
        from_storage = {name for tree in trees for name in ours(imports(tree)) if room_of(name) == "storage"}
        assert from_storage <= {"storage", "storage.artifacts"}, room


@pytest.mark.parametrize("package", TOOLS)
def test_only_a_few_rooms_know_a_tool(package):
    using = {room_of(module) for module, tree in TREES.items() if package in others(imports(tree))}
    assert using == set(TOOLS[package].split())


def test_every_package_in_use_is_in_the_table():
    assert set().union(*(others(imports(tree)) for tree in TREES.values())) == TOOLS.keys()


OPTUNA_INTERNALS = "storage.optuna_internals"


def private_names(tree):
    """Names with an underscore that belong to another package: attributes, imports, and names written as text.

    A module's own classes may read each other's: their names are defined or assigned in it.
    """
    nodes = list(ast.walk(tree))
    own = {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls")
    }
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {"_replace", "_exit"}  # public: of named tuples, and of os
    for node in nodes:
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            whose = ast.unparse(node.value)
            foreign = node.attr not in own or re.search(r"\b(study|trial|storage)$", whose)
            if whose not in ("self", "cls", "torch") and foreign:
                yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"optuna[\w.]*\._[\w.]+", str(node.value)):
            yield node.value
        elif isinstance(node, ast.FunctionDef) and node.name == "_get_trials":  # a study for samplers
            yield node.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            yield from (text for text in map(ast.unparse, node.args[1:]) if re.match("'_[a-z]", text))
    yield from (name for name in imported(nodes) if name.startswith("optuna") and "._" in name)


def test_one_module_alone_knows_private_names_of_optuna_and_one_those_of_its_dashboard():
    knowing = {module for module, tree in TREES.items() if list(private_names(tree))}
    assert knowing == {OPTUNA_INTERNALS, "dashboard.upstream"}


def attributes_by_name(tree):
    """Where a user attribute is read or written by a name in quotes: `attrs["x"]`, `attrs.get("x")`, `"x" in attrs`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            whose, name = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            whose, name = node.func.value, node.args[0]
            if node.func.attr == "set_user_attr":
                whose = ast.Name("user_attrs")
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            whose, name = node.comparators[0], node.left
        else:
            continue
        quoted = isinstance(name, ast.JoinedStr) or (isinstance(name, ast.Constant) and isinstance(name.value, str))
        if quoted and ast.unparse(whose).endswith("attrs"):
            yield ast.unparse(node)


def test_user_attributes_are_read_through_study_attrs():
    by_name = {module: list(attributes_by_name(tree)) for module, tree in TREES.items() if module != OPTUNA_INTERNALS}
    assert {module: found for module, found in by_name.items() if found} == {}


# Where it makes no difference whether a person excluded a trial, and the pruners, which get a view.
READ_AS_STORED = {
    *("study.exclusions", "study.other_programs", "search.open_study", "search.trial_queue", "search.tried_config"),
    *("search.added_trials", "search.extrapolation", "search.shape_pruner", "search.retention", "dashboard.additions"),
}


def reads_trials_as_stored(tree):
    return bool(re.search(r"(?<!face3d_tune\.)\b_?study\.get_trials\(", ast.unparse(tree)))


def test_trials_are_read_with_the_mark_of_excluded_ones():
    assert {module for module, tree in TREES.items() if reads_trials_as_stored(tree)} == READ_AS_STORED


def classes_of_one_name(trees):
    """Names that several classes have, each with its modules."""
    modules = defaultdict(list)
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(module)
    return {name: held for name, held in modules.items() if len(held) > 1}


def test_no_two_classes_have_one_name():
    written_out = "refit.inference.predict"  # stands alone in an exported folder
    assert classes_of_one_name({module: tree for module, tree in TREES.items() if module != written_out}) == {}


def test_the_page_of_the_design_shows_every_room_and_every_file_in_it():
    design = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    tree = re.search(r"```\nface3d_tune/\n(.*?)```", design, flags=re.DOTALL)[1]
    shown, room = set(), ""
    for line in tree.splitlines():
        match = re.match(r"  (  )?(  )?(\w+)(/?)(?:  |$)", line)
        inner, innermost, name, slash = match.groups()
        if slash:
            room = name if not inner else f"{room.split('.')[0]}.{name}"
            shown.add(room)
        else:
            shown.add(f"{room}.{name}" if innermost or (inner and room) else name)
    assert shown == set(TREES) - {"__main__", "__init__"}


def looks_at_test_people(tree):
    """Where a part of the data is named "test": as an argument (`Pairs(data, "test", …)`), a choice, or of `parts`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = [*node.args, *(keyword.value for keyword in node.keywords)]
            named += [each for given in named if isinstance(given, ast.List) for each in given.elts]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("parts"):
            named = [node.slice]
        else:
            continue
        yield from (node for each in named if isinstance(each, ast.Constant) and each.value == "test")


def test_only_confirm_and_judge_evaluate_test_people_and_both_count_it():
    looking = {module for module, tree in TREES.items() if list(looks_at_test_people(tree))}
    looking = {module for module in looking if room_of(module) != "data"}
    assert looking == {"refit.confirm", "cli.judge"}
    for module in looking:
        assert "refit.evaluations" in set(ours(imports(TREES[module]))), module


@pytest.mark.parametrize("module", [module for module in TREES if room_of(module) == "cli"])
def test_commands_are_told_apart_without_loading_what_they_need(module):
    if module in IMPORTED_LATE:
        waiting_for_it = [TREES[name] for name in TREES if room_of(name) == "cli" and name not in IMPORTED_LATE]
        assert not any(module in ours(at_import(tree)) for tree in waiting_for_it)
        return
    loaded, waiting = set(), ["__init__", module]
    while waiting:
        name = waiting.pop()
        loaded.add(name)
        assert not others(at_import(TREES[name])) & set(HEAVY), name
        waiting += set(ours(at_import(TREES[name]))) - loaded


def loaded_by(names):
    """These modules and all that importing them runs."""
    loaded, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in loaded:
            loaded.add(name)
            waiting += ours(at_import(TREES[name]))
    return loaded


@pytest.mark.parametrize("command", ["status", "watch", "report", "dashboard", "stopping", "excluding", "trying"])
def test_commands_that_only_look_load_no_torch(command):  # which takes two seconds and 200 MB
    loaded = loaded_by(ours(imports(TREES[f"cli.{command}"])))
    assert {name for name in loaded if "torch" in others(at_import(TREES[name]))} == set()


def test_imports_stand_at_the_top_except_in_commands():
    inside = {module: list(imported(inside_functions(tree))) for module, tree in TREES.items()}
    assert {module: names for module, names in inside.items() if names and room_of(module) != "cli"} == {}


def test_every_module_can_be_imported_on_windows():
    missing = {module: set(imported(at_import(tree))) & NOT_ON_WINDOWS for module, tree in TREES.items()}
    assert {module: names for module, names in missing.items() if names} == {}


def test_the_rules_would_notice():
    assert reads_trials_as_stored(ast.parse("best = self.study.get_trials(deepcopy=False)[0]"))
    assert reads_trials_as_stored(ast.parse("for trial in study.get_trials():\n    pass"))
    tree = ast.parse("from face3d_tune.cli.main import main\ndef work():\n    import torch\n")
    assert list(ours(imports(tree))) == ["cli", "cli.main"]
    assert rooms_used_by(tree) == {"cli"}
    assert others(imports(tree)) == {"torch"}
    assert not others(at_import(tree))
    assert others(at_import(ast.parse("try:\n    import torch\nexcept ImportError:\n    torch = None\n"))) == {"torch"}
    assert not others(at_import(ast.parse("if TYPE_CHECKING:\n    import torch\n")))
    assert list(imported(inside_functions(tree))) == ["torch"]
    on_unix = ast.parse("from multiprocessing.context import ForkServerContext\n")
    assert set(imported(at_import(on_unix))) & NOT_ON_WINDOWS
    for code in (
        "study._storage",
        "trial._trial_id",
        "self.study._study_id",
        "from optuna.storages._rdb.models import BaseModel",
        "import optuna._imports",
        'sys.modules.get("optuna_dashboard._importance")',
        'getattr(sampler, "_n_startup_trials", 0)',
        "class View:\n    def __init__(self):\n        self._storage = self.study._storage",
        "class View:\n    def _get_trials(self):\n        return []",
    ):
        assert list(private_names(ast.parse(code))), code
    for code in ("self._storage", "os._exit(1)", "row._replace(start=None)", "torch._fused_adamw_(weights)"):
        assert not list(private_names(ast.parse(code))), code
    for code in (
        'trial.user_attrs["config"]',
        'attrs.get("preset")',
        'attrs.get(f"{name}_cosine")',
        '"id" not in study.user_attrs',
        'study.set_user_attr("id", 1)',
        'attrs["error"] = "no"',
    ):
        assert list(attributes_by_name(ast.parse(code))), code
    assert not list(attributes_by_name(ast.parse('settings["seed"]; TrialAttr.preset.get(attrs)')))
    for code in (
        'Pairs(data, "test", unit)',
        'data.parts["test"]',
        'no_model_cosine(part="test")',
        'Choice(["validation", "test"])',
    ):
        assert list(looks_at_test_people(ast.parse(code)))
    assert not list(looks_at_test_people(ast.parse('people["test"]; words("tests")')))
    twice = {"a": ast.parse("class Row: ..."), "b": ast.parse("class Row: ...\nclass Table: ...")}
    assert classes_of_one_name(twice) == {"Row": ["a", "b"]}


def test_no_circle_of_imports_between_the_benchmarks():
    files = {path.stem: path for path in (PACKAGE.parent / "benchmarks").glob("*.py")}
    used = {
        name: {
            each.split(".")[1]
            for each in imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            if each.startswith("benchmarks.")
        }
        & set(files)
        for name, path in files.items()
    }
    assert "packed" in used["surrogate"]
    TopologicalSorter(used).prepare()  # raises CycleError


def confused_on_python_3_12(tree):
    """Names of a module that a function uses beside a comprehension whose variable has the same name.

    Python 3.12.0 and 3.12.1 take both for the comprehension's: UnboundLocalError.
    """
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        inside = defaultdict(set)  # for each variable of a comprehension, the names in it
        for node in ast.walk(function):
            if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp):
                targets = [name for each in node.generators for name in ast.walk(each.target)]
                for name in (each.id for each in targets if isinstance(each, ast.Name)):
                    inside[name] |= set(ast.walk(node))
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        found |= {name.id for name in names if name.id in inside.keys() & defined and name not in inside[name.id]}
    return found


def test_no_variable_of_a_comprehension_is_taken_for_a_name_of_the_module_on_python_3_12():
    assert {name: found for name, tree in TREES.items() if (found := confused_on_python_3_12(tree))} == {}
    bad = (
        "def number(): 1\ndef f(v):\n    v = [(a, number) for a, number in v]\n    return [number(each) for each in v]"
    )
    assert confused_on_python_3_12(ast.parse(bad)) == {"number"}
    good = "def number(): 1\ndef f(v):\n    return [number for number in v]\ndef g(v):\n    return number(v)"
    assert confused_on_python_3_12(ast.parse(good)) == set()
