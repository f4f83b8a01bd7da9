"""Failures that teach: what a sampler is shown of them, and how seldom it asks for their like again."""

import math

import optuna
import pytest
from optuna.pruners import HyperbandPruner, NopPruner
from optuna.samplers import CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from face3d_tune.search.failed_trials import FailuresAsWorst, seen_by_sampler, seen_by_tpe

STARTUP = 8
TRAINED = {"config": {}, "stop_reason": "finished"}  # by which a trial of this program is known
SAMPLERS = {
    "tpe, joint": lambda seed: TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP),
    "tpe, independent": lambda seed: TPESampler(seed=seed, multivariate=False, n_startup_trials=STARTUP),
    "cmaes": lambda seed: CmaEsSampler(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=STARTUP),
}


@pytest.fixture(autouse=True)
def _quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def searched(make, finished, *, steered=True, seed=0, at_most=100, pruner=None):
    """A search whose trials diverge above lr = 1, three fifths of the space, until so many have finished.

    Returns the study, and whether each trial after the start-up diverged.
    """
    study, diverged = optuna.create_study(direction="maximize", pruner=pruner or NopPruner()), []
    for number in range(at_most):
        done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        if done == finished:
            break
        sampler = make(1000 * seed + number)  # a search makes one for every trial
        study.sampler = FailuresAsWorst(sampler) if steered else sampler
        trial = study.ask()
        exponent = math.log10(trial.suggest_float("lr", 1e-4, 1e6, log=True))
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        for key, value in TRAINED.items():
            trial.set_user_attr(key, value)
        if done >= STARTUP:
            diverged.append(exponent > 0)
        if exponent > 0:
            trial.set_user_attr("cause", "diverged")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, 0.6 - 0.01 * (exponent + 2) ** 2 - 0.1 * (dropout - 0.2) ** 2)
    return study, diverged


def share(make, seeds, **options):
    """Of the trials after the start-up, how many diverged."""
    asked = [each for seed in range(seeds) for each in searched(make, 24, seed=seed, **options)[1]]
    return sum(asked) / len(asked)


@pytest.mark.parametrize(("name", "of_before"), [("tpe, joint", 0.5), ("tpe, independent", 0.5), ("cmaes", 0.85)])
def test_a_sampler_soon_leaves_a_region_that_diverges_and_would_not_without(name, of_before):
    taught, untaught = share(SAMPLERS[name], 3), share(SAMPLERS[name], 3, steered=False)
    assert taught < of_before * untaught  # a generation of CMA-ES moves by steps
    assert untaught > 0.5


def test_a_gaussian_process_leaves_it_too():
    study, diverged = searched(SAMPLERS["gp"], 12, at_most=40)
    assert sum(diverged) <= 2
    assert study.best_value > 0.59


def test_random_search_learns_nothing_and_still_runs():
    study, _ = searched(lambda seed: RandomSampler(seed=seed), 6)
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 6


def test_a_sampler_reads_failures_through_hyperbands_brackets_too():
    pruner = HyperbandPruner(min_resource=1, max_resource=9)
    study, _ = searched(SAMPLERS["tpe, joint"], 20, pruner=pruner)
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 20


def test_until_the_start_up_is_over_a_sampler_asks_for_what_it_would_have_asked_for_anyway():
    for make in SAMPLERS.values():
        studies = [searched(make, STARTUP, steered=steered)[0] for steered in (True, False)]
        assert [trial.params for trial in studies[0].trials] == [trial.params for trial in studies[1].trials]
        assert TrialState.FAIL in {trial.state for trial in studies[0].trials}


def study_of(*trials):
    """Trials of one parameter: (state, value, user attributes)."""
    study = optuna.create_study(direction="maximize")
    for number, (state, value, attrs) in enumerate(trials):
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params={"lr": 1.0 + number},
                distributions={"lr": optuna.distributions.FloatDistribution(0.1, 1e3)},
                user_attrs=TRAINED | attrs,
            )
        )
    return study


def shown(study):
    return [(trial.state.name, trial.value) for trial in seen_by_sampler(study.trials)]


DIVERGED = (TrialState.FAIL, None, {"cause": "diverged"})


def test_what_failed_by_its_config_is_shown_with_the_worst_completed_value_and_nothing_else_is():
    study = study_of(
        (TrialState.COMPLETE, 0.6, {}),
        (TrialState.COMPLETE, 0.4, {}),
        (TrialState.PRUNED, 0.1, {}),
        DIVERGED,
        (TrialState.FAIL, None, {"cause": "out_of_memory"}),
        (TrialState.FAIL, None, {"cause": "error"}),
        (TrialState.FAIL, None, {"cause": "diverged", "put_back": True}),
    )
    assert shown(study) == [
        ("COMPLETE", 0.6),
        ("COMPLETE", 0.4),
        ("PRUNED", 0.1),
        ("COMPLETE", 0.4),
        ("COMPLETE", 0.4),
        ("FAIL", None),
        ("FAIL", None),
    ]
    assert [trial.state.name for trial in study.trials].count("FAIL") == 4  # what is stored stays as it is


def test_without_a_completed_trial_there_is_no_worst_one_and_failures_stay_what_they_are():
    study = study_of(DIVERGED, (TrialState.PRUNED, 0.1, {}))
    assert shown(study) == [("FAIL", None), ("PRUNED", 0.1)]


def test_at_most_four_failures_are_shown_for_each_completed_trial_the_latest_ones():
    study = study_of(*[DIVERGED] * 3, (TrialState.COMPLETE, 0.5, {}), *[DIVERGED] * 3)
    assert [state for state, _ in shown(study)] == ["FAIL", "FAIL", *["COMPLETE"] * 5]


def test_tpe_sees_a_pruned_trial_as_a_completed_one_with_the_highest_value_that_it_reached():
    study = study_of((TrialState.COMPLETE, 0.5, {}), (TrialState.PRUNED, None, {}), DIVERGED)
    pruned = optuna.trial.create_trial(
        state=TrialState.PRUNED, intermediate_values={1: 0.2, 2: 0.6, 3: 0.55}, user_attrs=TRAINED
    )
    study.add_trial(pruned)
    seen = [(trial.state.name, trial.value) for trial in seen_by_tpe(study.trials)]
    assert seen == [("COMPLETE", 0.5), ("PRUNED", None), ("COMPLETE", 0.5), ("COMPLETE", 0.6)]
    assert study.trials[3].state == TrialState.PRUNED  # what is stored stays as it is


def test_tpe_learns_from_a_good_pruned_trial_before_a_bad_completed_one():
    """Optuna's own order puts the completed trial at 1.0 first."""
    study, rows = optuna.create_study(direction="maximize"), [(TrialState.COMPLETE, 1.0, 0.1)]
    rows += [(TrialState.PRUNED, 100.0, 0.6)] + [(TrialState.PRUNED, 1.0, 0.05)] * 8
    for state, lr, value in rows:
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params={"lr": lr},
                distributions={"lr": optuna.distributions.FloatDistribution(0.1, 1e3, log=True)},
                intermediate_values={1: value},
                user_attrs=TRAINED,
            )
        )
    proposed = {}
    for steered in (False, True):
        sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=0)
        study.sampler = FailuresAsWorst(sampler) if steered else sampler
        values = [study.ask().suggest_float("lr", 0.1, 1e3, log=True) for _ in range(20)]
        proposed[steered] = sum(value > 10 for value in values)
    assert proposed[True] > proposed[False]
