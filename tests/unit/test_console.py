"""What FORCE_COLOR, CLICOLOR_FORCE and NO_COLOR change in a log; and names that would steer a terminal."""

import io

import pytest
from rich.live import Live
from rich.text import Text

from face3d_tune.cli.console import Console, TranslatedTable
from face3d_tune.cli.language import say
from face3d_tune.cli.live import shortened

RED = "\x1b[31mred\x1b[0m\n"


def log_of(print_something):
    log = io.StringIO()
    print_something(Console(file=log))
    return log.getvalue()


@pytest.fixture(autouse=True)
def no_wish(monkeypatch):
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "red\n"),
        ({"FORCE_COLOR": "1"}, RED),
        ({"CLICOLOR_FORCE": "1"}, RED),
        ({"FORCE_COLOR": ""}, "red\n"),
        ({"CLICOLOR_FORCE": "0"}, "red\n"),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "red\n"),
    ],
)
def test_a_log_has_colours_only_if_the_environment_asks_for_them(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert log_of(lambda console: console.print(Text("red", style="red"))) == expected


@pytest.mark.parametrize("name", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_a_log_with_colours_is_no_terminal_and_nothing_in_it_is_drawn_anew(monkeypatch, name):
    monkeypatch.setenv(name, "1")

    def draw(console):
        assert not console.is_terminal
        with Live("1", console=console, auto_refresh=False) as live:
            live.update("2", refresh=True)

    assert log_of(draw).strip() == "2"


def test_a_name_from_a_database_steers_no_terminal_in_whatever_it_is_printed(capfd):
    steering = "a\x1b[31m\x1b]0;title\x07\u202eb"
    shown = r"a\x1b[31m\x1b]0;title\x07\u202eb"
    table = TranslatedTable()
    table.add_column("name", no_wrap=True)
    table.add_row(steering)
    console = Console(file=(terminal := io.StringIO()), force_terminal=True, width=100, color_system=None)
    console.print(table)
    console.print(steering)
    say(f"best of {steering}\n\tthe next line")
    assert terminal.getvalue().count(shown) == 2
    assert "\x1b]0" not in terminal.getvalue()
    assert capfd.readouterr().out == f"best of {shown}\n\tthe next line\n"
    assert shortened(steering, 100) == shown
