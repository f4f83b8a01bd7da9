"""The model against two independent statements of trainer contract §3: a torch module tree and a numpy function."""

import numpy as np
import pytest
import torch
from reference_model import STRUCTURES, ReferenceModel, reference_forward

from face3d_tune.config import TrialConfig
from face3d_tune.training.dropout import MaskStream
from face3d_tune.training.model import Attention, Dropout, Model

CPU = torch.device("cpu")
SIZES = [{"feature_size": 24, "d_model": 24}, {"feature_size": 20, "d_model": 32}]
everything = pytest.mark.parametrize("structure", STRUCTURES, ids=str)
sizes = pytest.mark.parametrize("size", SIZES, ids=["F = d", "F ≠ d"])


def make(structure, size, *, dropout=0.0, seed=0):
    config = TrialConfig(
        d_model=size["d_model"],
        dim_feedforward=4 * size["d_model"],
        nhead=4,
        num_layers=2,
        dropout=dropout,
        **structure,
    )
    model = Model(config, size["feature_size"], torch.Generator().manual_seed(seed))
    reference = ReferenceModel(
        feature_size=size["feature_size"],
        d_model=config.d_model,
        nhead=config.nhead,
        num_layers=config.num_layers,
        dim_feedforward=config.dim_feedforward,
        dropout=dropout,
        **structure,
    )
    return model.double(), reference.double()


def batch(size, pairs=7):
    draw = np.random.default_rng(1)
    src = draw.normal(size=(pairs, size["feature_size"]))
    return src, draw.normal(size=(pairs, 5, 3)), draw.normal(size=(pairs, 3))


def as_tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


@everything
@sizes
def test_their_checkpoints_load_strictly_here_and_ours_there(structure, size):
    model, reference = make(structure, size)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {name: tuple(value.shape) for name, value in reference.state_dict().items()}
    model.load_state_dict(reference.state_dict(), strict=True)
    reference.load_state_dict(model.state_dict(), strict=True)


@everything
@sizes
def test_predictions_equal_both_independent_statements(structure, size):
    model, reference = make(structure, size)
    reference.load_state_dict(model.state_dict())
    arrays = batch(size)
    prediction = model.eval()(*as_tensors(arrays)).detach().numpy()
    np.testing.assert_allclose(prediction, reference.eval()(*as_tensors(arrays)).detach().numpy(), atol=1e-12)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    np.testing.assert_allclose(prediction, reference_forward(state, *arrays, nhead=4, **structure), atol=1e-12)


@everything
def test_gradients_in_training_mode_equal_the_reference_when_dropout_is_0(structure):
    model, reference = make(structure, SIZES[1])
    reference.load_state_dict(model.state_dict())
    for module in (model.train(), reference.train()):
        module(*as_tensors(batch(SIZES[1]))).square().mean().backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-13, rtol=0, msg=name)
    running = "keypoint_encoder.1.running_mean"
    if structure["layout"] == "keypoint":
        torch.testing.assert_close(model.state_dict()[running], reference.state_dict()[running])


def test_the_comparison_objects_when_any_live_parameter_is_spoiled():
    structure = {"layout": "keypoint", "use_spatial_attention": True, "use_pose_attention": True}
    model, reference = make(structure, SIZES[0])
    reference.load_state_dict(model.state_dict())
    arrays = as_tensors(batch(SIZES[0]))
    expected = reference.eval()(*arrays)
    d = SIZES[0]["d_model"]
    for name, parameter in model.eval().named_parameters():
        dead = any(part in name for part in ("pose_to_key", "feature_to_query"))  # softmax over one key is always 1
        with torch.no_grad():
            kept = parameter.clone()
            value_rows = parameter[2 * d :] if "in_proj" in name else parameter
            value_rows += torch.linspace(0.1, 0.2, value_rows.numel()).view_as(
                value_rows
            )  # no constant: LayerNorm eats it
            difference = (model(*arrays) - expected).abs().max()
            assert (difference < 1e-12) if dead else (difference > 1e-9), name
            parameter.copy_(kept)


def test_query_and_key_projections_get_exactly_no_gradient():
    model, _ = make(STRUCTURES[0], SIZES[0])
    model(*as_tensors(batch(SIZES[0]))).sum().backward()
    d = SIZES[0]["d_model"]
    for module in model.modules():
        if isinstance(module, Attention):
            assert module.in_proj_weight.grad[: 2 * d].abs().max() == 0
            assert module.in_proj_weight.grad[2 * d :].abs().max() > 0


def test_matrices_start_xavier_uniform_and_packed_attention_counts_as_one_matrix():
    d = 64
    config = TrialConfig(d_model=d, dim_feedforward=256, use_spatial_attention=True, use_pose_attention=True)
    model = Model(config, d, torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            bound = (6 / sum(parameter.shape)) ** 0.5  # Glorot & Bengio (2010), equation 16
            assert parameter.abs().max() <= bound, name
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.25), name
    assert model.fusion_weights.tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert model.angle_pe.scale.item() == 1
    attention = model.transformer_decoder.layers[0].self_attn
    assert attention.in_proj_bias.abs().max() == attention.out_proj.bias.abs().max() == 0
    assert 0 < model.input_projection.bias.abs().max() <= d**-0.5


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    weights = [make(STRUCTURES[0], SIZES[0], seed=seed)[0].input_projection.weight for seed in (3, 3, 4)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_building_and_running_a_model_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    model, _ = Model(TrialConfig(d_model=16, dim_feedforward=32), 16, torch.Generator().manual_seed(0)), None
    model.draw_from(MaskStream(1, 1, CPU))
    model(*[tensor.float() for tensor in as_tensors(batch({"feature_size": 16}))]).sum().backward()
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_keeps_one_minus_p_of_the_elements_and_scales_them():
    dropout = Dropout(0.25)
    dropout.masks = MaskStream(0, 1, CPU)
    out = dropout(torch.ones(200, 200))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (out > 0).float().mean() == pytest.approx(0.75, abs=0.01)  # 4.6 standard deviations
    assert torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))


def test_training_with_dropout_refuses_to_use_the_global_generator():
    with pytest.raises(RuntimeError, match="draw_from"):
        Dropout(0.5)(torch.ones(3))


@everything
def test_dropout_acts_at_every_site_of_the_reference(structure, monkeypatch):
    """Both draw a mask at each site in turn: given the same stream they predict the same, and ours needs every site."""
    model, reference = make(structure, SIZES[0], dropout=0.5)
    reference.load_state_dict(model.state_dict())
    arrays, stream = as_tensors(batch(SIZES[0])), []

    def dropout(x, p, training=True, inplace=False):
        return x * stream[0].draw(x.shape, p, like=x) if training and p else x

    def attention(query, key, value, _mask, dropout_p, *_):  # where torch draws a mask out of our reach
        weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1)
        return dropout(weights, dropout_p) @ value

    def predict(module):
        stream[:] = [MaskStream(0, 1, CPU)]
        model.draw_from(stream[0])
        return module(*arrays).detach()

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    expected = predict(reference.train())
    torch.testing.assert_close(predict(model.train()), expected)
    torch.testing.assert_close(model.eval()(*arrays), reference.eval()(*arrays))
    assert not torch.allclose(model(*arrays), expected)
    model.train()
    for site in [module for module in model.modules() if isinstance(module, Dropout)]:
        site.p = 0
        assert not torch.allclose(predict(model), expected)
        site.p = 0.5
