"""What `status` says of the best trial's recognition, for a person and for a program."""

import json

from command_line import call
from stored_study import recognised, searched, study_of

from face3d_tune.storage import optuna_internals

BEFORE = "The best trial raises the cosine, but recognises people no better than no model, ridge or kernel ridge."


def status(folder, *words):
    answer = call("status", *words, cwd=folder, FACE3D_TUNE_STORAGE="sqlite:///studies.db")
    assert answer.code == 0, answer.err
    return answer.out


def test_the_sentence_stands_before_the_best_and_rank_1_below_it(sqlite, tmp_path):
    recognised(storage=sqlite)
    *_, first, best, rate = (line.strip() for line in status(tmp_path).splitlines())
    assert first == BEFORE
    assert best.startswith("best validation cosine 0.7000, trial 12 (sampled); without a model 0.5000; ridge 0.6000")
    assert rate == "rank-1 among 12 enrolled 0.500; without a model 0.600; ridge 0.700; kernel ridge 0.800"
    (held,) = json.loads(status(tmp_path, "--json"))["studies"]
    assert (held["warning"], held["best_recognition"]["all"]["rank1_enrolled"]) == (BEFORE, 0.5)
    assert held["kernel_ridge_recognition"]["all"]["rank1_enrolled"] == 0.8


def test_a_study_without_recognition_has_the_lines_that_it_had(sqlite, tmp_path):
    study_of(*searched(), storage=sqlite)
    assert "rank-1" not in status(tmp_path)
    (held,) = json.loads(status(tmp_path, "--json"))["studies"]
    assert (held["warning"], held["best_recognition"], held["no_model_recognition"]) == (None, None, None)


def test_every_study_is_read_once_and_without_the_epochs_of_its_finished_trials(sqlite, tmp_path, monkeypatch):
    for name in ("one", "two"):
        study_of(*searched(), storage=sqlite, name=name)
    read, found = optuna_internals.read_trials, []

    def noted(database, study_id, after, *rest, **how):
        trials = read(database, study_id, after, *rest, **how)
        found.append((len(trials), how["curves"]))
        return trials

    monkeypatch.setattr(optuna_internals, "read_trials", noted)
    assert len(status(tmp_path).splitlines()) > 4
    assert [trials for trials in found if trials[0]] == [(16, False)] * 2
