"""Help answers at once, and says of every command what it does, by example, and of every option what it means."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import call, start_honestly

from face3d_tune import __version__
from face3d_tune.cli.main import cli

HEAVY = ("torch", "optuna", "optuna_dashboard", "numpy", "rich", "sqlalchemy", "scipy", "pandas")


def contexts(command=cli, name="face3d-tune", parent=None):
    """Every command with its parents, as the program would meet them."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from contexts(child, name, context)


CONTEXTS = {context.command_path: context for context in contexts()}
OPTIONS = {
    f"{path} {option.opts[-1]}": (option, context)
    for path, context in CONTEXTS.items()
    for option in context.command.get_params(context)
    if isinstance(option, click.Option)
}


def examples(context):
    lines = (context.command.epilog or "").splitlines()
    return [line.strip() for line in lines[lines.index("Example:") + 1 :]] if "Example:" in lines else []


def parse(words):
    """Parse one command line as the program would, without running it; returns its context."""
    context = cli.make_context("face3d-tune", list(words))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context


def test_there_is_help_to_check():
    assert {"face3d-tune run", "face3d-tune data check"} <= CONTEXTS.keys()
    assert len(OPTIONS) > 40


@pytest.mark.parametrize("path", CONTEXTS)
def test_a_command_is_told_in_one_sentence(path):
    help_text = CONTEXTS[path].command.help
    assert help_text.endswith(".")
    assert "\n" not in help_text
    assert ". " not in help_text


@pytest.mark.parametrize(
    "path", [path for path, context in CONTEXTS.items() if isinstance(context.command, click.Group)]
)
def test_a_list_of_commands_cuts_no_sentence_short(path, tmp_path):
    answer = call(*path.split()[1:], "--help", cwd=tmp_path)
    assert answer.code == 0
    assert "..." not in answer.out.partition("Commands:")[2]


@pytest.mark.parametrize("path", CONTEXTS)
def test_a_command_has_an_example_that_the_program_takes(path):
    lines = examples(CONTEXTS[path])
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "face3d-tune"
        assert parse(words).command_path.startswith(path)


def test_an_example_that_the_program_does_not_take_would_be_noticed():
    with pytest.raises(click.UsageError):
        parse(["data", "check", "--splt", "none"])


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_what_it_means_and_what_it_is_without(name):
    option, context = OPTIONS[name]
    assert option.help
    assert option.help.rstrip("]").endswith(".") or "[default: " in option.help
    _, shown = option.get_help_record(context)
    assert "=None" not in shown  # no range without a limit
    parsed = context.command.make_context(context.info_name, [], parent=context.parent, resilient_parsing=True)
    if parsed.params.get(option.name) not in (None, False):
        assert "[default: " in shown or "; default: " in shown


@pytest.mark.parametrize("name", [name for name in OPTIONS if name.endswith(("--storage", "--data-dir"))])
def test_an_option_that_the_environment_can_set_says_so(name):
    option, context = OPTIONS[name]
    assert not option.envvar or f"env var: {option.envvar}" in option.get_help_record(context)[1]
    assert option.envvar or name.startswith(("face3d-tune export", "face3d-tune presets"))


def test_the_options_of_run_stand_under_what_they_are_about():
    lines = CONTEXTS["face3d-tune run"].get_help().splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Search:", "Budget:", "Data:", "Device:", "Workers:", "Messages:", "Output:", "Options:"]
    under, shown = None, {}
    for line in lines:
        under = line if line in headings else under
        if line.startswith("  -"):
            shown.setdefault(under, []).append(line.split()[0])
    assert "--trials" in shown["Budget:"]
    assert "--worker-timeout" in shown["Workers:"]
    assert shown["Options:"] == ["--lang", "--debug", "-h,"]
    options = [name.split()[-1] for name in OPTIONS if name.startswith("face3d-tune run ")]
    listed = [name for names in shown.values() for name in names]
    assert sorted(listed) == sorted({"--help": "-h,"}.get(name, name) for name in options)


def test_no_help_loads_what_only_work_needs(tmp_path):
    code = f"""
import contextlib, io, json, sys
from face3d_tune.cli.main import main

loaded = {{}}
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(words)
    assert "Usage: face3d-tune" in out.getvalue() or words == ["--version"], words
    loaded[" ".join(words)] = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps(loaded))
"""
    lines = [[*path.split()[1:], "--help"] for path in CONTEXTS] + [["--version"], []]
    package = Path(sys.modules["face3d_tune"].__file__).parent.parent
    command = [sys.executable, "-c", code, json.dumps(lines)]
    ended = subprocess.run(command, cwd=package, capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(ended.stdout)
    assert len(loaded) == len(lines)
    assert loaded == {words: [] for words in loaded}


def test_the_module_runs_as_the_program_and_imports_nothing_that_lies_around(tmp_path):
    (tmp_path / "click.py").write_text("raise RuntimeError('not the library')")
    with start_honestly("--version", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, f"face3d-tune, version {__version__}\n", "")


def test_help_without_a_command_is_no_error(tmp_path):
    bare, asked = call(cwd=tmp_path), call("-h", cwd=tmp_path)
    assert bare.code == asked.code == 0
    assert bare.out == asked.out
    assert asked.err == ""
