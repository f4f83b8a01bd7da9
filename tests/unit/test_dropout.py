"""Dropout masks: what they contain, how often, and that it does not matter how many are taken at once."""

import math

import pytest
import torch

from face3d_tune.training.dropout import MaskStream, room

CPU = torch.device("cpu")
FLOAT = torch.zeros(())
N = 400_000


def stream(seed=3, epoch=2):
    return MaskStream(seed, epoch, CPU)


def assert_rate(kept, p):
    """As often kept as 1 - p says, within 5 standard deviations: right code fails here once in 1.7 million seeds."""
    rate = kept.double().mean().item()
    assert abs(rate - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / kept.numel()), (rate, 1 - p)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.99])
def test_a_mask_is_0_with_probability_p_and_else_what_keeps_the_mean(p):
    mask = stream().draw((N // 100, 100), p, FLOAT)
    assert mask.shape == (N // 100, 100)
    assert mask.unique().tolist() == [0, pytest.approx(1 / (1 - p))]
    assert_rate(mask > 0, p)
    for lane in (mask > 0).view(-1, 4).T:  # each of the four numbers that one word gives
        assert_rate(lane, p)
    with pytest.raises(AssertionError):
        assert_rate(mask > 0, p + 12 * math.sqrt(p * (1 - p) / N))  # so small a mistake would be seen


def test_neighbours_in_a_mask_and_masks_of_neighbouring_epochs_and_seeds_are_independent():
    p = 0.5
    kept = [stream(*both).draw((N,), p, FLOAT) > 0 for both in ((3, 2), (3, 3), (4, 2))]
    for apart in (1, 2, 3, 4, 8):
        assert_rate(kept[0][apart:] == kept[0][:-apart], 0.5)
    for other in kept[1:]:
        assert_rate(kept[0] == other, 0.5)
    with pytest.raises(AssertionError):
        assert_rate(kept[0] == kept[0], 0.5)


def test_a_stream_depends_on_seed_and_epoch_and_on_nothing_else():
    first = stream().draw((1000,), 0.3, FLOAT)
    torch.manual_seed(0)
    torch.rand(5)
    stream(9, 9).draw((10,), 0.3, FLOAT)
    assert torch.equal(stream().draw((1000,), 0.3, FLOAT), first)
    for other in (stream(4, 2), stream(3, 3)):
        assert not torch.equal(other.draw((1000,), 0.3, FLOAT), first)


def test_drawing_goes_on_in_the_stream():
    masks = stream()
    assert not torch.equal(masks.draw((1000,), 0.3, FLOAT), masks.draw((1000,), 0.3, FLOAT))


@pytest.mark.parametrize(("elements", "words"), [(0, 0), (1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (4 * 77 + 1, 78)])
def test_a_mask_takes_whole_words_of_four_numbers(elements, words):
    assert room(elements) == 4 * words


def test_several_masks_at_once_are_those_drawn_one_by_one():
    shapes = [(7, 3), (1,), (8, 16), (5, 2, 1, 1), (3,), (7, 12)]  # 21, 1, 128, 10, 3 and 84 numbers
    one_by_one, alone = stream(), []
    for shape in shapes:
        alone.append(one_by_one.draw(shape, 0.3, FLOAT))
    together = torch.empty(sum(room(mask.numel()) for mask in alone))
    stream().fill(together, 0.3)
    start = 0
    for mask in alone:
        assert torch.equal(together[start : start + mask.numel()].view(mask.shape), mask)
        start += room(mask.numel())
    assert torch.equal(stream().draw((len(together),), 0.3, FLOAT), together)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_type_has_the_same_zeros_and_the_scale_as_exactly_as_it_can(dtype):
    expected, mask = (stream().draw((999,), 0.3, torch.zeros((), dtype=kind)) for kind in (torch.float64, dtype))
    assert mask.dtype == dtype
    assert torch.equal(mask > 0, expected > 0)
    assert mask.max().item() == torch.tensor(1 / 0.7, dtype=torch.float64).to(dtype).item()


@pytest.mark.parametrize("p", [1e-7, 5e-6])
def test_a_probability_too_small_for_16_bits_drops_nothing(p):
    assert torch.equal(stream().draw((N,), p, FLOAT) > 0, torch.ones(N, dtype=torch.bool))


@pytest.mark.parametrize("p", [1 - 1e-6, 1 - 1e-9])
def test_a_probability_too_close_to_1_for_16_bits_keeps_nothing(p):
    assert stream().draw((N,), p, FLOAT).max() == 0
