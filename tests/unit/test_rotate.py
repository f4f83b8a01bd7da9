"""`confirm --rotate`: every person is judged once, by trainings and baselines of a rotation that never saw them."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_data import write_data
from stored_study import our_study
from trained import trained

from face3d_tune import seeds
from face3d_tune.analysis.confirmation import told
from face3d_tune.cli.confirm import confirm
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.data.pairs import persons
from face3d_tune.data.rotation import ROTATIONS, rotations
from face3d_tune.errors import ConfigError
from face3d_tune.executor.child import Share
from face3d_tune.executor.plan import Plan
from face3d_tune.refit import evaluations
from face3d_tune.refit.candidates import Candidate
from face3d_tune.refit.confirm import Confirmation
from face3d_tune.refit.rotate import RotatedConfirmation
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.base import PairTensors

PLAN = Plan("plain", (Share(torch.device("cpu"), 1),), "a test")
CONFIG = TrialConfig(
    **{"d_model": 16, "dim_feedforward": 16, "nhead": 2, "num_layers": 1, "batch_size": 8, "epochs": 1},
    use_mixed_precision=False,
)
BEST = Candidate("trial 5", CONFIG, 5, False, 0.6)
SECOND = Candidate("trial 3", replace(CONFIG, lr=2e-3), 3, False, 0.5)
PRESET = Candidate("baseline", replace(CONFIG, lr=1e-5), 0, True, 0.4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(write_data(tmp_path_factory.mktemp("rotated") / "files", people=11, views=3, feature_size=8))


@pytest.fixture
def study(sqlite, data):
    study = our_study(sqlite, "faces", data_fingerprint=data.fingerprint())
    study.place = sqlite
    return study


def rotated(study, data, *picked, of=3, count=1):
    return RotatedConfirmation(study, study.place, data, picked, count, print, of=of)


def train(confirmation, most=None):
    """Train what is missing, or interrupt it once so many are stored; return the jobs that ended."""
    ended = []

    def epoch(job, result):
        if most is not None and len(ended) == most:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        confirmation.train(PLAN, "off", lambda job, record: ended.append(job), epoch)
    return ended


def fill(confirmation, value, recognised=()):
    """Store made-up trainings: `value(job, person)` is the cosine of a person of the job's round.

    It is the rank-1 too, for these candidates.
    """
    for job in confirmation.jobs:
        people = len(confirmation._rounds[job.round].people["test"])
        means = [value(job, person) for person in range(people)]
        bands = {name: means for name in ("all", "0-15", "15-45", "45-90")}
        record = {"validation": 0.5 + 0.1 * job.round, "best_epoch": 1, "epochs": 1, "test": bands}
        record |= {"validation_identity": -0.25}
        if job.candidate in recognised:
            record["test_recognition"] = {"all": {"rank1_enrolled": means, "tar_enrolled": means}}
        confirmation._store(job, record)


def test_every_training_is_that_of_its_rotation_and_its_kept_weights_meet_the_people_it_judges(study, data):
    confirmation = rotated(study, data, BEST)
    assert len(train(confirmation)) == 3
    seed = study.user_attrs["settings"]["seed"]
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    assert found["seeds"] == [[seeds.derive(seed, "rotate", 3, place, 0) for place in range(3)]]
    means = []
    for place, part in enumerate(rotations(data, 3, seed=seed)):
        trainer = trained(part, CONFIG, found["seeds"][0][place])  # one epoch: the kept one
        _, cosines = trainer.pair_scores(PairTensors(part, "test", CONFIG.pose_unit, PLAN.device))
        who = persons(part.parts["test"])
        expected = [cosines.numpy()[who == person].mean() for person in range(len(part.people["test"]))]
        record = confirmation.records[confirmation.jobs[place].key]
        assert record["validation"] == pytest.approx(trainer.best.val_cosine, abs=1e-9)
        assert record["test"]["all"] == pytest.approx(expected, abs=1e-6)
        means += record["test"]["all"]
    assert len(means) == found["people"] == 11
    assert found["winner"]["test"] == pytest.approx(np.mean(means))
    assert found["winner"]["validation"] == pytest.approx(
        np.mean([record["validation"] for record in confirmation.records.values()])
    )


def test_an_interrupted_rotation_trains_only_what_is_missing_and_nothing_is_counted_before_the_end(study, data):
    first = train(rotated(study, data, BEST, PRESET), most=3)
    resumed = rotated(study, data, BEST, PRESET)
    assert (len(first), len(resumed.records), len(resumed.missing)) == (3, 3, 3)
    assert evaluations.recorded(study.place, data.fingerprint()) == []
    then = train(resumed)
    assert {job.key for job in first}.isdisjoint(job.key for job in then)
    assert {job.key for job in [*first, *then]} == {job.key for job in resumed.jobs}
    resumed.conclude("face3d-tune confirm --rotate 3", None)
    assert train(rotated(study, data, BEST, PRESET)) == []
    (look,) = evaluations.recorded(study.place, data.fingerprint())
    assert look["command"] == "face3d-tune confirm --rotate 3"


def test_no_two_trainings_share_a_key_whatever_the_rotations_and_the_seed(study, data):
    ordinary = Confirmation(study, study.place, data, [BEST, SECOND], 2, print)
    made = [ordinary, *(rotated(study, data, BEST, SECOND, of=of, count=2) for of in (3, 4, 11))]
    keys = [job.key for confirmation in made for job in confirmation.jobs]
    assert len(keys) == len(set(keys)) == 2 * 2 * (1 + 3 + 4 + 11)
    drawn = [job.seed for confirmation in made for job in confirmation.jobs if job.candidate is BEST]
    assert len(set(drawn)) == len(drawn)


def test_people_are_compared_across_rotations_and_the_interval_counts_rotations(study, data):
    """Blocks of 4, 4, 3 people with gains 0.1, 0.2, 0.3 over the preset.

    The mean is 2.1 / 11; the variance 3/2 · Σ (n (m_b - m))² / 11², with 2 degrees of freedom.
    """
    confirmation = rotated(study, data, BEST, PRESET)
    gains = (0.1, 0.2, 0.3)
    fill(confirmation, lambda job, person: 0.5 + 0.01 * person + (gains[job.round] if job.candidate is BEST else 0))
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    entry = found["against"][0]
    mean = 2.1 / 11
    error = np.sqrt(1.5 * sum((size * (gain - mean)) ** 2 for size, gain in zip((4, 4, 3), gains, strict=True))) / 11
    assert (entry["name"], entry["people"], entry["method"]) == ("baseline", 11, "t-blocks")
    assert entry["difference"] == pytest.approx(mean)
    assert entry["half_width"] == pytest.approx(4.30265 * error, rel=1e-5)
    assert (found["rotations"], found["people"], found["pairs"]["all"]) == (3, 11, 33)


@pytest.mark.parametrize("recognised", [(BEST, PRESET), (BEST,), (PRESET,)])
def test_rank_1_is_compared_with_the_best_preset_too_unless_an_earlier_version_trained_one_of_them(
    study, data, recognised
):
    confirmation = rotated(study, data, BEST, PRESET)
    fill(confirmation, lambda job, person: 0.1 * job.round + (0.5 if job.candidate is BEST else 0.2), recognised)
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    preset = [("baseline", "preset")] if PRESET in recognised else []
    expected = [*preset, *((name, "simple") for name in ("kernel ridge", "ridge", "no model"))]
    against = found["recognition"]["rank1_enrolled"]["against"] if BEST in recognised else []
    assert [(each["name"], each["kind"]) for each in against] == (expected if BEST in recognised else [])
    if against and preset:
        same = ("difference", "low", "high", "people", "verdict", "method")
        assert [against[0][key] for key in same] == [found["against"][0][key] for key in same]
        assert against[0]["rate"] == pytest.approx((4 * 0.2 + 4 * 0.3 + 3 * 0.4) / 11)
    known = [row["name"] for row in found["candidates"] if "test_rank1_enrolled" in row]
    assert known == [each.name for each in (BEST, PRESET) if each in recognised]


def test_the_winner_is_the_studys_best_although_another_is_judged_higher(study, data):
    confirmation = rotated(study, data, SECOND, BEST, PRESET)
    fill(confirmation, lambda job, person: 0.9 if job.candidate is SECOND else 0.3)
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    assert found["candidates"][0]["test"] > found["candidates"][1]["test"]
    assert found["winner"]["name"] == "trial 5"


def test_in_a_study_of_identity_the_winner_has_the_best_identity_of_the_study(study, data):
    study.set_user_attr("settings", {**study.user_attrs["settings"], "objective": "identity"})
    confirmation = rotated(study, data, replace(BEST, identity=-0.3), replace(SECOND, identity=-0.2))
    fill(confirmation, lambda job, person: 0.5)
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    assert found["winner"]["name"] == "trial 3"
    assert "chosen by its identity on the validation people" not in " ".join(told(found))


def test_baselines_are_fitted_on_the_training_people_of_every_rotation_anew(study, data):
    study.set_user_attr("ridge_penalty", 0.3)  # of the ordinary split, as the next
    study.set_user_attr("kernel_ridge_choice", {"landmarks": "none", "gamma": 4.0, "penalty": 1000.0})
    confirmation = rotated(study, data, BEST)
    fill(confirmation, lambda job, person: 0.5)
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    for name, of in (
        ("ridge", lambda part: ridge.fit(part).cosines(part, "test")),
        ("kernel_ridge", lambda part: kernel_ridge.fit(part).cosines(part, "test")),
        ("no_model", lambda part: part.no_model_cosines("test")),
    ):
        means = []
        for part in rotations(data, 3, seed=study.user_attrs["settings"]["seed"]):
            who, cosines = persons(part.parts["test"]), of(part)
            means += [cosines[who == person].mean() for person in np.unique(who)]
        assert found[name]["test"] == pytest.approx(np.mean(means), abs=1e-6)


def test_it_is_stored_beside_the_ordinary_confirmation_and_both_count_the_looks_of_the_other(study, data):
    ordinary = Confirmation(study, study.place, data, [BEST], 1, print)
    fill(ordinary, lambda job, person: 0.5)
    before = ordinary.conclude("face3d-tune confirm", None)
    confirmation = rotated(study, data, BEST)
    fill(confirmation, lambda job, person: 0.5)
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    assert study.user_attrs["confirmation"] == before
    assert study.user_attrs["rotation"] == found
    assert len(found["looks"]) == 2
    assert len(ordinary.conclude("face3d-tune confirm", None)["looks"]) == 3


def test_a_candidate_that_diverges_in_one_rotation_is_compared_with_nobody(study, data):
    confirmation = rotated(study, data, BEST, SECOND)
    fill(confirmation, lambda job, person: 0.5)
    confirmation._store(confirmation.jobs[0], {"error": "training loss is nan in epoch 1"})
    found = confirmation.conclude("face3d-tune confirm --rotate 3", None)
    assert (found["winner"]["name"], found["candidates"][0]["error"]) == ("trial 3", "training loss is nan in epoch 1")


@pytest.mark.parametrize(
    ("of", "candidate", "said", "hint"),
    [
        (2, BEST, "2 rotations are too few", "use 3 or more"),
        (12, BEST, "12 rotations need 12 people; here are 11", "use 11 at most"),
        (
            3,
            replace(BEST, config=replace(CONFIG, batch_size=10)),
            "trial 5 has batch_size = 10, and one of 3 rotations has 9 training pairs",
            "more rotations leave more people to train",
        ),
    ],
)
def test_rotations_that_the_people_do_not_allow_are_refused_before_a_training(study, data, of, candidate, said, hint):
    with pytest.raises(ConfigError, match=said) as error:
        rotated(study, data, candidate, of=of)
    assert error.value.hint == hint


def test_the_command_line_names_the_number_of_rotations_without_loading_data():
    (option,) = [each for each in confirm.params if each.name == "rotate"]
    assert option.flag_value == str(ROTATIONS)


def test_people_without_views_are_in_no_rotation(tmp_path, study):
    folder = write_data(tmp_path / "files", people=11, views=3, feature_size=8)
    path = folder / "video_metadata.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"person 10"', '"person 9"'), encoding="utf-8")
    found = [name for each in rotated(study, load(folder), BEST)._rounds for name in each.people["test"]]
    assert len(found) == 10
    assert "person 10" not in found
