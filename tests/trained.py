"""Trainings that more than one test asks about, each trained once. Nobody may go on with one."""

import torch

from face3d_tune.training.plain import Trainer

_known = {}


def trained(data, config, seed, dtype=torch.float32):
    """The plain trainer of this config and seed on a CPU, at its end; not for a test that has changed the trainer."""
    key = id(data), config, seed, dtype
    if key not in _known:
        trainer = Trainer(config, data, seed=seed, device=torch.device("cpu"), dtype=dtype)
        while trainer.stop_reason is None:
            trainer.train_epoch()
        _known[key] = data, trainer  # the data stay, or another object could have their id
    return _known[key][1]
