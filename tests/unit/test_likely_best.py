"""The likely value of the best trial: which noise a study knows, how much luck is taken away, when nothing is said."""

import json
from datetime import datetime
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import call
from own_script import found_of
from scipy.stats import norm
from stored_script import script_trial, study_of_script
from stored_study import attrs_of, confirmation_of, study_of, trial_of

from face3d_tune.analysis.findings import find
from face3d_tune.analysis.likely_best import _expected_of, expected, likely_best
from face3d_tune.cli.console import Console
from face3d_tune.cli.result_tables import before_and_after
from face3d_tune.cli.run_output import JsonView
from face3d_tune.report.render import report
from face3d_tune.study.objective import COSINE


def distinct(*values, **more):
    """Completed trials of configs that all differ, each with a seed of its own."""
    return [trial_of("COMPLETE", value, lr=1e-3 + 1e-4 * n, seed=n, **more) for n, value in enumerate(values)]


def repeated(values, *, first_seed=100):
    """Trainings of one config with several seeds."""
    return [trial_of("COMPLETE", value, lr=5e-2, seed=first_seed + n) for n, value in enumerate(values)]


def test_two_values_by_hand():
    """Of y = 0 and 1 with noise 1 the likeliest G lies between; by symmetry the expectations add up to 1.

    With noise 0.01 nothing is gained by moving either.
    """
    low, high = expected(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert low + high == pytest.approx(1)
    # Weights stay 1/2 by symmetry: E[θ | 1] = φ(0) / (φ(0) + φ(1)) on the two points.
    assert high == pytest.approx(norm.pdf(0) / (norm.pdf(0) + norm.pdf(1)))
    assert expected(np.array([0.0, 1.0]), np.array([0.01, 0.01])) == pytest.approx([0, 1])


def test_a_mean_of_many_trainings_moves_less():
    values = np.array([0.0, 0.1, 0.2, 0.3, 1.0])
    once = expected(values, np.full(5, 0.5))[-1]
    often = expected(values, np.array([0.5, 0.5, 0.5, 0.5, 0.05]))[-1]
    assert once < often <= 1


def test_values_that_stand_several_times_count_as_often():
    values = np.array([0.0, 0.0, 0.5, 0.5, 0.5, 1.0])
    one, two = np.unique(values, return_counts=True)
    whole = expected(values, np.full(6, 0.5))
    assert expected(one, np.full(3, 0.5), two) == pytest.approx(whole[[0, 2, 5]])


def test_far_configs_and_bins_of_close_ones_change_nothing():
    """Bins of a fiftieth of the noise and no far configs change the answer by less than that."""
    random, noise = np.random.default_rng(2), 0.02
    values = 0.6 + 0.1 * random.normal(size=400)
    groups = {number: [float(value)] for number, value in enumerate(values)}
    best = int(values.argmax())
    found = _expected_of(groups, best, noise)
    assert found == pytest.approx(expected(values, np.full(400, noise))[best], abs=noise / 50)


def bell(random, count):
    return random.normal(size=count)


def tail(random, count):
    return -(random.exponential(size=count) ** 2)


def equal(random, count):
    return np.zeros(count)


@pytest.mark.parametrize("worth", [bell, tail, equal])
def test_the_winners_curse_goes_in_a_simulation(worth):
    """What the best is worth is drawn here, so the truth is known: the seen value is above it."""
    random, noise, seen, likely = np.random.default_rng(1), 0.5, [], []
    for _ in range(300):
        truth = worth(random, 30)
        values = truth + noise * random.normal(size=30)
        best = int(values.argmax())
        seen.append(values[best] - truth[best])
        likely.append(expected(values, np.full(30, noise))[best] - truth[best])
    assert np.mean(seen) > 0.9 * noise
    assert abs(np.mean(likely)) < 0.5 * noise < 0.6 * np.mean(seen)
    assert np.mean(np.square(likely)) < np.mean(np.square(seen))


def test_the_noise_is_that_of_equal_configs_with_other_seeds():
    """Values 0.60, 0.62, 0.64, 0.66: squares 0.0009 + 0.0001 + 0.0001 + 0.0009 = 0.002 with 3 degrees of freedom."""
    study = study_of(*distinct(0.5, 0.55, 0.6, 0.65, 0.7), *repeated([0.60, 0.62, 0.64, 0.66]))
    found = likely_best(study)
    assert found.noise == pytest.approx((0.002 / 3) ** 0.5)
    assert (found.trial, found.value, found.trials, found.source) == (4, 0.7, 9, "seeds")
    assert 0.6 < found.likely < 0.7


def test_a_training_with_the_same_seed_tells_no_noise():
    same = [trial_of("COMPLETE", value, lr=5e-2, seed=1) for value in (0.6, 0.62, 0.64, 0.66)]
    assert likely_best(study_of(*distinct(0.5, 0.55, 0.6, 0.65, 0.7), *same)) is None


@pytest.mark.parametrize(
    "trials",
    [
        [],
        distinct(0.5, 0.55, 0.6, 0.65, 0.7),
        [*distinct(0.5, 0.55, 0.6, 0.65, 0.7), *repeated([0.60, 0.66])],  # one degree of freedom
        [*distinct(0.5, 0.55, 0.6, 0.65, 0.7), *repeated([0.6] * 5)],  # the same value whatever the seed
        [*distinct(0.5, 0.7), *repeated([0.60, 0.62, 0.64, 0.66])],  # three configs
    ],
)
def test_nothing_is_said_where_the_noise_is_not_known(trials, capsys):
    study = study_of(*trials)
    assert likely_best(study) is None
    before_and_after(study)
    assert "luck" not in capsys.readouterr().out


def test_the_seeds_of_a_confirmation_count_until_it_includes_the_best():
    confirmation = confirmation_of()
    degrees = sum(len(confirmation["seeds"]) - 1 for row in confirmation["candidates"] if row["error"] is None)
    squares = sum(
        (len(confirmation["seeds"]) - 1) * row["validation_sd"] ** 2
        for row in confirmation["candidates"]
        if row["error"] is None
    )
    assert degrees >= 3
    assert squares > 0
    trials = distinct(*(0.5 + 0.01 * n for n in range(20)))
    assert likely_best(study_of(*trials, confirmation=confirmation)).noise == pytest.approx((squares / degrees) ** 0.5)
    confirmation["candidates"][0]["trial"] = 19
    assert likely_best(study_of(*trials, confirmation=confirmation)) is None


def test_the_noise_of_folds_is_what_is_left_beside_trials_and_folds():
    """The better half of 8 trials over 3 folds; what is left of a table with rows a + b is 0, so only the ±e count.

    In rows 1 and 2 fold 1 has +e and -e. What is left sums to e² · 2 · (1 - 1/4) · (1 - 1/3) = e², plus the product of
    the two, e · -e · 2 · (-1/4) · (1 - 1/3) = e² / 3: 4/3 e² over (4 - 1)(3 - 1) = 6 degrees, and a mean has a third.
    """
    error = 0.03
    by_fold = [[0.8 - 0.01 * row + each for each in (-0.1, 0.0, 0.1)] for row in range(8)]
    by_fold[0][0] += error
    by_fold[1][0] -= error
    trials = []
    for row, values in enumerate(by_fold):
        folds = [
            {"fold": number, "value": value, "epochs_run": 5, "best_epoch": 4} for number, value in enumerate(values)
        ]
        trials.append(trial_of("COMPLETE", float(np.mean(values)), lr=1e-3 + 1e-4 * row, seed=row, folds=folds))
    found = likely_best(study_of(*trials, settings=attrs_of()["settings"] | {"folds": 3}))
    assert found.source == "folds"
    assert found.noise == pytest.approx((4 / 3 * error**2 / 3 / 6) ** 0.5)


def test_where_lower_is_better_the_likely_value_is_higher():
    made = partial(script_trial, "COMPLETE", direction="minimize")
    trials = [made([value], lr=1e-3 + 1e-4 * n, seed=n) for n, value in enumerate((0.3, 0.35, 0.4, 0.45, 0.5))]
    trials += [made([value], lr=5e-2, seed=10 + n) for n, value in enumerate((0.34, 0.36, 0.38, 0.4))]
    found = likely_best(study_of_script(*trials, direction="minimize"))
    assert (found.trial, found.value) == (0, 0.3)
    assert 0.3 < found.likely < 0.4


def test_a_confirmation_by_a_script_tells_the_noise_of_its_metric():
    held = found_of()
    rows = [row for row in held["candidates"] if row["error"] is None and row["sd"] is not None]
    trials = [script_trial("COMPLETE", [0.5 + 0.01 * n], lr=1e-3 + 1e-4 * n, seed=n) for n in range(20)]
    metric = study_of_script().user_attrs["script"]["metric"]
    found = likely_best(study_of_script(*trials, script_confirmation=held | {"metric": metric}))
    assert [row["sd"] for row in rows] == [0.01, 0.02]  # of five seeds each
    assert found.noise == pytest.approx(((4 * 0.01**2 + 4 * 0.02**2) / 8) ** 0.5)
    assert likely_best(study_of_script(*trials, script_confirmation=held | {"metric": "another"})) is None


def test_table_status_and_report_say_it_in_one_line(tmp_path, sqlite, sqlite_url, capsys):
    trials = [*distinct(0.5, 0.55, 0.6, 0.65, 0.7), *repeated([0.60, 0.62, 0.64, 0.66])]
    study = study_of(*trials, storage=sqlite)
    found = likely_best(study)
    said = (
        f"the best of 9 is partly luck: trained again, trial 4 likely reaches about {found.likely:.4f} (seen: 0.7000); "
        "another seed changes a value by about ±0.0258"
    )
    before_and_after(study)
    assert f"  {said}\n" in capsys.readouterr().out
    ours = partial(call, "status", cwd=tmp_path, FACE3D_TUNE_STORAGE=sqlite_url)
    assert said in ours().out
    assert (
        f"9 个中最好的有一部分是运气：trial 4 再训练一次大概会达到 {found.likely:.4f}（目前看到 0.7000）；换一个种子"
        in ours("--lang", "zh").out
    )
    lines = []
    view = JsonView(Console(quiet=True), lines.append)
    search = SimpleNamespace(
        study=study,
        objective=COSINE,
        queue=SimpleNamespace(budget=9),
        exclusions=SimpleNamespace(),
    )
    opened = SimpleNamespace(search=search, winners=None, stage=None, plan=SimpleNamespace(engine="plain"), storage="")
    view.opened(opened)
    view.ended(opened)
    assert json.loads(lines[-1])["likely_best"]["likely"] == pytest.approx(found.likely)
    (row,) = json.loads(ours("--json").out)["studies"]
    assert row["likely_best"]["likely"] == pytest.approx(found.likely)
    told = {language: report(find(study), "md", language, datetime.now().astimezone()) for language in ("en", "zh")}
    assert f"likely reach about **{found.likely:.4f}**; it was seen at 0.7000" in told["en"]
    assert f"大概会达到 **{found.likely:.4f}** 左右" in told["zh"]
