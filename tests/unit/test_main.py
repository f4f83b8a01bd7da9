"""Ctrl-C before, in and after the command line: one line, never a traceback."""

import signal
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


def test_an_import_that_ctrl_c_broke_is_no_error_of_the_module(monkeypatch, capsys):
    def broken(**_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("numpy._core.multiarray failed to import") from error

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
