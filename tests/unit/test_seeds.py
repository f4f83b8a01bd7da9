"""Random numbers that follow from a seed and a purpose, and from nothing else."""

import hashlib
import itertools
import random

import numpy as np
import torch

from face3d_tune import seeds


def test_a_seed_is_the_start_of_the_hash_of_seed_and_purpose():
    expected = int(hashlib.sha256(b"42/trial/7").hexdigest()[:16], 16) // 2
    assert seeds.derive(42, "trial", 7) == expected
    assert seeds.derive(42) == int(hashlib.sha256(b"42").hexdigest()[:16], 16) // 2


def test_seeds_of_different_purposes_differ_and_fit_a_signed_64_bit_number():
    grid = list(itertools.product(range(20), ("weights", "order", "dropout", "张伟"), range(20)))
    derived = {seeds.derive(seed, purpose, epoch) for seed, purpose, epoch in grid}
    assert len(derived) == len(grid)
    assert all(0 <= seed < 2**63 for seed in derived)
    assert max(derived) > 2**62  # the whole range is used


def test_a_generator_gives_the_numbers_of_its_seed_and_purpose():
    drawn = [torch.rand(5, generator=seeds.generator(*key)).tolist() for key in ((1, "a", 2), (1, "a", 2), (1, "a", 3))]
    assert drawn[0] == drawn[1] != drawn[2]
    by_hand = torch.Generator().manual_seed(seeds.derive(1, "a", 2))
    assert torch.rand(5, generator=by_hand).tolist() == drawn[0]


def test_drawing_from_one_generator_moves_no_other_and_nothing_global():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    one, other = seeds.generator(1, "a"), seeds.generator(1, "a")
    torch.rand(1000, generator=one)
    assert torch.equal(torch.rand(5, generator=other), torch.rand(5, generator=seeds.generator(1, "a")))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_generator_lives_on_the_device_that_is_asked_for():
    assert seeds.generator(1, "a").device == torch.device("cpu")
    assert seeds.generator(1, "a", device=torch.device("cpu")).device.type == "cpu"
