"""The pruner's verdict without reading the study again is the verdict that Optuna gives."""

import random

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from face3d_tune.search.extrapolation import ExtrapolationPruner
from face3d_tune.search.pruning import CompletedTrials, TrialReporter
from face3d_tune.search.shape_pruner import ShapePruner

PRUNERS = {
    "median": MedianPruner(n_startup_trials=2, n_warmup_steps=3),
    "at once": MedianPruner(n_startup_trials=1, n_warmup_steps=0),
    "percentile": PercentilePruner(30.0, n_startup_trials=1, n_warmup_steps=2, interval_steps=2, n_min_trials=2),
    "extrapolation": ExtrapolationPruner(n_startup_trials=3, n_warmup_steps=2),
    "shape": ShapePruner(chance=0.4, n_warmup_steps=2),
    "none": NopPruner(),
    "successive halving": SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "hyperband": HyperbandPruner(min_resource=1, max_resource=8, reduction_factor=2),
}
SIGNS = ((1, "maximize"), (-1, "minimize"))


def tell(study, trial, value=None, state=None):
    """As a worker does: with what shows that it trained the trial."""
    trial.set_user_attr("config", {})
    trial.set_user_attr("stop_reason", "finished")
    study.tell(trial, value, state)


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("seed", range(3))
def test_the_verdict_is_optunas_own_on_any_curves(name, seed):
    dice, verdicts = random.Random(seed), []
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[name], study_name=f"{name} {seed}")
    completed = CompletedTrials(study)
    for _ in range(25):
        trial = study.ask()
        reporter, level, pruned = TrialReporter(trial, completed), dice.random(), False
        for step in range(1, 9):
            reporter.report(level + 0.3 * dice.random(), step, 1e-3)
            pruned = reporter.should_prune()
            if isinstance(
                study.pruner, PercentilePruner | ExtrapolationPruner | ShapePruner | NopPruner
            ):  # asking the others changes what they know
                assert pruned == trial.should_prune()
            verdicts.append(pruned)
            if pruned:
                break
        tell(study, trial, state=TrialState.PRUNED) if pruned else tell(study, trial, level)
        completed.forget()
    assert any(verdicts) == (name != "none")


def test_completed_trials_are_read_once_until_one_has_ended_or_some_time_has_passed(monkeypatch):
    study, clock = optuna.create_study(direction="maximize", pruner=MedianPruner()), [100.0]
    monkeypatch.setattr("face3d_tune.search.pruning.time.monotonic", lambda: clock[0])
    completed = CompletedTrials(study)
    assert completed.get_trials() == []
    tell(study, study.ask(), 0.5)
    assert completed.get_trials() == []
    completed.forget()
    assert [trial.value for trial in completed.get_trials()] == [0.5]
    tell(study, study.ask(), 0.6)  # by another worker, of which this one hears later
    clock[0] += 10.5
    assert [trial.value for trial in completed.get_trials()] == [0.5, 0.6]


def test_rank_1_is_stored_for_watch_once_in_two_seconds_and_never_for_a_trial_that_takes_less(monkeypatch):
    study, clock = optuna.create_study(direction="maximize", pruner=NopPruner()), [100.0]
    monkeypatch.setattr("face3d_tune.search.pruning.time.monotonic", lambda: clock[0])
    trial = study.ask()
    reporter, stored = TrialReporter(trial, CompletedTrials(study)), []
    for step, rank1 in enumerate([0.1, 0.2, 0.3, None, 0.5, 0.6], 1):  # an epoch of an earlier version has none
        clock[0] += 0.8
        reporter.report(0.5, step, 1e-3, rank1)
        stored.append(study.trials[0].user_attrs.get("rank1_now"))
    assert stored == [None, None, 0.3, 0.3, 0.3, 0.6]


def test_an_epoch_whose_learning_rate_could_not_be_stored_is_not_reported_twice(monkeypatch, recwarn):
    study = optuna.create_study(direction="maximize", pruner=NopPruner())
    trial = study.ask()
    reporter = TrialReporter(trial, CompletedTrials(study), lambda what: None)  # nothing is stored yet
    reporter.report(0.5, 1, 1e-3)
    reporter.report(0.6, 2, 1e-4)
    store, failures = trial.set_user_attr, [True, True]

    def away_at_first(key, value):
        if failures:
            failures.pop()
            raise OSError("away")
        store(key, value)

    monkeypatch.setattr(trial, "set_user_attr", away_at_first)
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            reporter.deliver()
    reporter.deliver()
    stored = study.trials[0]
    assert (stored.intermediate_values, stored.user_attrs["lr_now"]) == ({1: 0.5, 2: 0.6}, 1e-4)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["extrapolation", "shape"])
def test_a_number_that_is_to_fall_is_pruned_as_its_opposite_that_is_to_rise(name):
    dice, verdicts = random.Random(1), []
    studies = [(sign, optuna.create_study(direction=way, pruner=PRUNERS[name])) for sign, way in SIGNS]
    completed = [CompletedTrials(study) for _, study in studies]
    for _ in range(25):
        trials = [study.ask() for _, study in studies]
        reporters = [TrialReporter(trial, known) for trial, known in zip(trials, completed, strict=True)]
        level, pruned = dice.random(), False
        for step in range(1, 9):
            value = level + 0.3 * dice.random()
            for (sign, _), reporter in zip(studies, reporters, strict=True):
                reporter.report(sign * value, step, 1e-3)
            pruned, opposite = (reporter.should_prune() for reporter in reporters)
            assert pruned == opposite
            verdicts.append(pruned)
            if pruned:
                break
        for (sign, study), trial, known in zip(studies, trials, completed, strict=True):
            tell(study, trial, state=TrialState.PRUNED) if pruned else tell(study, trial, sign * level)
            known.forget()
    assert any(verdicts)
