"""The learning rate of every epoch: linear warm-up, then reduction on a plateau or cosine annealing.

Epoch e, from 1, of W = warmup_epochs trains with lr · e / (W + 1) (Goyal et al., 2017). After the warm-up,

- plateau is torch's ReduceLROnPlateau with factor and patience, which sees no validation loss of the warm-up;
- cosine is annealing without restarts (Loshchilov & Hutter, 2017): with T = epochs − W and t = e − W − 1 the rate is
  min + (lr − min) · (1 + cos(π t / T)) / 2. It begins at lr; the last epoch, t = T − 1, is just above min.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from face3d_tune.config import TrialConfig


class Schedule:
    """The learning rate of `optimizer` over the epochs; creating the schedule sets the rate of the first."""

    def __init__(self, config: TrialConfig, optimizer: Optimizer) -> None:
        self._config, self._optimizer = config, optimizer
        self._epochs = 0  # ended
        self._plateau = ReduceLROnPlateau(
            optimizer,
            mode="min",
            factor=config.scheduler_factor,
            patience=config.scheduler_patience,
            min_lr=config.scheduler_min_lr,
        )
        if config.warmup_epochs:
            self._set(warmup(config, 1))

    def step(self, val_loss: float) -> None:
        """Set the rate of the next epoch, after one that ended with this validation loss."""
        self._epochs += 1
        following, warm = self._epochs + 1, self._config.warmup_epochs
        if following <= warm:
            self._set(warmup(self._config, following))
        elif self._config.scheduler_type == "cosine":
            self._set(annealed(self._config, following))
        elif self._epochs == warm:
            self._set(self._config.lr)
        else:
            self._plateau.step(val_loss)

    def _set(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on besides config and rate, as plain values."""
        return {"epochs": self._epochs, "plateau": self._plateau.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume the schedule that gave `state`.

        Older versions stored only the state of torch's schedule, which counts epochs too. Raises KeyError if something
        is missing.
        """
        plateau = state.get("plateau", state)
        self._epochs = state["epochs"] if "plateau" in state else plateau["last_epoch"]
        self._plateau.load_state_dict(plateau)


def warmup(config: TrialConfig, epoch: int) -> float:
    """Return the rate of an epoch of the warm-up."""
    return config.lr * epoch / (config.warmup_epochs + 1)


def annealed(config: TrialConfig, epoch: int) -> float:
    """Return the rate of an epoch after the warm-up.

    It is at most `lr`, and never below `scheduler_min_lr` unless `lr` is.
    """
    low = min(config.scheduler_min_lr, config.lr)
    part = (epoch - config.warmup_epochs - 1) / max(1, config.epochs - config.warmup_epochs)
    return low + (config.lr - low) * (1 + math.cos(math.pi * part)) / 2
