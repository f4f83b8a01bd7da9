"""An S3 that answers slowly, or acknowledges and says nothing: a search says so, and goes on."""

import os
import re
import threading
from multiprocessing import Pipe
from urllib.parse import urlsplit

import pytest
from command_line import call
from conftest import BUCKET
from faulty_network import FaultyNetwork
from searches import CPU

from face3d_tune.errors import ArtifactError
from face3d_tune.executor import child as child_module
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.storage import artifacts
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.system import notices, waiting

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the network resets connections as Linux does")
PLACE = f"s3://{BUCKET}/p"


@pytest.fixture
def network(s3, s3_server, monkeypatch):
    """The way to S3; a wait is long after 0.1 s."""
    monkeypatch.setattr(waiting, "LONG", 0.1)
    monkeypatch.setattr(waiting, "_places", {})
    monkeypatch.setattr(waiting, "_this_thread", threading.local())
    server = urlsplit(s3_server)
    with FaultyNetwork((server.hostname, server.port)) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{network.port}")
        yield network


@pytest.fixture
def silent(network, monkeypatch):
    """A function that lets S3 say nothing from now on; its client gives up after 0.3 s."""
    patience = {"connect_timeout": 1, "read_timeout": 0.3, "retries": {"total_max_attempts": 1}}
    monkeypatch.setattr(artifacts, "_S3_PATIENCE", patience)
    return lambda: network.silence(60)


def run(tmp_path, quick_study, data_folder, sqlite_url, *more):
    words = ("--study", quick_study, "--data-dir", data_folder, "--storage", sqlite_url, "--artifacts", PLACE)
    return call("run", *words, "--device", "cpu", "--slots", 1, *more, cwd=tmp_path)


def test_an_s3_that_answers_slowly_is_said_as_a_run_begins_and_again_when_it_answered(
    network, tmp_path, quick_study, data_folder, sqlite_url
):
    network.delay = 0.05  # each way: to write the probe takes longer than is long
    ended = run(tmp_path, quick_study, data_folder, sqlite_url, "--trials", 1, "--epochs", 1)
    assert ended.code == 0
    lines = [line for line in ended.err.splitlines() if PLACE in line]
    assert lines[0] == f"waiting for {PLACE}: 0 s so far"
    assert re.fullmatch(rf"{PLACE} answered: waited \d s", lines[1])
    assert ended.err.index(lines[1]) < ended.err.index("engine ")  # before anything else is shown
    # Of a dozen requests, of which each would be two lines, only a wait more than twice as long is said once more.
    assert len(lines) <= 12
    assert "epoch 1:" not in ended.err  # nothing restarts


def test_an_s3_that_says_nothing_is_said_before_it_is_an_error(silent, tmp_path, quick_study, data_folder, sqlite_url):
    silent()
    ended = run(tmp_path, quick_study, data_folder, sqlite_url)
    waits, gave_up = ended.err.splitlines()[:2]
    assert (ended.code, waits) == (2, f"waiting for {PLACE}: 0 s so far")
    assert re.fullmatch(rf"{PLACE} gave no answer: waited \d s", gave_up)
    assert f"error: cannot write to {PLACE}: Read timeout on endpoint URL: " in ended.err


def test_the_reason_is_the_same_for_every_object(silent):
    place = Artifacts.parse(PLACE)
    silent()
    reasons = set()
    for name in ("trial-1.000001", "trial-1.000002"):
        with pytest.raises(ArtifactError) as caught, notices.printed_with(lambda line: None):
            place.read(name)
        reasons.add(caught.value.message)
    assert len(reasons) == 1


def test_trials_that_begin_while_s3_is_away_do_not_restart_and_the_search_goes_on(
    silent, tmp_path, quick_study, data_folder, sqlite_url, monkeypatch
):
    """It is away since the probe was written, so that the trial cannot list its checkpoints."""
    parse = Artifacts.parse

    def then_silence(*words, **options):
        place = parse(*words, **options)
        waiting._places.clear()  # a busy machine may have let it wait for long already
        silent()
        return place

    monkeypatch.setattr(Artifacts, "parse", staticmethod(then_silence))
    ended = run(tmp_path, quick_study, data_folder, sqlite_url, "--trials", 1, "--epochs", 1)
    assert (ended.code, ended.err.count("gave no answer")) == (0, 1)
    assert ended.err.count("waiting for") == 1 + ended.err.count("answered")
    assert "restarts" not in ended.err
    assert ended.err.count("could not save a checkpoint: cannot write to") == 1


# From the process that trains to the terminal


def test_a_child_that_waits_for_s3_tells_its_parent(network, monkeypatch, data):
    """The child here is a thread; it trains nothing, and waits for checkpoints that are not there."""
    monkeypatch.setattr(child_module.signals, "ignore", lambda: None)
    monkeypatch.setattr(child_module, "set_threads", lambda count: None)
    checkpoints = Checkpoints(Artifacts.parse(PLACE), "study")
    waiting._places.clear()
    network.delay = 0.1

    class Waits:
        busy = True

        def __init__(self, data, device, count, checkpoints):
            self.checkpoints = checkpoints

        def wait(self, stop):
            self.checkpoints.discard("trial-1")
            self.busy = False
            return []

    monkeypatch.setattr(child_module, "BatchedSlots", Waits)
    ours, theirs = Pipe()
    child = threading.Thread(target=child_module.serve, args=(theirs,), daemon=True)
    child.start()
    assert ours.recv() is None
    ours.send((data, child_module.Share(CPU, 2), checkpoints))
    lines = [ours.recv() for _ in range(2) if ours.poll(30)]
    ours.close()
    child.join()
    assert [(line.place, line.kind) for line in lines] == [(PLACE, "waits"), (PLACE, "answered")]
