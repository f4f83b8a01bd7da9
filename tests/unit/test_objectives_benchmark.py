"""The evidence for the default objective: searches are repeated never, compared in pairs, and judged by the rule."""

import numpy as np
import optuna
import pytest
from fake_data import write_data
from searches import SAMPLED_ONLY

from benchmarks import objectives
from benchmarks.objectives import COMPARED, Chosen, differences, verdict
from face3d_tune.data.face_data import load
from face3d_tune.storage.database import Storage


def picked(cosine, rank1, people=4):
    """A chosen trial with nearly the same rates for everyone."""
    wobble = np.linspace(-1, 1, people) * 1e-4
    return Chosen(0, {"cosine": cosine + wobble, "rank1_judged": rank1 + wobble, "rank1_enrolled": rank1 + 2 * wobble})


def test_differences_are_identity_minus_cosine_over_searches_and_people():
    found = differences([picked(0.6, 0.5), picked(0.62, 0.5)], [picked(0.6, 0.75), picked(0.6, 0.75)])
    assert found.keys() == set(COMPARED)
    assert found["cosine"]["difference"] == pytest.approx(-0.01)
    assert found["rank1_enrolled"]["difference"] == pytest.approx(0.25)
    assert found["rank1_enrolled"]["people"] == 4


@pytest.mark.parametrize(
    ("lost", "low", "searches", "default"),
    [
        (0.0029, 0.01, 5, "identity"),
        (-0.01, 0.01, 6, "identity"),  # it may gain cosine, too
        (0.0030, 0.01, 5, "cosine"),
        (0.001, 0.0, 5, "cosine"),
        (0.001, None, 5, "cosine"),
        (0.001, 0.01, 4, "cosine"),
    ],
)
def test_the_rule_wants_little_loss_a_sure_gain_and_five_searches(lost, low, searches, default):
    found = {"cosine": {"difference": -lost}, "rank1_enrolled": {"difference": 0.02, "low": low}}
    assert verdict(found, searches).endswith(f"the rule says {default}.")


def test_searches_of_both_objectives_are_made_once_and_their_chosen_trials_compared(tmp_path, capsys):
    faces, study, folder = write_data(tmp_path / "faces"), tmp_path / "quick.toml", tmp_path / "searches"
    study.write_text(SAMPLED_ONLY, encoding="utf-8")
    words = [str(folder), "--data-dir", str(faces), "--study", str(study), "--seeds", "1", "--trials", "2"]
    words += ["--epochs", "1", "--engine", "plain"]
    objectives.main(words)
    out = capsys.readouterr().out
    assert "Here the rule says cosine." in out
    stored = {}
    for objective in ("cosine", "identity"):
        with Storage.parse(f"sqlite:///{folder}/{objective}-1.db").opened() as opened:
            study = optuna.load_study(study_name=objective, storage=opened)
            assert (len(study.trials), study.metric_names) == (2, [f"val_{objective}"])
            stored[objective] = study.best_trial
    best = stored["cosine"]
    place = objectives.Place(folder)
    judged = objectives.chosen(place, load(faces), "cosine", 1)
    assert (judged.trial, judged.rates["cosine"].mean()) == (best.number, pytest.approx(best.value, abs=1e-6))
    assert f"{best.value:.4f}" in out
    objectives.main(words)
    assert capsys.readouterr().out.splitlines()[2:] == out.splitlines()[2:]
    with Storage.parse(f"sqlite:///{folder}/identity-1.db").opened() as opened:
        assert len(optuna.load_study(study_name="identity", storage=opened).trials) == 2
