"""One study after another: what the next one keeps, where it begins, and what it refuses to follow."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from searches import file_of, search_in
from stored_study import add_trial, our_study

from face3d_tune.config import TrialConfig, resolve
from face3d_tune.errors import StudyError
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.presets import PRESETS
from face3d_tune.study.settings import Settings
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.warm_start import find, follow, moved, nearest

F = 512  # numbers per embedding
STAGE2, STAGE3 = study_file.read("stage2-loss"), study_file.read("stage3-capacity")


def stage(study="stage1-lr", **values):
    """A stage whose best trial was `recommended` with these values."""
    config = resolve({**PRESETS["recommended"], **values}, feature_size=F, epochs=100, layout="keypoint")
    return WarmStart(study, 11, 0.602, config.to_dict())


def begun(file, before, seed=42):
    """The configs of the first trials, by name."""
    followed = follow(file.bind("keypoint", F, 100), before, seed)
    trials = followed.initial_trials()
    return followed, {each.name: followed.config(each.params, each.overrides) for each in trials}


def test_the_next_study_keeps_every_value_of_the_best_that_it_does_not_search():
    before = stage(lr=4e-4, scheduler_factor=0.61, dropout=0.2, use_mixed_precision=False, loss_type="combined")
    followed, configs = begun(STAGE2, before)
    searched = {"lr", "cosine_weight", "mse_weight"}
    for config in configs.values():
        kept = {name: value for name, value in config.to_dict().items() if name not in searched}
        assert kept == {name: value for name, value in before.config.items() if name not in searched}
    assert followed.fixed["scheduler_factor"] == 0.61  # where the file has 0.2
    assert followed.fixed["use_mixed_precision"] is False  # where the file has true
    assert not searched & followed.fixed.keys()
    assert followed.space == STAGE2.space


def test_its_first_trials_are_the_best_itself_to_the_last_digit_and_four_near_it():
    before = stage(lr=4e-4)
    _, configs = begun(STAGE2, before)
    assert list(configs) == ["stage1-lr-best", *(f"stage1-lr-near-{number}" for number in (1, 2, 3, 4))]
    best, *near = configs.values()
    assert best == TrialConfig(**before.config)  # mse_weight 0.3 is not 1 - 0.7 in floats
    assert len({(config.lr, config.cosine_weight) for config in configs.values()}) == 5
    for config in near:
        assert config.mse_weight == 1 - config.cosine_weight
        assert 0.05 * 0.7 <= abs(config.cosine_weight - 0.7) <= 0.15 * 0.7 + 1e-12  # the range is 0.3 to 1
        decades = abs(math.log10(config.lr / 4e-4)) / math.log10(5e-4 / 1e-5)
        assert 0.05 - 1e-9 <= decades <= 0.15 + 1e-9
        assert config.lr <= 5e-4


def test_the_guides_presets_are_not_trained_again_and_presets_of_ones_own_are(tmp_path):
    text = '[study]\npresets = ["baseline"]\n[space]\nlr = { low = 1e-5, high = 1e-3, scale = "log" }\n'
    own = file_of(tmp_path, text + "[presets.mine]\nlr = 2e-4\n")
    followed, configs = begun(own, stage())
    assert [name for name in configs if "near" not in name] == ["stage1-lr-best", "mine"]
    kinds = {each.name: each.kind for each in followed.initial_trials()}
    assert [name for name, kind in kinds.items() if kind == "preset"] == ["stage1-lr-best", "mine"]


def test_the_neighbourhood_follows_from_the_seed_of_the_study():
    one, again, other = (begun(STAGE3, stage(), seed)[1] for seed in (1, 1, 2))
    assert one == again
    assert one["stage1-lr-best"] == other["stage1-lr-best"]
    assert one["stage1-lr-near-1"] != other["stage1-lr-near-1"]


def test_a_stage_that_searches_layers_and_width_begins_with_those_of_the_best():
    before = stage("stage2-loss", lr=1e-4, num_layers=5, width=1.25, cosine_weight=0.9, mse_weight=0.1)
    followed, configs = begun(STAGE3, before)
    assert configs["stage2-loss-best"] == TrialConfig(**before.config)
    assert (followed.fixed["cosine_weight"], followed.fixed["mse_weight"]) == (0.9, 0.1)
    assert not {"d_model", "dim_feedforward", "width"} & followed.fixed.keys()
    for config in configs.values():
        assert 4 <= config.num_layers <= 6
        assert config.d_model in (512, 640, 768)
        assert config.dim_feedforward == 4 * config.d_model
    assert all(config.num_layers in (4, 6) for name, config in configs.items() if "near" in name)  # one step


def test_a_size_that_is_not_searched_is_kept():
    before = stage(width=1.5)
    _, configs = begun(STAGE2, before)
    assert {config.d_model for config in configs.values()} == {768}
    wide = stage(dim_feedforward=1024)
    assert {config.dim_feedforward for config in begun(STAGE2, wide)[1].values()} == {1024}


def test_a_best_outside_the_next_range_begins_at_its_nearest_end_and_that_is_said():
    before = stage(lr=5.6e-4, cosine_weight=0.2, mse_weight=0.8)
    assert moved(STAGE2.bind("keypoint", F, 100), before) == {"cosine_weight": (0.2, 0.3), "lr": (5.6e-4, 5e-4)}
    _, configs = begun(STAGE2, before)
    best = configs["stage1-lr-best"]
    assert (best.lr, best.cosine_weight, best.mse_weight) == (5e-4, 0.3, 0.7)
    assert moved(STAGE2.bind("keypoint", F, 100), stage(lr=4e-4)) == {}


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [
        (FloatDistribution(1e-5, 1e-3, log=True), 0.0, 1e-5),
        (FloatDistribution(0.0, 0.5), 0.7, 0.5),
        (IntDistribution(4, 6), 2, 4),
        (IntDistribution(4, 6), 5, 5),
        (CategoricalDistribution([1.0, 1.25, 1.5]), 1.4, 1.5),
        (CategoricalDistribution(["radians"]), "degrees", "radians"),
        (CategoricalDistribution([False, True]), True, True),
    ],
)
def test_the_nearest_value_of_a_space(row, value, expected):
    assert nearest(row, value) == expected


def test_a_space_of_few_points_has_as_many_neighbours_as_there_are(tmp_path):
    file = file_of(tmp_path, "[space]\nuse_pose_attention = [false, true]\nnhead = [8]\n")
    _, configs = begun(file, stage())
    assert [config.use_pose_attention for config in configs.values()] == [False, True]


def test_every_stage_of_the_guide_can_follow_every_other():
    names = ("stage1-lr", "stage2-loss", "stage3-capacity", "default")
    for name in names:
        for preset in PRESETS:
            config = resolve(PRESETS[preset], feature_size=F, epochs=100, layout="keypoint")
            followed, configs = begun(study_file.read(name), WarmStart("before", 0, 0.6, config.to_dict()))
            followed.check()
            assert len(configs) == 5


# What is found in a storage


@pytest.fixture
def place(tmp_path):
    with Storage.parse(f"sqlite:///{(tmp_path / 'studies.db').as_posix()}").opened(create=True) as opened:
        yield opened


def found(storage, data, file, name="next", before="first", layout="keypoint"):
    return find(storage, name, before, data, file, Settings(layout, 2, None))


def test_what_is_taken_over_is_the_best_trial_of_the_study_named(place, quick, data):
    first = search_in(place, quick, data, name="first").study
    add_trial(first, "COMPLETE", [0.5, 0.6], lr=1e-3)
    add_trial(first, "COMPLETE", [0.7], lr=2e-3, retried_without_amp=True)
    taken = found(place, data, quick)
    assert (taken.study, taken.trial, taken.value) == ("first", 1, 0.7)
    assert taken.config["lr"] == 2e-3
    assert WarmStart.of({"from": taken.to_attr()}) == taken
    assert str(taken) == "first, trial 1, cosine 0.7000"
    assert found(place, data, quick, before=None) is None


def test_a_study_goes_on_from_what_it_is_stored_with_whatever_became_of_the_other(place, quick, data):
    first = search_in(place, quick, data, name="first").study
    add_trial(first, "COMPLETE", [0.5], lr=1e-3)
    taken = found(place, data, quick)
    search_in(place, follow(quick.bind("keypoint", 16, 2), taken, 42), data, name="next", stage=taken)
    add_trial(first, "COMPLETE", [0.9], lr=5e-3)
    assert found(place, data, quick) == found(place, data, quick, before=None) == taken


def refused(*arguments, **options):
    with pytest.raises(StudyError) as caught:
        found(*arguments, **options)
    return caught.value.message, caught.value.hint


def test_every_study_that_cannot_be_followed_is_refused_with_the_reason(place, quick, data):
    search_in(place, quick, data, name="first")
    assert refused(place, data, quick, before="frist") == (
        "no study named 'frist'; did you mean 'first'?",
        "this storage holds first",
    )
    assert refused(place, data, quick) == (
        "study 'first' has no completed trial yet",
        "let `face3d-tune run` complete one first",
    )
    assert refused(place, data, quick, name="new", before="new")[0] == "study 'new' cannot follow itself"
    assert refused(place, data, quick, layout="pose") == (
        "study 'first' was made with layout = keypoint, now it is pose",
        "add --layout keypoint",
    )
    our_study(place, "foreign")
    message, hint = refused(place, data, quick, before="foreign")
    assert message.startswith("study 'foreign' was made on other data: faces, 12 people")
    assert hint == "give the data it was made on; its best need not be good for others"


def test_a_study_cannot_be_given_another_stage_before_it_once_it_has_begun(place, quick, data):
    first = search_in(place, quick, data, name="first").study
    add_trial(first, "COMPLETE", [0.5])
    taken = found(place, data, quick)
    search_in(place, follow(quick.bind("keypoint", 16, 2), taken, 42), data, name="next", stage=taken)
    hint = "omit --from to continue it, or start another study with --study-name NEW"
    assert refused(place, data, quick, before="other") == ("study 'next' follows 'first', not 'other'", hint)
    assert refused(place, data, quick, name="first", before="next") == ("study 'first' follows no other", hint)
