"""README, CHANGELOG, docs and docker-compose.yml say what is true."""

import configparser
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import click
import compose_file
import pytest
import yaml

import face3d_tune
from face3d_tune.cli.main import cli, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVICES = compose_file.read({"POSTGRES_PASSWORD": "x"})
PATHS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
)
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in PATHS}
FENCED = re.findall(r"^```(\w+)\n(.*?)^```", "\n".join(PAGES.values()), flags=re.MULTILINE | re.DOTALL)
TYPED = [
    line.strip().removeprefix("$ ").split("  #")[0]
    for path, page in PAGES.items()
    if path != "docs/troubleshooting.md"  # whose commands are mistakes, with a test of their own
    for line in page.splitlines()
    if re.match(r"(    |      )(\$ )?face3d-tune ", line)
]
TYPED += [
    f"face3d-tune {words}"
    for kind, text in FENCED
    if kind in ("bash", "powershell", "ini")
    for words in re.findall(r"^(?:exec |\w+=\S*/)?face3d-tune (.*)$", text, re.M)
]


def parse(words):
    """Resolve and parse one command line as the program would, without running it."""
    command, context = cli, cli.make_context("face3d-tune", list(words), resilient_parsing=False)
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return context


def test_the_readme_begins_with_the_two_commands():
    commands = re.findall(r"^    (.+)$", README, flags=re.MULTILINE)[:2]
    assert commands == [
        "pip install -c constraints.txt -e . && face3d-tune run --trials 50",
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ]


def test_a_newcomer_reads_the_readme_in_five_minutes():
    assert len(README.splitlines()) <= 200


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'install -q -c constraints.txt -e ".[test]"' in script
    assert "\npython -m pytest\n" in script


def test_there_are_commands_to_check():
    assert len(TYPED) > 5


@pytest.mark.parametrize("line", TYPED)
def test_every_command_in_the_documentation_is_one_the_program_takes(line):
    parse(shlex.split(line.partition(" && ")[0])[1:])


def test_a_command_that_the_program_does_not_take_would_be_noticed():
    with pytest.raises(click.UsageError):
        parse(["run", "--trails", "50"])


def test_commands_in_scripts_and_units_are_among_those():
    assert sum(line.startswith("face3d-tune run --data-dir train/datas/file --trials 200") for line in TYPED) == 4


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash to check its syntax")
@pytest.mark.parametrize("script", [text for kind, text in FENCED if kind == "bash"])
def test_bash_understands_every_script_in_the_documentation(script):
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("unit", [text for kind, text in FENCED if kind == "ini"])
def test_a_worker_as_a_service_is_started_again_when_it_fails_and_not_when_it_is_stopped(unit):
    parser = configparser.RawConfigParser(strict=False)  # a unit repeats Environment=
    parser.read_string(unit)
    service = parser["Service"] if "Service" in parser else parser["program:face3d-tune"]
    assert (service.get("Restart") or service["autorestart"]) in ("on-failure", "unexpected")
    assert "130" in (service.get("SuccessExitStatus") or service["exitcodes"])
    assert int(service.get("TimeoutStopSec") or service["stopwaitsecs"]) == 300


def test_the_kubernetes_job_holds_together():
    (job,) = (yaml.safe_load(text) for kind, text in FENCED if kind == "yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert "completions" not in job["spec"]  # with it, every worker that ends well would be replaced by another
    assert job["spec"]["parallelism"] > 1
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which a podFailurePolicy needs
    (worker,) = pod["containers"]
    command = parse(worker["args"]).command
    read = {option.envvar for option in command.params if option.envvar} | {"PGPASSWORD"}
    assert {variable["name"] for variable in worker["env"]} <= read
    (password,) = (variable for variable in worker["env"] if variable["name"] == "PGPASSWORD")
    assert set(password["valueFrom"]["secretKeyRef"]) == {"name", "key"}
    assert {mount["name"] for mount in worker["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsUser"] == 1000
    assert "useradd --uid 1000 " in SERVICES["worker"]["build"]["dockerfile_inline"]


def test_no_url_in_the_documentation_of_many_machines_holds_a_password():
    urls = re.findall(r"postgresql://([^/\s\"]+)", PAGES["docs/many-machines.md"])
    assert urls
    assert all(":" not in url for url in urls)


def test_the_presets_table_is_what_the_program_prints(capsys):
    with pytest.raises(SystemExit):
        main(["presets"])
    for line in capsys.readouterr().out.rstrip().splitlines():
        assert line.rstrip() in PAGES["docs/presets.md"]


def test_the_page_of_commands_is_what_their_help_says():
    commands = runpy.run_path(str(ROOT / "docs" / "commands.py"))
    assert PAGES["docs/commands.md"] == commands["page"](), "run `python docs/commands.py`"


def test_every_page_of_the_documentation_is_found_from_the_readme():
    for page in PAGES:
        assert page == "README.md" or f"({page})" in README or page == "CHANGELOG.md", page


def test_links_inside_the_repository_lead_somewhere():
    for name, page in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)\)", page):
            assert target.startswith("https://") or (ROOT / name).parent.joinpath(target).exists(), (name, target)


def test_the_changelog_ends_at_this_version():
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", PAGES["CHANGELOG.md"], flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == face3d_tune.__version__


def test_constraints_pin_every_dependency_of_the_package():
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}
    assert names - {"face3d-tune"} <= pinned


def without_reason(lines):
    """Of a list of requirements in TOML the lines that say no reason beside them."""
    named = [line for line in lines if re.search(r'^\s*(\w+ = \[)?"\w', line)]
    return [line for line in named if not re.search(r" # \w", line)]


def test_every_dependency_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = .*?(?=^\[project\.scripts\])", text, flags=re.MULTILINE | re.DOTALL)[0]
    assert without_reason(listed.splitlines()) == []


def test_a_dependency_without_a_reason_would_be_noticed():
    assert without_reason(['  "torch>=2.6",', 'dev = ["build>=1.2"]', '  "rich>=13.9",  # tables']) == [
        '  "torch>=2.6",',
        'dev = ["build>=1.2"]',
    ]


def test_compose_publishes_ports_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_takes_the_password_from_the_environment_and_has_no_default():
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert text.count("POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?") == 1
    assert text.count("PGPASSWORD: ${POSTGRES_PASSWORD:?") == 1
    assert "POSTGRES_PASSWORD:-" not in text


def test_compose_waits_for_a_healthy_database():
    assert "healthcheck" in SERVICES["postgres"]
    for name in ("worker", "dashboard"):
        assert SERVICES[name]["depends_on"]["postgres"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["worker", "dashboard"])
def test_compose_starts_commands_the_program_takes_with_variables_it_reads(name):
    service = SERVICES[name]
    command = parse([*compose_file.entry_point(service), *service["command"]][1:]).command
    read = {option.envvar for option in command.params if option.envvar}
    assert {key for key in service["environment"] if key.startswith("FACE3D_TUNE_")} <= read
