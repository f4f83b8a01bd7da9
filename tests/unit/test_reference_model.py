"""The torch and the numpy statement of the model check each other."""

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel, reference_forward

SIZES = {"feature_size": 12, "d_model": 16, "nhead": 4, "num_layers": 2, "dim_feedforward": 24, "dropout": 0.3}
SHAPES = [
    {"layout": layout, "use_spatial_attention": spatial, "use_pose_attention": pose}
    for layout in ("keypoint", "pose")
    for spatial in (False, True)
    for pose in (False, True)
    if not (layout == "pose" and spatial)
]
ALL_PARTS = {"layout": "keypoint", "use_spatial_attention": True, "use_pose_attention": True}


def a_model(**shape):
    """A model in float64 in which nothing, biases and running statistics included, is at its neutral value."""
    torch.manual_seed(5)
    model = ReferenceModel(**SIZES, **shape).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return model


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(6)
    return [torch.randn(7, *size, generator=generator, dtype=dtype) for size in ((12,), (5, 3), (3,))]


def both(model, state=None, **shape):
    arrays = {name: tensor.numpy() for name, tensor in (state or model.state_dict()).items()}
    with torch.no_grad():
        said = model(*inputs()).numpy()
    return said, reference_forward(arrays, *(tensor.numpy() for tensor in inputs()), nhead=4, **shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_torch_and_the_numpy_statement_agree(shape):
    torch_says, numpy_says = both(a_model(**shape), **shape)
    assert numpy_says.dtype == np.float64
    assert np.abs(torch_says - numpy_says).max() < 1e-10


def test_they_disagree_when_any_live_weight_is_spoiled():
    model = a_model(**ALL_PARTS)
    dead = (
        "num_batches",
        "pose_to_key",
        "feature_to_query",
    )  # a counter, and what one-token attention cannot feel
    for name, tensor in model.state_dict().items():
        if not any(part in name for part in dead):
            spoiled = {**model.state_dict(), name: tensor + 0.01 * torch.randn_like(tensor)}
            torch_says, numpy_says = both(model, spoiled, **ALL_PARTS)
            assert np.abs(torch_says - numpy_says).max() > 1e-6, name


def test_query_and_key_projections_change_nothing_and_get_no_gradient():
    model = a_model(**ALL_PARTS)
    model(*inputs()).square().sum().backward()
    attention = model.transformer_decoder.layers[0].self_attn.in_proj_weight.grad
    assert attention[: 2 * 16].abs().max() < 1e-12
    assert attention[2 * 16 :].abs().max() > 1e-3
    assert model.pose_attention.pose_to_key.weight.grad.abs().max() < 1e-12


def test_the_names_are_those_of_the_table():
    names = set(a_model(**ALL_PARTS).state_dict())
    linear = [
        "input_projection",
        "spatial_fusion.keypoint_encoder.0",
        "spatial_fusion.keypoint_encoder.2",
        "spatial_fusion.attention_generator.0",
        "spatial_fusion.attention_generator.2",
        "pose_attention.pose_to_key",
        "pose_attention.pose_to_value",
        "pose_attention.feature_to_query",
        "keypoint_encoder.0",
        "keypoint_encoder.1",
        "keypoint_encoder.4",
        "pose_encoder.0",
        "pose_encoder.2",
        "angle_pe.angle_projection",
        "angle_conditioned_norm.angle_to_scale.0",
        "angle_conditioned_norm.angle_to_scale.2",
        "angle_conditioned_norm.angle_to_shift.0",
        "angle_conditioned_norm.angle_to_shift.2",
        "angle_conditioned_norm.layer_norm",
        "angle_memory_projection",
        "output_projection",
    ]
    expected = {f"{name}.{part}" for name in linear for part in ("weight", "bias")}
    expected |= {f"keypoint_encoder.1.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    expected |= {"fusion_weights", "angle_pe.scale"}
    for i in (0, 1):
        layer = f"transformer_decoder.layers.{i}"
        for name in ("linear1", "linear2", "norm1", "norm2", "norm3", "self_attn.out_proj", "multihead_attn.out_proj"):
            expected |= {f"{layer}.{name}.weight", f"{layer}.{name}.bias"}
        for name in ("self_attn", "multihead_attn"):
            expected |= {f"{layer}.{name}.in_proj_weight", f"{layer}.{name}.in_proj_bias"}
    assert names == expected


def test_the_pose_layout_lacks_what_reads_landmarks():
    names = a_model(layout="pose", use_spatial_attention=False, use_pose_attention=False).state_dict()
    assert not [name for name in names if name.startswith(("keypoint_encoder", "fusion", "spatial", "pose_attention"))]
