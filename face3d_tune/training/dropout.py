"""Dropout masks, drawn so that every engine draws the same ones.

On a CPU they come from a stream of 16-bit numbers, ten times faster than torch's Bernoulli sampler. A mask depends only
on how many numbers were taken before it. So taking several masks at once equals taking them one by one.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from face3d_tune import seeds

_PER_WORD = 4  # 16-bit numbers in one 64-bit word of the stream


def room(elements: int) -> int:
    """Return how many numbers of the stream a mask of `elements` takes: whole words."""
    return math.ceil(elements / _PER_WORD) * _PER_WORD


class MaskStream:
    """The dropout masks of one epoch of one trial: 0 with probability p, else 1 / (1 - p).

    On a CPU p is rounded to a multiple of 2**-16; fewer than 10**9 draws cannot show the difference. On another device
    torch draws the numbers, and they never leave it.
    """

    def __init__(self, seed: int, epoch: int, device: torch.device) -> None:
        self._words = np.random.SFC64(seeds.derive(seed, "dropout", epoch)) if device.type == "cpu" else None
        self._generator = None if self._words else seeds.generator(seed, "dropout", epoch, device=device)

    def draw(self, shape: Sequence[int], p: float, like: Tensor) -> Tensor:
        """Draw one mask, with the dtype and device of `like`."""
        elements = math.prod(shape)
        mask = torch.empty(room(elements), dtype=like.dtype, device=like.device)
        self.fill(mask, p)
        return mask[:elements].view(*shape)

    def fill(self, masks: Tensor, p: float) -> None:
        """Fill a contiguous 1-D tensor of whole words with several masks at once; 0 < p < 1."""
        if self._words is None:
            masks.bernoulli_(1 - p, generator=self._generator)
        else:
            numbers = torch.from_numpy(self._words.random_raw(len(masks) // _PER_WORD).view(np.int16))
            count = round((1 - p) * 2**16)  # the smallest 16-bit numbers keep their element
            if count:
                torch.le(numbers, count - 2**15 - 1, out=masks)
            else:
                masks.zero_()
        masks.mul_(1 / (1 - p))
