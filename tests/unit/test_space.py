"""The search space: what each kind of row in a study file becomes, and which rows are refused."""

import math
from random import Random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from face3d_tune.errors import ConfigError
from face3d_tune.study import space

RANGE = FloatDistribution(0.0, 0.5)
LOG_RANGE = FloatDistribution(1e-5, 3e-3, log=True)
WHOLE_RANGE = IntDistribution(1, 8)
CHOICE = CategoricalDistribution(("degrees", "radians"))


@pytest.mark.parametrize(
    ("name", "row", "distribution"),
    [
        ("dropout", {"low": 0.0, "high": 0.5}, RANGE),
        ("dropout", {"low": 0, "high": 0.5, "scale": "linear"}, RANGE),
        ("lr", {"low": 1e-5, "high": 3e-3, "scale": "log"}, LOG_RANGE),
        ("scheduler_patience", {"low": 1, "high": 8}, WHOLE_RANGE),
        ("batch_size", {"low": 8, "high": 64, "scale": "log"}, IntDistribution(8, 64, log=True)),
        ("dropout", {"low": 0.1, "high": 0.1}, FloatDistribution(0.1, 0.1)),
        ("use_pose_attention", [False, True], CategoricalDistribution((False, True))),
        ("pose_unit", ["degrees", "radians"], CHOICE),
        ("nhead", [2, 4, 8], CategoricalDistribution((2, 4, 8))),
        ("width", [1, 1.5], CategoricalDistribution((1.0, 1.5))),
    ],
)
def test_a_row_becomes_a_distribution_of_the_parameters_own_type(name, row, distribution):
    assert space.parse(name, row) == distribution


def test_a_whole_number_among_the_choices_of_a_number_is_that_number():
    choices = space.parse("scheduler_min_lr", [0, 1e-7]).choices
    assert choices == (0.0, 1e-7)
    assert [type(choice) for choice in choices] == [float, float]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("lr", [], "lr = [] has no choice; expected at least one value"),
        ("lr", ["fast"], "lr = 'fast' has the wrong type; expected a number"),
        ("lr", [True], "lr = True has the wrong type; expected a number"),
        ("nhead", [8, 4.0], "nhead = 4.0 has the wrong type; expected a whole number"),
        ("use_pose_attention", [0, 1], "use_pose_attention = 0 has the wrong type; expected true or false"),
        ("pose_unit", ["degrees", "turns"], "pose_unit = 'turns' is unknown; expected one of degrees, radians"),
        ("lr", 1e-4, "lr = 0.0001 is not a range; expected { low = …, high = … } or a list of choices"),
        ("lr", "log", "lr = 'log' is not a range; expected { low = …, high = … } or a list of choices"),
        ("lr", {"low": 1.0, "hi": 2.0}, "lr: unknown key 'hi'; expected low, high, scale"),
        ("lr", {"low": 1.0}, "lr: high is missing; expected { low = …, high = … }"),
        ("lr", {}, "lr: high is missing; expected { low = …, high = … }"),
        ("lr", {"low": "a", "high": 1.0}, "lr = 'a' has the wrong type; expected a number"),
        ("nhead", {"low": 1, "high": 8.0}, "nhead = 8.0 has the wrong type; expected a whole number"),
        ("lr", {"low": 1.0, "high": 2.0, "scale": "cubic"}, "lr: scale = 'cubic' is unknown; expected linear or log"),
        ("lr", {"low": 2.0, "high": 1.0}, "lr: low = 2.0 is above high = 1.0"),
        ("lr", {"low": math.nan, "high": 1.0}, "lr: low = nan is above high = 1.0"),
        ("lr", {"low": 0.0, "high": 1.0, "scale": "log"}, "lr: low = 0.0 is not above 0, which a log scale needs"),
        ("nhead", {"low": 0, "high": 8, "scale": "log"}, "nhead: low = 0 is not above 0, which a log scale needs"),
        ("loss_type", {"low": 0, "high": 1}, "loss_type has no order, so no range; expected a list of choices"),
        (
            "use_pose_attention",
            {"low": False, "high": True},
            "use_pose_attention has no order, so no range; expected a list of choices",
        ),
        (
            "nhead",
            {"low": 1, "high": 2**53 + 1},
            "nhead: low or high is beyond 2**53, where whole numbers are no longer exact",
        ),
        (
            "lr",
            {"low": -1e308, "high": 1e308},
            "lr: the range from low = -1e+308 to high = 1e+308 is too wide for a float",
        ),
        (
            "lr",
            {"low": 0, "high": 10**400},
            "lr is a whole number that no float can hold; expected at most 1e308",
        ),
    ],
)
def test_a_row_that_says_nothing_sensible_is_refused_with_its_name_and_the_reason(name, row, message):
    with pytest.raises(ConfigError) as caught:
        space.parse(name, row)
    assert caught.value.message == message


def test_a_range_of_texts_is_refused():
    with pytest.raises(ConfigError, match=r"^mode has no order, so no range; expected a list of choices$"):
        space.parse("mode", {"low": "a", "high": "b"}, str)


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (RANGE, [0.0, 0.1, 0.5, 0], [-0.1, 0.50001, math.nan]),
        (LOG_RANGE, [1e-5, 3e-3], [0.0, 9e-6]),
        (WHOLE_RANGE, [1, 8, 2.0], [0, 9, 2.5, "2", None]),
        (CHOICE, ["radians"], ["turns", 0]),
        (CategoricalDistribution((False, True)), [True], [1, 0, 1.0]),
        (CategoricalDistribution((2, 4)), [2], [2.0, 3, True]),
    ],
)
def test_a_value_is_inside_a_space_if_the_search_could_choose_it(distribution, inside, outside):
    assert [space.contains(distribution, value) for value in inside] == [True] * len(inside)
    assert [space.contains(distribution, value) for value in outside] == [False] * len(outside)


def test_what_a_trial_is_asked_for_is_what_the_row_says():
    rows = {"dropout": RANGE, "lr": LOG_RANGE, "scheduler_patience": WHOLE_RANGE, "pose_unit": CHOICE}
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    values = {name: space.suggest(trial, name, row) for name, row in rows.items()}
    assert trial.distributions == rows
    assert all(space.contains(rows[name], value) for name, value in values.items())
    assert [type(value) for value in values.values()] == [float, float, int, str]


def test_a_queued_value_is_what_a_trial_gets():
    study = optuna.create_study()
    study.enqueue_trial({"dropout": 0.25, "scheduler_patience": 3, "pose_unit": "radians"})
    trial = study.ask()
    assert space.suggest(trial, "dropout", RANGE) == 0.25
    assert space.suggest(trial, "scheduler_patience", WHOLE_RANGE) == 3
    assert space.suggest(trial, "pose_unit", CHOICE) == "radians"


@pytest.mark.parametrize(
    ("distribution", "text", "ends"),
    [
        (LOG_RANGE, "1e-05 … 0.003 (log)", (1e-5, 3e-3)),
        (RANGE, "0.0 … 0.5", (0.0, 0.5)),
        (WHOLE_RANGE, "1 … 8", (1, 8)),
        (CHOICE, "degrees | radians", ("degrees", "radians")),
        (CategoricalDistribution((False, True)), "false | true", (False, True)),
    ],
)
def test_a_row_has_a_short_text_and_ends_that_can_be_checked(distribution, text, ends):
    assert space.describe(distribution) == text
    assert space.ends(distribution) == ends


@pytest.mark.parametrize(
    "ask",
    [
        space.describe,
        space.ends,
        lambda other: space.contains(other, 1),
        lambda other: space.suggest(None, "x", other),
        lambda other: space.neighbour(other, 1, Random(0)),
    ],
)
def test_a_distribution_that_no_study_file_can_name_is_an_error_of_the_programmer(ask):
    class Other(optuna.distributions.BaseDistribution):
        def to_internal_repr(self, value):
            return value

        def single(self):
            return False

        def _contains(self, value):
            return True

    with pytest.raises(TypeError, match="no such distribution"):
        ask(Other())


def test_values_are_cut_into_what_optuna_is_told_and_what_overrides_the_search():
    rows = {"lr": LOG_RANGE, "weight_decay": LOG_RANGE, "pose_unit": CHOICE}
    values = {"lr": 1e-4, "weight_decay": 0.0, "pose_unit": "degrees", "dropout": 0.2}
    told, overrides = space.cut(rows, values)
    assert told == {"lr": 1e-4, "pose_unit": "degrees"}
    assert overrides == {"dropout": 0.2, "weight_decay": 0.0}


@pytest.mark.parametrize(("name", "row", "value"), [("lr", LOG_RANGE, 0.5), ("dropout", RANGE, -0.0001)])
def test_a_value_outside_the_space_is_refused_by_name(name, row, value):
    with pytest.raises(ConfigError, match=f"{name} = {value} is outside the search space") as refusal:
        space.cut({name: row}, {name: value})
    assert refusal.value.hint == f"widen space.{name}"
