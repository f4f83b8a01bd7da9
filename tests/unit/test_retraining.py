"""Candidates trained again: what is tried once more, and what ends it all."""

import math
from types import SimpleNamespace

import pytest
from searches import Scripted

from face3d_tune.config import TrialConfig
from face3d_tune.errors import TrainingError
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.tasks import Event, Failure, Note
from face3d_tune.refit import retrain
from face3d_tune.refit.retrain import Job
from face3d_tune.storage.artifacts import Artifacts

KILLED = "its process was killed (SIGKILL)"


def job(*, mixed=False):
    config = TrialConfig(d_model=16, dim_feedforward=16, use_mixed_precision=mixed)
    return Job(SimpleNamespace(name="baseline", config=config), 1, 7, "key")


def retrained(play, monkeypatch, *, mixed=False, strangers=()):
    """One job in scripted slots: what it gave."""
    monkeypatch.setattr(retrain, "_result", lambda task, checkpoints, said: "weights")
    slots = Scripted(1, play, strangers)
    return [given for _, given in retrain._train([job(mixed=mixed)], slots, None, "bf16", lambda job, result: None)]


@pytest.mark.parametrize("deaths", [0, 1, 3])
def test_a_training_whose_process_died_is_trained_again_at_most_three_times(monkeypatch, deaths):
    died = []

    def play(task, number):
        if len(died) < deaths:
            died.append(task.seed)
            return Failure(KILLED, died=True)
        return 0.5, "finished"

    assert retrained(play, monkeypatch) == ["weights"]
    assert died == [7] * deaths


@pytest.mark.parametrize("died", [True, False])
def test_a_training_that_dies_for_ever_or_fails_by_itself_ends_it_all(monkeypatch, died):
    tried = []

    def play(task, number):
        tried.append(number)
        return Failure(KILLED, died=died)

    with pytest.raises(TrainingError, match=r"^baseline, seed 1: its process was killed \(SIGKILL\)$"):
        retrained(play, monkeypatch)
    assert len(tried) == (4 if died else 1)


def test_a_training_that_becomes_nan_in_mixed_precision_begins_again_once_without_it(monkeypatch):
    for stays, expected in ((False, ["weights"]), (True, ["loss is nan"])):
        tried = []

        def play(task, number, tried=tried, stays=stays):
            tried.append(task.precision)
            if stays or task.precision != "off":
                return Failure("loss is nan", non_finite=True)
            return 0.5, "finished"

        assert retrained(play, monkeypatch, mixed=True) == expected
        assert tried == ["bf16", "off"]


def test_what_still_comes_from_a_training_that_has_ended_is_passed_over(monkeypatch):
    late = [Event(9, Failure("of a training before"))]
    assert retrained(lambda task, number: (0.5, "finished"), monkeypatch, strangers=late) == ["weights"]


def test_weights_that_could_not_be_kept_are_an_error_with_the_reason_that_the_training_gave(tmp_path):
    checkpoints = Checkpoints(Artifacts.parse(str(tmp_path)), "again", every=math.inf, use=None)
    said = [Event(0, Note("no space left on device"))]
    slots = Scripted(1, lambda task, number: (0.5, "finished"), said)
    with pytest.raises(TrainingError, match=r"^the weights of a training could not be kept: no space left on device$"):
        [*retrain._train([job()], slots, checkpoints, "off", lambda job, result: None)]
