"""How slots are divided among processes: one for each share, on its device; and how a process starts and ends."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from multiprocessing import resource_tracker
from types import SimpleNamespace

import pytest
import torch

from face3d_tune.config import TrialConfig
from face3d_tune.executor import child as child_module
from face3d_tune.executor import child_start, processes
from face3d_tune.executor.child import Share
from face3d_tune.executor.processes import ProcessSlots
from face3d_tune.executor.silence import Silence
from face3d_tune.executor.tasks import Event, Failure, Task
from face3d_tune.system import notices, waiting

CLOCK = SimpleNamespace(now=0.0)
GPUS = torch.device("cuda:0"), torch.device("cuda:1")
CPU = torch.device("cpu")
SMALL = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, num_layers=1)


class Started(processes._Child):
    """A child without a process; its pipe has nothing to say until it dies."""

    def __init__(self, share, data, checkpoints, timeout=None):
        self.share, self.pipe, self.silence = (
            share,
            SimpleNamespace(recv=self.recv),
            Silence(timeout, lambda: CLOCK.now),
        )
        self.tasks, self.dropping, self.given = {}, [], set()

    def recv(self):
        raise EOFError

    def send(self, *message):
        pass

    def how_it_ended(self):
        return Failure("died", died=True)

    def end(self, patience=0.0):
        pass


@pytest.fixture
def opened(monkeypatch):
    """Slots whose processes are not started, and the number of tasks that each device has."""
    monkeypatch.setattr(processes, "_Child", Started)

    def open_slots(*shares, timeout=None):
        slots = ProcessSlots(None, shares, timeout=timeout)

        def start(*numbers):
            for number in numbers:
                slots.start(Task(number, SMALL, 1, "off"))
            return Counter({child.share.device: len(child.tasks) for child in slots._children})

        return slots, start

    return open_slots


def test_every_share_has_a_process_of_its_own(opened):
    slots, _ = opened(Share(GPUS[0], 2), Share(GPUS[1], 16))
    assert slots.count == 18
    assert [child.share for child in slots._children] == [Share(GPUS[0], 2), Share(GPUS[1], 16)]


def test_tasks_are_divided_as_the_shares_are_and_no_process_gets_more_than_its_share(opened):
    _, start = opened(Share(GPUS[0], 2), Share(GPUS[1], 6))
    assert start(1, 2, 3, 4) == {GPUS[0]: 1, GPUS[1]: 3}
    for number in (5, 6, 7, 8):
        assert start(number)[GPUS[0]] <= 2
    assert start() == {GPUS[0]: 2, GPUS[1]: 6}


def test_a_task_goes_where_one_has_ended(opened):
    slots, start = opened(Share(GPUS[0], 2), Share(GPUS[1], 2))
    start(1, 2, 3, 4)
    slots.drop(2)
    slots.drop(4)
    assert start(5) == {GPUS[0]: 2, GPUS[1]: 1}


def test_a_process_in_the_place_of_a_dead_one_has_its_device_and_its_share(opened, monkeypatch):
    slots, start = opened(Share(GPUS[0], 1), Share(GPUS[1], 3))
    start(1, 2)
    dead = slots._children[0]
    monkeypatch.setattr(processes, "wait", lambda pipes, timeout: [dead.pipe])
    assert [(event.number, event.content.died) for event in slots.wait()] == [(1, True)]
    assert start() == {GPUS[1]: 1}
    assert start(3) == {GPUS[0]: 1, GPUS[1]: 1}
    assert slots._children[-1].share == Share(GPUS[0], 1)
    assert start(4, 5) == {GPUS[0]: 1, GPUS[1]: 3}


SAID = "it gave no epoch for 30 s (--trial-timeout), so its process was ended"


@pytest.fixture
def quiet(monkeypatch):
    """A clock that tests set, for children that say nothing."""
    monkeypatch.setattr(processes, "wait", lambda pipes, timeout: [])


def after(seconds, slots):
    """What the slots say while this time passes, a second a look."""
    events = []
    for _ in range(seconds):
        CLOCK.now += 1
        events += slots.wait()
    return events


def test_that_children_wait_for_artifacts_is_said_once_and_is_no_sign_of_an_epoch(opened, monkeypatch):
    said, pipes = [], {}
    slots, start = opened(Share(CPU, 1), Share(CPU, 1), timeout=30)
    start(1, 2)
    line = waiting.Line("s3://b", "waits", "waiting for s3://b: 10 s so far")
    monkeypatch.setattr(waiting, "_places", {})
    for child in slots._children:
        pipes[child] = []
        child.pipe.recv = pipes[child].pop
    monkeypatch.setattr(processes, "wait", lambda *_, **__: [child.pipe for child in slots._children if pipes[child]])
    assert after(20, slots) == []
    for child in slots._children:
        pipes[child].append(line)
    with notices.printed_with(said.append):
        assert after(10, slots) == []
    assert said == [line.text]
    assert [event.content.timed_out for event in after(1, slots)] == [True, True]


def test_a_process_that_gives_no_epoch_for_too_long_is_ended_and_its_only_training_has_timed_out(opened, quiet):
    slots, start = opened(Share(GPUS[0], 4), timeout=30)
    start(1)
    assert after(30, slots) == []
    assert after(1, slots) == [Event(1, Failure(SAID, timed_out=True))]
    assert (slots._children, slots._vacant) == ([], [Share(GPUS[0], 4)])


def test_a_process_without_a_task_and_one_without_a_limit_may_be_quiet_for_ever(opened, quiet):
    slots, start = opened(Share(GPUS[0], 4), timeout=30)
    assert after(100, slots) == []
    start(1)
    assert after(30, slots) == [], "the time before its task does not count"
    unlimited, start = opened(Share(GPUS[0], 4))
    start(1)
    assert after(100, unlimited) == []


def test_of_several_trainings_in_a_process_that_hangs_none_is_to_blame_and_the_next_time_they_are_apart(opened, quiet):
    slots, start = opened(Share(GPUS[0], 5), timeout=30)
    start(1, 2, 3, 4, 5)
    beside = Failure(f"{SAID}; a training beside this one may be the cause", beside=True)
    assert after(31, slots) == [Event(number, beside) for number in (1, 2, 3, 4, 5)]
    start(1, 2, 3, 4, 5)
    assert [(child.share.slots, len(child.tasks)) for child in slots._children] == [(3, 3), (2, 2)]
    assert slots.count == 5
    for _ in range(3):  # at last each is alone
        after(31, slots)
        start(1, 2, 3, 4, 5)
    assert [event.content.timed_out for event in after(31, slots)] == [True] * 5


@pytest.mark.parametrize(
    ("device", "chosen", "threads"), [(GPUS[1], [GPUS[1]], []), (torch.device("cuda"), [], []), (CPU, [], [1])], ids=str
)
def test_a_process_uses_the_device_that_it_was_given_and_no_other_gpu(monkeypatch, device, chosen, threads):
    received, current, counted, opened = [(None, Share(device, 2), None)], [], [], []
    monkeypatch.setattr(child_module.signals, "ignore", lambda: None)
    monkeypatch.setattr(child_module, "set_threads", counted.append)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)

    class Opened:
        busy = False

        def __init__(self, data, device, count, checkpoints):
            opened.append((device, count))

    class Pipe:
        def send(self, message):
            assert message is None, "it is ready"

        def poll(self):
            return False

        def recv(self):
            if not received:
                raise EOFError
            return received.pop()

    monkeypatch.setattr(child_module, "BatchedSlots", Opened)
    child_module.serve(Pipe())
    assert (opened, current, counted) == ([(device, 2)], chosen, threads)


@pytest.mark.parametrize("before", [None, "", "1"])
def test_a_child_starts_without_the_current_folder_on_its_path_and_this_process_keeps_its_own(monkeypatch, before):
    name = "PYTHONSAFEPATH"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    seen = []
    child_start.start(SimpleNamespace(start=lambda: seen.append(os.environ.get(name))))
    assert (seen, os.environ.get(name)) == (["1"], before)


def test_where_no_process_can_be_forked_and_no_signal_blocked_a_child_starts_from_scratch(monkeypatch):
    """As on Windows."""
    resource_tracker.ensure_running()
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    process = child_start.context().Process(target=os.getpid)
    child_start.start(process)
    process.join(30)
    assert (type(process).__name__, process.exitcode) == ("SpawnProcess", 0)


@pytest.mark.parametrize("held", [False, True])
def test_a_process_that_the_system_holds_after_it_was_killed_is_left_and_any_other_is_closed(held):
    """The system holds one that waits for a device which does not answer; only Python's `close` refuses it."""
    done = []
    child = Started.__new__(Started)
    child.pipe = SimpleNamespace(close=lambda: done.append("pipe"))
    child.process = SimpleNamespace(
        join=lambda patience: None,
        is_alive=lambda: held or "kill" not in done,
        kill=lambda: done.append("kill"),
        close=lambda: done.append("close"),
    )
    processes._Child.end(child)
    assert done == (["pipe", "kill"] if held else ["pipe", "kill", "close"])


@pytest.mark.skipif(os.name == "nt", reason="a process of Windows ends by no signal")
@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGSEGV, "SIGSEGV"),
        pytest.param(36, "36", marks=pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no such signal")),
    ],
)
def test_a_process_that_crashed_says_by_which_signal(number, name):
    child = Started.__new__(Started)
    child.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child_start.start(child.process)
    os.kill(child.process.pid, number)
    failure = processes._Child.how_it_ended(child)
    assert (failure.message, failure.died, failure.out_of_memory) == (f"its process was killed ({name})", True, False)
