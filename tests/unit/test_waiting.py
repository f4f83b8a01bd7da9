"""A long wait for a place: one line when it gets long, one when it ends."""

import threading
import time

import pytest

from face3d_tune.system import notices, waiting


@pytest.fixture
def said(monkeypatch):
    """What is said; a wait is long after 0.2 s, and every test begins with places that nobody waited for."""
    lines = []
    monkeypatch.setattr(waiting, "LONG", 0.2)
    monkeypatch.setattr(waiting, "_places", {})
    monkeypatch.setattr(waiting, "_this_thread", threading.local())
    with notices.printed_with(lines.append):
        yield lines


def wait(seconds, place="s3://b", error=None):
    with waiting.waited_for(place):
        time.sleep(seconds)
        if error:
            raise error


def test_a_short_wait_is_not_said(said):
    wait(0.01)
    wait(0.01)
    assert said == []


def test_a_long_wait_is_said_while_it_lasts_and_when_it_ends(said):
    with waiting.waited_for("s3://b"):
        until = time.monotonic() + 5
        while not said and time.monotonic() < until:
            time.sleep(0.01)
        assert said == ["waiting for s3://b: 0 s so far"]
    assert said[1:] == ["s3://b answered: waited 0 s"]


def test_what_is_usual_is_said_once(said):
    wait(0.5)
    wait(0.3)
    wait(0.3)
    assert len(said) == 2
    assert 1.0 <= waiting._places["s3://b"].patience < 5.0  # twice as long is said again


def test_short_waits_one_after_another_are_one_wait(said, monkeypatch):
    for _ in range(6):
        wait(0.05)
    assert said[0] == "waiting for s3://b: 0 s so far"
    monkeypatch.setattr(waiting, "_PAUSE", 0.0)
    said.clear()
    for _ in range(6):
        wait(0.05, "s3://other")
    assert said == []


def test_short_waits_after_each_epoch_of_a_training_are_no_long_one(said):
    """A folder takes a checkpoint in a moment, and then an epoch is trained, which may be short."""
    for _ in range(6):
        wait(0.01)
        time.sleep(0.08)
    assert said == []


def test_a_place_that_gives_no_answer_is_said_once_until_it_answers_again(said):
    for _ in range(2):
        with pytest.raises(ValueError, match="timed out"):
            wait(0.3, error=ValueError("timed out"))
    assert said == ["waiting for s3://b: 0 s so far", "s3://b gave no answer: waited 0 s"]
    wait(0.0)
    wait(0.0)
    assert said[2:] == ["s3://b answers again"]


def test_a_failure_at_once_is_left_to_who_asked(said):
    with pytest.raises(ValueError, match="denied"):
        wait(0.0, error=ValueError("denied"))
    wait(0.0)
    assert said == []


def test_a_wait_that_ctrl_c_ends_is_not_said_later(said):
    with pytest.raises(KeyboardInterrupt):
        wait(0.0, error=KeyboardInterrupt())
    time.sleep(0.3)
    assert said == []


def test_of_many_who_wait_at_once_one_is_enough(said):
    for kind, text in (("waits", "1"), ("waits", "2"), ("answered", "3"), ("answered", "4"), ("waits", "5")):
        waiting.say(waiting.Line("s3://b", kind, text))
    waiting.say(waiting.Line("s3://other", "waits", "6"))
    assert said == ["1", "3", "5", "6"]
