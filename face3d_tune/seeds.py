"""Random numbers that depend only on a seed and the name of their purpose.

No generator is global, and none is carried from epoch to epoch. The stream of an epoch follows from (seed, purpose,
epoch) alone. So a result depends neither on what else runs nor on where a training was resumed.
"""

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Derive a seed in [0, 2**63) for one purpose, e.g. `derive(42, "trial", 7)`."""
    name = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a fresh generator on `device` for one purpose."""
    return torch.Generator(device).manual_seed(derive(seed, *purpose))
