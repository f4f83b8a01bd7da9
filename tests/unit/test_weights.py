"""What names and shapes of a checkpoint's weights say about its model, tried with a model written independently."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from reference_model import ReferenceModel

from face3d_tune.config import TrialConfig
from face3d_tune.training import weights
from face3d_tune.training.model import Model

F = 16
CONFIG = TrialConfig(d_model=24, dim_feedforward=40, nhead=2, num_layers=2)
SIZES = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout")
SHOWN = ("layout", "use_spatial_attention", "use_pose_attention")
KINDS = [
    dict(zip(SHOWN, kind, strict=True))
    for kind in product(("keypoint", "pose"), (False, True), (False, True))
    if kind[:2] != ("pose", True)
]


def theirs(config, feature_size=F):
    """The state dict of the users' model, in the reference implementation."""
    return ReferenceModel(
        feature_size=feature_size, **{name: getattr(config, name) for name in (*SIZES, *SHOWN)}
    ).state_dict()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_sizes_layout_and_flags_are_read_from_a_checkpoint_of_theirs(kind):
    config = replace(CONFIG, **kind)
    expected = {"feature_size": 16, "d_model": 24, "dim_feedforward": 40, "num_layers": 2, **kind}
    assert weights.structure(theirs(config)) == expected
    assert weights.differences(theirs(config), config, F) == []


DIFFERENCES = {
    "another layout": ({"layout": "pose"}, ["layout = pose, not keypoint"]),
    "a layout without a part that was asked for": (
        {"layout": "pose", "use_spatial_attention": True},
        ["layout = pose, not keypoint"],
    ),
    "more layers": ({"num_layers": 4}, ["num_layers = 4, not 2"]),
    "another width": ({"d_model": 32}, ["d_model = 32, not 24"]),
    "two at once": (
        {"dim_feedforward": 96, "use_pose_attention": True},
        ["dim_feedforward = 96, not 40", "use_pose_attention = true, not false"],
    ),
}


@pytest.mark.parametrize("why", DIFFERENCES)
def test_a_difference_in_a_setting_is_told_by_the_setting_alone(why):
    changes, told = DIFFERENCES[why]
    asked = replace(CONFIG, use_spatial_attention=changes.pop("use_spatial_attention", False))
    assert weights.differences(theirs(replace(CONFIG, **changes)), asked, F) == told


def test_what_no_setting_explains_is_told_by_names_and_shapes():
    odd = theirs(CONFIG)
    odd["pose_encoder.0.weight"] = torch.zeros(128, 4)
    del odd["angle_pe.scale"]
    odd["extra.weight"] = odd["extra.bias"] = odd["more.weight"] = odd["more.bias"] = torch.zeros(1)
    assert weights.differences(odd, CONFIG, F) == [
        "it lacks angle_pe.scale",
        "it also has extra.weight, extra.bias and 2 more",
        "pose_encoder.0.weight has the shape [128, 4], not [128, 3]",
    ]


def test_another_kind_of_model_is_told_by_what_it_has_and_lacks():
    other = torch.nn.Linear(4, 4).state_dict()
    assert weights.structure(other) == {}
    lacks, has = weights.differences(other, CONFIG, F)
    lacking = len(theirs(CONFIG))
    # The model's own parameter comes before those of its parts, as in every state dict.
    assert lacks == f"it lacks fusion_weights, input_projection.weight and {lacking - 2} more"
    assert has == "it also has weight, bias"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_a_wrapped_model_are_those_of_the_model(prefix):
    wrapped = {prefix + name: weight for name, weight in theirs(CONFIG).items()}
    assert list(weights.unwrapped(wrapped)) == list(theirs(CONFIG))


def test_names_that_torch_itself_puts_before_a_models_are_taken_away():
    model = ReferenceModel(feature_size=F, **{name: getattr(CONFIG, name) for name in (*SIZES, *SHOWN)})
    held = torch.nn.DataParallel(model).state_dict()
    assert all(name.startswith("module.") for name in held)
    assert weights.differences(weights.unwrapped(held), CONFIG, F) == []


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ({"model_state_dict": {"a": torch.zeros(1)}, "model": 3}, ["a"]),
        ({"state_dict": {"module.a": torch.zeros(1)}}, ["a"]),
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, ["a"]),
        ({"a": torch.zeros(1), "b": torch.zeros(1)}, ["a", "b"]),
    ],
)
def test_weights_are_found_where_scripts_keep_them(held, names):
    assert list(weights.find(held)) == names


@pytest.mark.parametrize("held", [{}, {"model": {}}, {"model_state_dict": {"a": 1}}, {3: torch.zeros(1)}])
def test_what_holds_no_weights_has_none(held):
    assert weights.find(held) is None


def test_a_model_of_any_size_is_compared_without_memory_for_it():
    huge = replace(CONFIG, d_model=2**20, dim_feedforward=2**22, num_layers=3)  # 200 TB in float32
    model = Model(huge, F, None)
    assert {weight.device.type for weight in model.state_dict().values()} == {"meta"}
    assert weights.structure(model.state_dict())["d_model"] == 2**20
    assert weights.differences(model.state_dict(), huge, F) == []
