"""The record of one training: its defaults, what it refuses, how values are completed, and the documented presets."""

import json
from dataclasses import FrozenInstanceError, fields
from typing import get_type_hints

import pytest

from face3d_tune.config import ABOUT, DEFAULTS, PARAMETERS, About, TrialConfig, check_type, resolve
from face3d_tune.errors import ConfigError
from face3d_tune.study.presets import PRESETS

NAN, INFINITY = float("nan"), float("inf")


def make(**values):
    return TrialConfig(**{"d_model": 512, "dim_feedforward": 2048, **values})


def completed(values, feature_size=16):
    return resolve(values, feature_size=feature_size, epochs=3, layout="keypoint")


# What the documented script cannot do, at the value that does what it does.
SCRIPT_HAS_NOT = {
    "inputs": "view",
    "optimizer": "adamw",
    "scheduler_type": "plateau",
    "warmup_epochs": 0,
    "focal_gamma": 0.0,
    "angle_weight": 0.0,
    "identity_weight": 0.0,
    "identity_temperature": 0.1,
    "oversampling": 0.0,
    "view_mixing": 0.0,
    "feature_noise": 0.0,
    "pose_jitter": 0.0,
    "landmark_noise": 0.0,
}


def test_defaults_are_those_of_the_documented_script():
    # trainer contract §3, §4 and §6 (row `baseline`), written out once more.
    assert make().to_dict() == {
        "d_model": 512,
        "dim_feedforward": 2048,
        "layout": "keypoint",
        "nhead": 8,
        "num_layers": 4,
        "dropout": 0.1,
        "use_spatial_attention": False,
        "use_pose_attention": False,
        "pose_unit": "degrees",
        "batch_size": 32,
        "epochs": 100,
        "lr": 1e-4,
        "weight_decay": 1e-5,
        "mse_weight": 0.5,
        "cosine_weight": 0.5,
        "loss_type": "combined",
        "scheduler_factor": 0.5,
        "scheduler_patience": 5,
        "scheduler_min_lr": 0.0,
        "early_stopping_patience": 0,
        "early_stopping_min_delta": 1e-5,
        "use_mixed_precision": False,
        **SCRIPT_HAS_NOT,
    }


def test_what_a_hash_is_made_of_says_nothing_of_a_later_field_at_its_default():
    values = make().to_dict()
    assert make().identity() == {name: value for name, value in values.items() if name not in SCRIPT_HAS_NOT}
    chosen = {"optimizer": "adam", "scheduler_type": "cosine", "inputs": "ridge"}
    for name, value in {**dict.fromkeys(SCRIPT_HAS_NOT, 1), **chosen}.items():
        assert make(**{name: value}).identity() == {**make().identity(), name: value}


OUT_OF_RANGE = {
    "d_model": [0, -8],
    "dim_feedforward": [0],
    "nhead": [0, -1],
    "num_layers": [0],
    "dropout": [-0.01, 1.0, 1, NAN, INFINITY],
    "batch_size": [1, 0],
    "epochs": [0],
    "lr": [0.0, -1e-4, NAN, INFINITY],
    "weight_decay": [-1e-9, NAN, INFINITY],
    "mse_weight": [-0.1, NAN, INFINITY],
    "cosine_weight": [-0.1, NAN, INFINITY],
    "scheduler_factor": [0.0, 1.0, 1.5, -0.5, NAN],
    "scheduler_patience": [-1],
    "scheduler_min_lr": [-1e-9, NAN, INFINITY],
    "early_stopping_patience": [-1],
    "early_stopping_min_delta": [-1e-9, NAN, INFINITY],
    "warmup_epochs": [-1],
    "view_mixing": [-0.01, 1.01, NAN, INFINITY],
    "identity_weight": [-0.01, 1.01, NAN, INFINITY],
    "identity_temperature": [0.0, -0.1, NAN, INFINITY],
    **{
        name: [-1e-9, NAN, INFINITY]
        for name in ("focal_gamma", "angle_weight", "oversampling", "feature_noise", "pose_jitter", "landmark_noise")
    },
}
WRONG_TYPE = {
    "whole number": (
        [
            *("d_model", "dim_feedforward", "nhead", "num_layers", "batch_size", "epochs"),
            *("scheduler_patience", "early_stopping_patience", "warmup_epochs"),
        ],
        [8.0, "8", None, True, [8]],
    ),
    "number": (
        [
            *("dropout", "lr", "weight_decay", "mse_weight", "cosine_weight", "scheduler_factor", "scheduler_min_lr"),
            *("early_stopping_min_delta", "focal_gamma", "angle_weight", "oversampling", "view_mixing"),
            *("feature_noise", "pose_jitter", "landmark_noise", "identity_weight", "identity_temperature"),
        ],
        ["0.5", None, True, [0.5]],
    ),
    "true or false": (["use_spatial_attention", "use_pose_attention", "use_mixed_precision"], [0, 1, "true", None]),
    "one of": (
        ["layout", "inputs", "pose_unit", "loss_type", "optimizer", "scheduler_type"],
        ["other", "", True, 1, None, ["mse"]],
    ),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in OUT_OF_RANGE for value in OUT_OF_RANGE[name]])
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigError) as caught:
        make(**{name: value})
    assert caught.value.message.startswith(f"{name} = {value!r} is out of range; expected ")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [(name, value, word) for word, (names, values) in WRONG_TYPE.items() for name in names for value in values],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(name, value, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        make(**{name: value})
    assert caught.value.message.startswith(f"{name} = {value!r} ")


def test_every_field_is_in_one_of_the_tables_of_refused_values():
    refused = {name for names, _ in WRONG_TYPE.values() for name in names}
    assert refused == {field.name for field in fields(TrialConfig)}
    number_fields = {name for word in ("whole number", "number") for name in WRONG_TYPE[word][0]}
    assert set(OUT_OF_RANGE) == number_fields


@pytest.mark.parametrize(
    "values",
    [
        {"d_model": 1, "nhead": 1, "dim_feedforward": 1, "num_layers": 1, "batch_size": 2, "epochs": 1},
        {"dropout": 0.0},
        {"dropout": 0.999},
        {"dropout": 0, "lr": 1, "weight_decay": 0},  # a whole number may stand for a number
        {"scheduler_factor": 0.999, "scheduler_patience": 0, "scheduler_min_lr": 0.0},
        {"early_stopping_patience": 0, "early_stopping_min_delta": 0.0},
        {"mse_weight": 0.0},
        {"cosine_weight": 0.0},
        {"layout": "pose", "pose_unit": "radians", "loss_type": "mse"},
        {"loss_type": "cosine", "mse_weight": 0.0, "cosine_weight": 0.0},  # such a loss does not use the weights
        {"use_spatial_attention": True, "use_pose_attention": True, "use_mixed_precision": True},
    ],
    ids=str,
)
def test_values_on_the_edge_of_their_range_are_taken(values):
    assert make(**values).to_dict() == make().to_dict() | values


def test_a_combined_loss_needs_a_weight():
    with pytest.raises(ConfigError, match="mse_weight and cosine_weight are both 0"):
        make(mse_weight=0.0, cosine_weight=0.0)


def test_spatial_attention_needs_the_layout_that_has_it():
    with pytest.raises(ConfigError, match="use_spatial_attention = true needs layout = keypoint"):
        make(layout="pose", use_spatial_attention=True)


def test_heads_that_do_not_divide_the_model_are_refused_with_the_numbers_that_do():
    with pytest.raises(ConfigError, match="nhead = 8 does not divide d_model = 20") as caught:
        make(d_model=20)
    assert caught.value.hint == "use one of 1, 2, 4, 5, 10, 20"


def test_a_config_cannot_be_changed_after_it_was_checked():
    with pytest.raises(FrozenInstanceError):
        make().lr = 1.0


def test_a_config_comes_back_from_its_plain_values_also_by_way_of_json():
    config = make(lr=3.3e-5, use_pose_attention=True, pose_unit="radians", layout="pose", mse_weight=0.1)
    values = config.to_dict()
    assert TrialConfig(**values) == config
    assert TrialConfig(**json.loads(json.dumps(values))) == config
    assert TrialConfig(**{**values, "lr": 3.4e-5}) != config


def test_what_the_data_decides_follows_from_its_feature_size():
    config = completed({})
    assert (config.d_model, config.dim_feedforward) == (16, 64)
    assert (config.epochs, config.layout) == (3, "keypoint")
    config = completed({}, feature_size=512)
    assert (config.d_model, config.dim_feedforward) == (512, 2048)  # trainer contract §3


def test_a_given_size_is_kept_and_the_feedforward_size_follows_it():
    assert completed({"d_model": 24}).dim_feedforward == 96
    config = completed({"d_model": 24, "dim_feedforward": 7})
    assert (config.d_model, config.dim_feedforward) == (24, 7)


@pytest.mark.parametrize(
    ("width", "feature_size", "nhead", "d_model"),
    [
        (1.5, 512, 8, 768),  # the guide's stage 3
        (1.0, 512, 8, 512),
        (0.5, 512, 8, 256),
        (1, 16, 2, 16),  # a whole number may stand for a number
        (1.3, 16, 4, 20),  # 20.8 is nearest to 5 · 4
        (1.4, 16, 4, 24),  # 22.4 is nearest to 6 · 4
        (0.01, 16, 4, 4),  # at least one number per head
        (1.0, 100, 8, 96),  # 12.5 heads of 8: the even one, as Python rounds
    ],
)
def test_width_is_a_multiple_of_the_feature_size_rounded_to_whole_heads(width, feature_size, nhead, d_model):
    config = completed({"width": width, "nhead": nhead}, feature_size)
    assert (config.d_model, config.dim_feedforward) == (d_model, 4 * d_model)


def test_width_beside_d_model_is_refused():
    with pytest.raises(ConfigError, match="width and d_model are both set"):
        completed({"width": 1.0, "d_model": 16})


@pytest.mark.parametrize("width", [0.0, -1.0, NAN, INFINITY])
def test_a_width_out_of_range_is_refused_by_name(width):
    with pytest.raises(ConfigError, match=r"^width = .* is out of range"):
        completed({"width": width})


@pytest.mark.parametrize("nhead", [0, -2])
def test_a_number_of_heads_out_of_range_is_refused_by_name_beside_a_width(nhead):
    with pytest.raises(ConfigError, match=f"^nhead = {nhead} is out of range"):
        completed({"width": 1.0, "nhead": nhead})


def test_the_mse_weight_is_the_rest_to_1_unless_it_is_given():
    config = completed({"cosine_weight": 0.75})
    assert (config.mse_weight, config.cosine_weight) == (0.25, 0.75)
    assert completed({"cosine_weight": 0.75, "mse_weight": 0.5}).mse_weight == 0.5
    assert completed({"cosine_weight": 1}).mse_weight == 0
    assert completed({"mse_weight": 0.3}).cosine_weight == 0.5  # the script's default
    assert completed({}).mse_weight == 0.5


def test_whole_numbers_given_for_numbers_become_numbers():
    assert [type(completed({name: 1}).to_dict()[name]) for name in ("lr", "weight_decay")] == [float, float]


def test_a_wrong_type_is_refused_before_anything_follows_from_it():
    for name, value in (("width", "1.0"), ("cosine_weight", "0.5"), ("nhead", True), ("d_model", 1.5)):
        with pytest.raises(ConfigError, match=f"^{name} = {value!r} has the wrong type"):
            completed({name: value})


def test_a_study_sets_every_field_but_those_of_a_whole_run():
    assert set(PARAMETERS) == {field.name for field in fields(TrialConfig)} - {"epochs", "layout"} | {"width"}
    check_type("epochs", 3)
    with pytest.raises(ConfigError, match=r"^epochs = 3\.0 has the wrong type; expected a whole number"):
        check_type("epochs", 3.0)


# trainer contract §6: lr, mse weight, cosine weight, factor, patience, min_lr, early stopping patience, AMP, attention.
DOCUMENTED = {
    "baseline": (1e-4, 0.5, 0.5, 0.5, 5, 0, 0, False, False),
    "recommended": (5e-5, 0.3, 0.7, 0.2, 3, 1e-7, 15, True, False),
    "aggressive": (2e-5, 0.2, 0.8, 0.1, 2, 5e-8, 10, True, True),
    "conservative": (5e-5, 0.4, 0.6, 0.3, 4, 1e-7, 20, False, False),
}


@pytest.mark.parametrize("name", [*DOCUMENTED, "quickstart"])
def test_a_preset_has_exactly_the_documented_values(name):
    lr, mse, cosine, factor, patience, min_lr, stop, amp, attention = DOCUMENTED.get(name, DOCUMENTED["recommended"])
    config = resolve(PRESETS[name], feature_size=512, epochs=100, layout="keypoint")
    assert config.to_dict() == {
        "d_model": 512,
        "dim_feedforward": 2048,
        "layout": "keypoint",
        "nhead": 8,
        "num_layers": 4,
        "dropout": 0.1,
        "use_spatial_attention": attention,
        "use_pose_attention": attention,
        "pose_unit": "degrees",
        "batch_size": 32,
        "epochs": 100,
        "lr": lr,
        "weight_decay": 1e-5,
        "mse_weight": mse,
        "cosine_weight": cosine,
        "loss_type": "combined",
        "scheduler_factor": factor,
        "scheduler_patience": patience,
        "scheduler_min_lr": min_lr,
        "early_stopping_patience": stop,
        "early_stopping_min_delta": 1e-5,
        "use_mixed_precision": amp,
        **SCRIPT_HAS_NOT,
    }


def test_there_are_five_presets_and_quickstart_equals_recommended():
    assert list(PRESETS) == ["baseline", "recommended", "aggressive", "conservative", "quickstart"]
    assert PRESETS["quickstart"] == PRESETS["recommended"]
    resolved = {str(sorted(preset.items())) for preset in PRESETS.values()}
    assert len(resolved) == 4


def test_a_preset_names_the_same_parameters_as_every_other_and_only_parameters():
    names = {frozenset(preset) for preset in PRESETS.values()}
    assert len(names) == 1
    assert next(iter(names)) <= set(PARAMETERS)


def test_the_presets_cannot_be_replaced():
    with pytest.raises(TypeError):
        PRESETS["baseline"] = {}


def test_a_cosine_weight_above_1_needs_an_mse_weight_beside_it():
    with pytest.raises(ConfigError, match=r"cosine_weight = 1\.2 is above 1"):
        resolve({"cosine_weight": 1.2}, feature_size=16, epochs=1, layout="keypoint")
    both = resolve({"cosine_weight": 1.2, "mse_weight": 0.5}, feature_size=16, epochs=1, layout="keypoint")
    assert (both.mse_weight, both.cosine_weight) == (0.5, 1.2)


def test_what_is_known_of_a_parameter_stands_with_its_field():
    assert {name for name, about in ABOUT.items() if about.ours} <= {
        name for name, about in ABOUT.items() if about.later and about.optional
    }
    ranges = {name for name, about in ABOUT.items() if about.low is not None or about.above is not None}
    assert ranges == {name for name, kind in get_type_hints(TrialConfig).items() if kind in (int, float)}
    assert all(ABOUT[name].expected(value) is None for name, value in DEFAULTS.items() if name in ranges)


@pytest.mark.parametrize(
    ("about", "value", "expected"),
    [
        (About(low=1), 0, "a number of at least 1"),
        (About(above=0), NAN, "a number above 0"),
        (About(low=0, high=1), 1.5, "at least 0 and at most 1"),
        (About(low=0, below=1), 1.0, "at least 0 and below 1"),
        (About(above=0, below=1), 0.0, "above 0 and below 1"),
        (About(low=0, high=1), 1.0, None),
        (About(low=0), INFINITY, "a number of at least 0"),
    ],
)
def test_a_range_says_what_it_expects_of_a_value_outside_it(about, value, expected):
    assert about.expected(value) == expected
