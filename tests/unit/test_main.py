"""Ctrl-C before, in and after the command line: one line, never a traceback."""

import os
import signal
import sys
import threading

import click
import pytest

from face3d_tune import __main__
from face3d_tune.cli import main as cli


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    handler, hooks = signal.getsignal(signal.SIGINT), threading.excepthook
    monkeypatch.setattr("sys.excepthook", None)
    yield
    signal.signal(signal.SIGINT, handler)
    threading.excepthook = hooks


def end_of(action):
    with pytest.raises(SystemExit) as ended:
        action()
    return ended.value.code


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_while_the_program_is_loaded_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "import_module", interrupt)
    assert end_of(__main__.main) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_second_ctrl_c_while_the_first_is_answered_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["face3d-tune", "status"])
    monkeypatch.setattr(cli.cli, "main", interrupt)
    monkeypatch.setattr(click, "echo", interrupt)
    assert end_of(__main__.main) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_third_ctrl_c_ends_the_clean_up_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr(cli.cli, "main", interrupt)
    monkeypatch.setattr("sys.argv", ["face3d-tune", "status"])
    monkeypatch.setattr("os._exit", ended.append)
    assert end_of(__main__.main) == 130
    signal.raise_signal(signal.SIGINT)
    assert ended == [130]


@pytest.mark.parametrize("between", [False, True], ids=["at once", "after another error"])
def test_an_import_that_ctrl_c_broke_is_no_error_of_the_module(monkeypatch, capsys, between):
    def broken(**_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            cause = RuntimeError("the module was not initialised") if between else error
            cause.__context__ = error if between else None
            raise ImportError("numpy._core.multiarray failed to import") from cause

    monkeypatch.setattr(cli.cli, "main", broken)
    assert end_of(lambda: cli.main(["status"])) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_while_an_interrupted_search_is_put_in_order_is_still_said(monkeypatch, capsys):
    def fails(**_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise OSError("disk full") from error

    monkeypatch.setattr(cli.cli, "main", fails)
    assert end_of(lambda: cli.main(["status"])) == 1
    assert "disk full" in capsys.readouterr().err


def test_a_thread_that_ends_itself_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", None)
    cli.hide_secrets_in_tracebacks()
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert capsys.readouterr().err == ""


def test_a_variable_from_a_file_of_windows_is_read_without_its_line_end(monkeypatch):
    monkeypatch.setenv("FACE3D_TUNE_LANG", "zh\r")
    monkeypatch.setenv("ANOTHER_PROGRAM", "as it is\r")
    monkeypatch.setattr(cli.cli, "main", lambda **_: 0)
    assert end_of(lambda: cli.main(["status"])) == 0
    assert (os.environ["FACE3D_TUNE_LANG"], os.environ["ANOTHER_PROGRAM"]) == ("zh", "as it is\r")


def test_a_token_that_is_yet_to_be_generated_is_a_word_like_any_other(monkeypatch, capsys):
    monkeypatch.setenv("FACE3D_TUNE_TOKEN", "auto")

    def fails(**_):
        raise OSError("auto: no such file")

    monkeypatch.setattr(cli.cli, "main", fails)
    assert end_of(lambda: cli.main(["status"])) == 1
    assert "auto: no such file" in capsys.readouterr().err


def test_an_error_in_another_thread_is_shown_without_secrets(monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", None)
    cli.hide_secrets_in_tracebacks()
    with pytest.raises(SystemExit):
        cli.main(["completion", "postgresql://me:tops3cret@host/db"])

    def fail():
        raise ValueError("password=tops3cret")

    capsys.readouterr()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    said = capsys.readouterr().err
    assert "ValueError: password=***" in said
    assert "tops3cret" not in said
