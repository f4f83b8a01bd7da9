"""Candidates trained again: what is tried once more, and what ends it all."""

from types import SimpleNamespace

import pytest
from searches import Scripted

from face3d_tune.config import TrialConfig
from face3d_tune.errors import TrainingError
from face3d_tune.executor.tasks import Failure
from face3d_tune.refit import retrain
from face3d_tune.refit.retrain import Job

KILLED = "its process was killed (SIGKILL)"


def retrained(play, monkeypatch):
    """One job in scripted slots: what it gave."""
    monkeypatch.setattr(retrain, "_result", lambda task, checkpoints, said: "weights")
    candidate = SimpleNamespace(
        name="baseline", config=TrialConfig(d_model=16, dim_feedforward=16, use_mixed_precision=False)
    )
    jobs = [Job(candidate, 1, 7, "key")]
    return [given for _, given in retrain._train(jobs, Scripted(1, play), None, "off", lambda job, result: None)]


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
