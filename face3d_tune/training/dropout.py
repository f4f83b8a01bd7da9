"""Dropout masks, drawn so that every engine draws the same ones.

On a CPU they come from a stream of 16-bit numbers, ten times faster than torch's Bernoulli sampler, and a mask depends
only on how many numbers were taken before it: taking several masks at once gives what taking them one by one gives.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from face3d_tune import seeds

_PER_WORD = 4  # 16-bit numbers in one 64-bit word of the stream


def room(elements: int) -> int:
    """How many numbers of the stream a mask of `elements` takes: whole words."""
    return math.ceil(elements / _PER_WORD) * _PER_WORD


class MaskStream:
    """The dropout masks of one epoch of one trial: 0 with probability p, else 1 / (1 - p).

    On a CPU p is rounded to a multiple of 2**-16, which no experiment of less than 10**9 draws could notice. On another
    device the numbers are torch's own and never leave it.
    """

    def __init__(self, seed: int, epoch: int, device: torch.device) -> None:
        self._words = np.random.SFC64(seeds.derive(seed, "dropout", epoch)) if device.type == "cpu" else None
        self._generator = None if self._words else seeds.generator(seed, "dropout", epoch, device=device)

    def draw(self, shape: Sequence[int], p: float, like: Tensor) -> Tensor:
        """One mask, in the dtype of `like` and where it is."""
        elements = math.prod(shape)
        mask = torch.empty(room(elements), dtype=like.dtype, device=like.device)
        self.fill(mask, p)
        return mask[:elements].view(*shape)

    def fill(self, masks: Tensor, p: float) -> None:
        """Several masks at once into a contiguous 1-D tensor of whole words; 0 < p < 1."""
        if self._words is None:
            masks.bernoulli_(1 - p, generator=self._generator)
        else:
            numbers = torch.from_numpy(self._words.random_raw(len(masks) // _PER_WORD).view(np.int16))
            kept = round((1 - p) * 2**16)  # of all 16-bit numbers, the smallest
            if kept:
                torch.le(numbers, kept - 2**15 - 1, out=masks)
            else:
                masks.zero_()
        masks.mul_(1 / (1 - p))
