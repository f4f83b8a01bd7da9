"""The objective of a study: which number of a training is a trial's value, and what follows it."""

from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from searches import SAMPLED_ONLY, Watch, epoch, file_of, open_search
from stored_study import attrs_of, recognised
from test_trial_run import CPU, SMALL, Reporter, train_trial

from face3d_tune.analysis.confirmation import choice, chosen_by, curse
from face3d_tune.analysis.findings import find
from face3d_tune.dashboard.figures import figures
from face3d_tune.dashboard.notes import study_note, trial_note
from face3d_tune.errors import ConfigError, StudyError
from face3d_tune.refit.candidates import Candidate
from face3d_tune.refit.confirm import _by_identity
from face3d_tune.script import import_runs
from face3d_tune.search.retention import Retention
from face3d_tune.search.target import check, reached
from face3d_tune.search.trial_run import Setup
from face3d_tune.study.attrs import StoredSettings
from face3d_tune.study.history import History
from face3d_tune.study.objective import COSINE, IDENTITY, OBJECTIVES, Objective
from face3d_tune.study.settings import Settings, check_same, study_attrs
from face3d_tune.study.status import summary
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.trials import best_trial, kept_cosine, kept_value
from face3d_tune.training.plain import Evaluation, Trainer
from face3d_tune.training.recognition import Rates, Recognition

BASELINES = ("no model", "ridge", "kernel ridge")


def recognition(identity):
    rates = Rates(0.9, 0.8, None, None, identity, 0.5)
    return Recognition(3, 12, 3, 18, rates, {"0-15": rates}, rates)


class IdentityTrial:
    """A trial of an identity study, trained with (validation loss, cosine, identity) of each epoch from a list."""

    def __init__(self, data, monkeypatch, script, *, reporter=None, target=None, target_epochs=1, folds=1):
        values = iter(script)

        def evaluate(self, pairs):
            loss, cosine, identity = next(values)
            return Evaluation(loss, cosine, {"0-15": cosine}, recognition(identity))

        monkeypatch.setattr(Trainer, "evaluate", evaluate)
        self.reporter = reporter or Reporter()
        config = replace(SMALL, loss_type="mse", epochs=len(script) // folds)
        setup = Setup(data, CPU, "off", target=target, target_epochs=target_epochs)
        self.outcome = train_trial(
            config, setup, seed=3, reporter=self.reporter, after_epoch=lambda _: None, folds=folds, objective=IDENTITY
        )


# What a trial is worth


def test_the_value_is_the_identity_of_the_epoch_with_the_lowest_validation_loss(data, monkeypatch):
    script = [(1.0, 0.9, -0.3), (0.5, 0.4, -0.2), (0.75, 0.5, -0.1)]
    trial = IdentityTrial(data, monkeypatch, script)
    assert (trial.outcome.value, trial.outcome.attrs["best_epoch"]) == (-0.2, 2)
    assert trial.outcome.attrs["val_cosine"] == 0.4  # which stays visible
    assert trial.reporter.reports == [(1, -0.3), (2, -0.2), (3, -0.1)]
    assert trial.outcome.history["identity"] == [-0.3, -0.2, -0.1]
    assert trial.outcome.history["cosine"] == [0.9, 0.4, 0.5]


def test_a_target_is_reached_by_the_identity_whatever_the_cosine(data, monkeypatch):
    script = [(1.0, 0.9, -0.3), (0.9, 0.1, -0.2), (0.8, 0.1, -0.15), (0.7, 0.1, -0.1)]
    trial = IdentityTrial(data, monkeypatch, script, target=-0.2)
    assert (trial.outcome.stop_reason, trial.outcome.attrs["epochs_run"]) == ("target", 2)
    holds = IdentityTrial(data, monkeypatch, script, target=-0.2, target_epochs=3)
    assert (holds.outcome.stop_reason, holds.outcome.attrs["epochs_run"]) == ("target", 4)


def test_folds_are_raced_by_their_identity_and_their_mean_is_the_value(data, monkeypatch):
    script = [(1.0, 0.9, -0.3), (0.5, 0.4, -0.25), (1.0, 0.9, -0.2), (0.5, 0.8, -0.125)]
    trial = IdentityTrial(data, monkeypatch, script, folds=2)
    assert trial.outcome.value == fmean((-0.25, -0.125))
    assert trial.reporter.raced == [[-0.25]]
    folds = trial.outcome.attrs["folds"]
    assert [(fold["value"], fold["val_cosine"]) for fold in folds] == [(-0.25, 0.4), (-0.125, 0.8)]


def test_an_epoch_that_an_earlier_version_validated_has_a_cosine_and_no_identity():
    assert COSINE.of_epoch(epoch(4, 0.5)) == 0.5
    assert IDENTITY.of_epoch(replace(epoch(4, 0.5), recognition=recognition(-0.125))) == -0.125
    with pytest.raises(ValueError, match="epoch 4 has no identity"):
        IDENTITY.of_epoch(epoch(4, 0.5))


# What a study says


def test_a_study_that_does_not_say_its_objective_has_the_cosine():
    assert Objective.of_study(attrs_of()) == COSINE
    assert Objective.of_study({}) == COSINE
    held = attrs_of()["settings"] | {"objective": "identity"}
    assert Objective.of_study(attrs_of(settings=held)) == IDENTITY


def test_the_lines_to_pass_are_those_of_the_objective_if_the_study_knows_them():
    attrs = {"no_model_cosine": 0.5, "ridge_cosine": 0.6, "no_model_recognition": recognition(-0.25).to_dict()}
    assert COSINE.of_baselines(attrs) == {"no model": 0.5, "ridge": 0.6}
    assert IDENTITY.of_baselines(attrs) == {"no model": -0.25}


def test_a_trial_in_training_is_known_by_what_it_reported_of_its_objective():
    class Trial:
        system_attrs, user_attrs, intermediate_values = {}, {}, {1: -0.5, 2: -0.25}

    assert History.of(Trial, IDENTITY) == History((), identity=(-0.5, -0.25))
    assert History.of(Trial) == History((-0.5, -0.25))


@pytest.mark.parametrize(("target", "objective"), [(0.85, COSINE), (-0.2, IDENTITY), (0.0, IDENTITY), (None, IDENTITY)])
def test_a_target_that_can_be_reached_is_taken(target, objective):
    check(target, objective)


def test_a_target_above_the_highest_value_is_refused():
    with pytest.raises(ConfigError, match=r"--target 0.85 is out of range: identity is -1 to 0") as refused:
        check(0.85, IDENTITY)
    assert refused.value.hint is not None


# Which studies go together


@pytest.fixture
def made(data, tmp_path):
    """The attributes of a study of one objective, which None leaves out as version 0.1.0 did."""
    file = file_of(tmp_path, SAMPLED_ONLY)

    def attrs(objective):
        held = study_attrs(data, file, Settings("keypoint", 2, None, objective=objective or COSINE))
        if objective is None:
            del held["settings"]["objective"]
        return held

    return attrs


def test_the_stored_settings_have_the_keys_of_their_type(made):
    later = {"grown"}  # once ranges have grown
    stored = StoredSettings.__required_keys__ | StoredSettings.__optional_keys__
    assert made(COSINE)["settings"].keys() == stored - later
    assert StoredSettings.__optional_keys__ == {"folds", "objective"} | later  # which version 0.1.0 did not store


def test_a_study_is_not_continued_under_another_objective(made):
    before = {None: "cosine", COSINE: "cosine", IDENTITY: "identity"}
    for held, wanted in ((None, IDENTITY), (COSINE, IDENTITY), (IDENTITY, COSINE)):
        line = f"study 'x' was made with objective = {before[held]}, now it is {wanted}"
        with pytest.raises(StudyError) as refused:
            check_same("x", made(held), made(wanted), Settings("keypoint", 2, None, objective=wanted))
        assert refused.value.message == line
        assert f"continue it with --objective {before[held]}, or start another study" in refused.value.hint
    for held, wanted in ((None, COSINE), (IDENTITY, IDENTITY)):
        check_same("x", made(held), made(wanted), Settings("keypoint", 2, None, objective=wanted))


# A whole search


def test_a_search_for_identity_chooses_by_it_and_keeps_the_cosine_beside_it(tmp_path, data, sqlite):
    settings = Settings("keypoint", 3, 5, objective=IDENTITY)
    search = open_search(sqlite, "quick", file_of(tmp_path, SAMPLED_ONLY), settings, Setup(data, CPU, "off"))
    search.run(4, Watch())
    study, attrs = search.study, search.study.user_attrs
    assert study.metric_names == ["val_identity"]
    assert Objective.of_study(attrs) == IDENTITY
    trials = study.trials
    for trial in trials:
        identity = trial.user_attrs["recognition"]["all"]["identity"]
        assert identity <= 0 < len(trial.intermediate_values)
        assert (trial.value, kept_value(trial, attrs)) == (identity, identity)
        assert kept_cosine(trial) == trial.user_attrs["val_cosine"] != identity
        assert trial.intermediate_values == pytest.approx(dict(enumerate(History.of(trial).identity, 1)), abs=1e-6)
        assert reached(trial, identity, 1, IDENTITY)
        assert not reached(trial, identity + 1e-9, 1, IDENTITY)
    best = max(trials, key=lambda trial: trial.value)
    assert best_trial(study).number == best.number
    ranked = sorted(trials, key=lambda trial: -trial.value)
    assert Retention(study, None, 10)._ranked() == [f"trial-{trial.number}" for trial in ranked]
    said = summary(study)
    assert (said["objective"], said["best_value"], said["best_cosine"]) == ("identity", best.value, kept_cosine(best))
    of_baselines = {name: attrs[f"{name.replace(' ', '_')}_recognition"]["all"]["identity"] for name in BASELINES}
    assert IDENTITY.of_baselines(attrs) == IDENTITY.of_baselines(said) == of_baselines


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_value_is_said_with_its_name_and_four_decimals(name):
    assert Objective(name).said(-0.12344) == f"{name} -0.1234"


# What `confirm` chooses by


def test_the_winner_of_a_study_for_identity_is_chosen_by_it_and_so_is_its_curse_measured():
    row = {"name": "trial 3", "value": 0.7, "validation": 0.6, "validation_sd": 0.1}
    assert chosen_by(row) is row
    assert choice({"winner": row}) == ""
    by_identity = {"value": -0.1, "validation": -0.125, "validation_sd": None}
    confirmation = {"winner": row | {"by_identity": by_identity}, "seeds": [1, 2]}
    assert choice(confirmation) == "trial 3 was chosen by its identity on the validation people: -0.1250."
    assert "had -0.1000 on the validation people; over 2 fresh seeds it is -0.1250, so 0.0250" in curse(confirmation)


def test_a_mean_over_folds_and_the_ordinary_split_measure_no_winners_curse():
    winner = {"name": "trial 3", "value": 0.7, "validation": 0.6, "validation_sd": 0.1}
    confirmation = {"winner": winner, "seeds": [1, 2]}
    assert "0.1000 of it was luck" in curse(confirmation | {"folds": 1})
    assert curse(confirmation | {"folds": 3}) == ""  # other people and other trainings, not luck


def test_records_of_a_candidate_are_summarised_by_identity():
    candidate = Candidate("trial 3", SMALL, 3, False, 0.7, -0.25)
    records = [[{"validation": 0.6, "validation_identity": value}] for value in (-0.25, -0.5)]
    found = _by_identity(candidate, records)
    assert (found["value"], found["validation"]) == (-0.25, -0.375)
    assert found["validation_sd"] == pytest.approx(0.125 * 2**0.5)
    assert _by_identity(candidate, records[:1])["validation_sd"] is None


# What shows a study


def test_note_and_figures_of_a_study_for_identity_are_in_its_unit():
    study = recognised()
    study.set_user_attr("settings", study.user_attrs["settings"] | {"objective": "identity"})
    found = find(study)
    assert found.lines == dict.fromkeys(BASELINES, -0.2)
    goal = next(line for line in study_note(found).splitlines() if line.startswith("**Goal**"))
    assert "the highest mean identity" in goal
    assert "without a model it is -0.2000, with ridge regression -0.2000, with kernel ridge -0.2000." in goal
    drawn = figures(found)["best-value"]
    assert drawn["layout"]["yaxis"]["title"]["text"] == "mean identity, validation people"
    levels = {trace["name"]: trace["y"] for trace in drawn["data"]}
    assert (levels["no model"], levels["kernel ridge"]) == ([-0.2, -0.2], [-0.2, -0.2])
    assert "Validation identity -0.2000, +0.0000 against no model; the checkpoint" in trial_note(found, found.best)


def test_a_study_may_begin_at_the_best_of_one_with_another_objective_and_its_value_says_which():
    stored = {"study": "before", "trial": 3, "value": 0.5931, "config": {}}
    assert str(WarmStart.of({"from": stored})) == "before, trial 3, cosine 0.5931"  # of version 0.1.0
    held = WarmStart("before", 3, -0.1234, {}, "identity")
    assert WarmStart.of({"from": held.to_attr()}) == held
    assert str(held) == "before, trial 3, identity -0.1234"


def test_an_imported_run_is_worth_the_identity_of_its_weights_and_has_no_curve_for_the_pruner(tmp_path):
    curves = {"train_loss": (0.5, 0.4), "val_loss": (0.5, 0.4), "cosine": (0.25, 0.5)}
    run = SimpleNamespace(path=tmp_path, sha256="0", best_epoch=2, run_id=lambda config: "1", **curves)
    one = torch.ones(1)
    scores = SimpleNamespace(mse=0.5, cosine=0.5, cosines=one, yaw=np.zeros(1), recognition=recognition(-0.125))
    file = SimpleNamespace(space={})
    with mock.patch.object(import_runs, "learning_rates", return_value=()):
        trials = {
            objective.name: import_runs._trial(
                run, SMALL, {}, {}, file, Settings("keypoint", 2, None, objective=objective), scores, confirmed=True
            )
            for objective in (COSINE, IDENTITY)
        }
    assert (trials["cosine"].value, trials["cosine"].intermediate_values) == (0.5, {1: 0.25, 2: 0.5})
    assert (trials["identity"].value, trials["identity"].intermediate_values) == (-0.125, {})
    assert kept_cosine(trials["identity"]) == 0.5
