"""The numbers of K trainings, model by model, and the step of AdamW or Adam over all of them (`training.OPTIMIZERS`).

Every model has its own rate, decay, step count, clipping and loss scale. Nothing here reads a number back from the
device, so an accelerator never waits for the host.
"""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from face3d_tune.config import OptimizerName

MAX_NORM = 1.0  # of a model's gradient (trainer contract §4)
FIRST_SCALE, GROWTH_INTERVAL = 2.0**16, 2000  # of the loss in fp16, as torch.amp.GradScaler has them
_PIECE = 1024  # numbers summed up at once: float32 loses less in two short sums than in a long one


@dataclass(slots=True)
class State:
    """The numbers that a model carries from step to step, models first. K models, rows of P and D numbers."""

    weights: Tensor  # [K, P], live
    dead: Tensor  # [K, D], without influence
    first: Tensor  # [K, P], the optimiser's first moments
    second: Tensor  # [K, P], the optimiser's second moments
    mean: Tensor  # [K, 256], running, of the batch normalisation
    variance: Tensor  # [K, 256]
    steps: Tensor  # [K], optimiser steps taken
    scales: Tensor  # [K], of the loss in fp16
    since_overflow: Tensor  # [K], steps

    @classmethod
    def empty(cls, live: int, dead: int, hidden: int, like: Tensor) -> Self:
        """Make room for no model yet; `live`, `dead` and `hidden` are P, D and the width of the batch normalisation."""
        widths = {"weights": live, "dead": dead, "first": live, "second": live, "mean": hidden, "variance": hidden}
        rows = {name: like.new_zeros(0, width) for name, width in widths.items()}
        counts = {name: like.new_zeros(0) for name in ("scales", "since_overflow")}
        return cls(**rows, **counts, steps=torch.zeros(0, device=like.device))

    def resized(self, places: list[int], models: int) -> Self:
        """Return a copy with room for `models` models, in which the models `places` come first."""
        copies = {}
        for field in fields(self):
            numbers: Tensor = getattr(self, field.name)
            copies[field.name] = numbers.new_zeros(models, *numbers.shape[1:])
            copies[field.name][: len(places)] = numbers[places]
        return type(self)(**copies)

    def begin(self, model: int) -> None:
        """Reset the numbers of a place; the caller writes the weights."""
        for row in (self.weights, self.first, self.second, self.steps, self.since_overflow, self.mean):
            row[model] = 0
        self.variance[model] = 1
        self.scales[model] = FIRST_SCALE


def optimizer_step(
    state: State,
    gradients: Tensor,
    rates: Tensor,
    decays: list[float],
    *,
    scaled: bool,
    optimizer: OptimizerName = "adamw",
) -> None:
    """Unscale, clip and apply the gradients [K, P], at the rates [K].

    If losses were `scaled`, a model whose gradients overflowed skips the step and gets a smaller scale.
    """
    pieces = gradients.view(len(gradients), -1, _PIECE)
    norms = torch.linalg.vector_norm(torch.linalg.vector_norm(pieces, dim=-1), dim=-1)
    scales = state.scales if scaled else torch.ones_like(state.scales)
    norms = norms / scales
    # An overflowed row becomes 0, not NaN: nothing writes the numbers between the blocks again, so they must stay 0.
    factors = torch.where(norms.isfinite(), (MAX_NORM / (norms + 1e-6)).clamp(max=1.0) / scales, 0.0)
    if gradients.device.type != "cpu" or not bool((factors == 1).all()):
        gradients.mul_(factors.unsqueeze(-1))
    overflowed = ~norms.isfinite()
    skipped = overflowed.to(state.steps.dtype) if scaled else torch.zeros_like(state.steps)
    state.steps += 1 - skipped
    step = torch._fused_adamw_ if optimizer == "adamw" else torch._fused_adam_
    for model, decay in enumerate(decays):
        step(
            [state.weights[model]],
            [gradients[model]],
            [state.first[model]],
            [state.second[model]],
            [],
            [state.steps[model]],
            lr=rates[model],
            beta1=0.9,
            beta2=0.999,
            weight_decay=decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
            found_inf=skipped[model] if scaled else None,
        )
    if scaled:
        _rescale(state, overflowed)


def _rescale(state: State, overflowed: Tensor) -> None:
    """Halve a scale after an overflow, double it after a long time without one."""
    since = torch.where(overflowed, 0, state.since_overflow + 1)
    due = since == GROWTH_INTERVAL
    doubled = torch.where(due & (state.scales * 2).isfinite(), state.scales * 2, state.scales)
    state.scales = torch.where(overflowed, state.scales / 2, doubled)
    state.since_overflow = torch.where(due, 0, since)
