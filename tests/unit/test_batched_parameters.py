"""Where the engine keeps each number of a model: everything once, and nothing alive among the dead."""

import math
from itertools import product

import pytest
import torch

from face3d_tune.config import TrialConfig
from face3d_tune.training.batched.parameters import arrange
from face3d_tune.training.dropout import MaskStream
from face3d_tune.training.model import Model

STRUCTURES = [
    {"layout": layout, "use_spatial_attention": spatial, "use_pose_attention": pose}
    for layout, spatial, pose in product(("keypoint", "pose"), (False, True), (False, True))
    if not (layout == "pose" and spatial)
]
FEATURES = 12
everything = pytest.mark.parametrize("structure", STRUCTURES, ids=str)


def plain(structure, **values):
    sizes = {"d_model": 24, "dim_feedforward": 20, "nhead": 3, "num_layers": 2, **values}
    return Model(TrialConfig(**sizes, **structure), FEATURES, torch.Generator().manual_seed(0)).double()


def rows_of(model):
    """Live and dead layout, how many numbers are in products, and the parameters by name."""
    live, dead, products = arrange(model.config, {name: value.shape for name, value in model.state_dict().items()})
    return live, dead, products, dict(model.named_parameters())


def numbered(parameters):
    """Every number of a model replaced by one of its own, from 1."""
    counts = [value.numel() for value in parameters.values()]
    numbers = torch.arange(1.0, sum(counts) + 1, dtype=torch.float64).split(counts)
    return {name: part.view(value.shape) for (name, value), part in zip(parameters.items(), numbers, strict=True)}, sum(
        counts
    )


@everything
def test_every_number_of_a_model_has_exactly_one_place_and_comes_back_from_it(structure):
    live, dead, _, parameters = rows_of(plain(structure))
    state, count = numbered(parameters)
    rows = [torch.zeros(row.length, dtype=torch.float64) for row in (live, dead)]
    for row, numbers in zip((live, dead), rows, strict=True):
        row.write(numbers, state)
    held = torch.cat(rows)
    assert sorted(held[held != 0].tolist()) == list(range(1, count + 1))
    back = {name: torch.zeros_like(value) for name, value in state.items()}
    for row, numbers in zip((live, dead), rows, strict=True):
        row.read(numbers, back)
    assert [name for name in state if not torch.equal(state[name], back[name])] == []


@everything
def test_the_dead_are_exactly_the_parameters_that_get_no_gradient_in_the_plain_model(structure):
    model = plain(structure, dropout=0.2)
    live, dead, _, parameters = rows_of(model)
    draw = torch.Generator().manual_seed(1)
    src, landmarks, pose, pull = (
        torch.randn(512, *shape, generator=draw, dtype=torch.float64)
        for shape in ((FEATURES,), (5, 3), (3,), (FEATURES,))
    )
    pose *= 30  # so far that every unit under a ReLU is active for some pair
    model.train().draw_from(MaskStream(0, 1, torch.device("cpu")))
    (model(src, landmarks, pose) * pull).sum().backward()
    moved = {name: (value.grad != 0).double() for name, value in parameters.items()}
    without_influence = torch.zeros(dead.length, dtype=torch.float64)
    dead.write(without_influence, moved)
    assert without_influence.max() == 0
    with_influence = torch.zeros(live.length, dtype=torch.float64)
    live.write(with_influence, moved)
    still = {
        name
        for name, view in live.views(with_influence).items()
        if not view.all() and name != "keypoints0.bias"  # batch normalisation takes it away again, but for rounding
    }
    assert still == set()


@everything
def test_every_block_starts_on_a_cache_line_and_none_overlap(structure):
    live, dead, _, _ = rows_of(plain(structure))
    for row in (live, dead):
        end = 0
        for block in row.blocks.values():
            assert block.offset % 16 == 0
            assert block.offset >= end
            end = block.offset + math.prod(block.shape)
            assert block.place == slice(block.offset, end)
            assert sum(block.heights) == block.shape[0]
        assert end <= row.length
    assert live.length % 1024 == 0


@everything
def test_what_takes_part_in_products_stands_first(structure):
    live, _, products, parameters = rows_of(plain(structure))
    norms = ("batch_norm", "angle_norm", "norm1", "norm2", "norm3")
    for name, block in live.blocks.items():
        single = name in ("fusion_weights", "angle_scale") or any(f"{norm}." in name for norm in norms)
        assert (block.offset >= products) == single, name
        matrix = any(parameters[part.key].dim() > 1 for part in block.parts)
        assert not (matrix and single), name
    numbers = torch.zeros(live.length)
    assert live.views(numbers, below=products).keys() == {
        name for name, block in live.blocks.items() if block.offset < products
    }


def test_a_row_may_have_a_first_axis_of_models_and_views_write_through():
    model = plain(STRUCTURES[-1])
    live, _, _, parameters = rows_of(model)
    numbers = torch.zeros(3, live.length, dtype=torch.float64)
    live.write(numbers[1], model.state_dict())
    views = live.views(numbers)
    assert views["0.linear1.weight"].shape == (3, 20, 24)
    assert torch.equal(views["0.linear1.weight"][1], parameters["transformer_decoder.layers.0.linear1.weight"])
    stacked = [parameters[f"transformer_decoder.layers.{layer}.multihead_attn.in_proj_weight"][48:] for layer in (0, 1)]
    assert torch.equal(views["cross_value.weight"][1], torch.cat(stacked))
    views["output.bias"][1] += 1
    state = {name: torch.zeros_like(value) for name, value in parameters.items()}
    live.read(numbers[1], state)
    assert torch.equal(state["output_projection.bias"], parameters["output_projection.bias"] + 1)
    assert numbers[[0, 2]].abs().max() == 0
