"""The pairs that the models of a batch see in one epoch, step by step, each in its own order and augmentation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from face3d_tune.training import augmentation, losses
from face3d_tune.training.base import Training
from face3d_tune.training.batched.table import Identity, PairBatch, PairTable, Weighting


def batches(table: PairTable, trainings: Sequence[Training], in_radians: bool | Tensor) -> Iterator[PairBatch]:
    """Yield the batches of the next epoch of all trainings; without the axis of models if there is one."""
    size = trainings[0].config.batch_size
    drawn = [
        augmentation.order(each.config, table.yaw, each.seed, each.epoch)[: len(table) // size * size]
        for each in trainings
    ]
    order = torch.stack([each.view(-1, size) for each in drawn], 1).to(table.turn.device)  # [steps, K, B]
    order = order.squeeze(1) if len(drawn) == 1 else order
    configs = [each.config for each in trainings]
    rows = _rows(table, trainings, drawn).view(*order.shape, -1) if any(map(augmentation.augments, configs)) else None
    angles = _angle_factors(table, trainings, order) if any(map(losses.weighs, configs)) else None
    identities = _identities(table, trainings, order)
    gammas = table.turn.new_tensor([config.focal_gamma for config in configs]).view(*order.shape[1:-1], 1, 1)
    for step, pairs in enumerate(order):
        batch = table.batch(pairs, in_radians) if rows is None else table.split(rows[step], in_radians)
        weighting = None if angles is None else Weighting(angles[step], gammas)
        yield replace(batch, weighting=weighting, identity=None if identities is None else identities[step])


def _rows(table: PairTable, trainings: Sequence[Training], drawn: Sequence[Tensor]) -> Tensor:
    """Return all rows that the epoch shows, [steps, K, B, width]."""
    steps, size = len(drawn[0]) // trainings[0].config.batch_size, trainings[0].config.batch_size
    rows = table.turn.new_empty(steps, len(drawn), size, table.width)
    for place, (each, pairs) in enumerate(zip(trainings, drawn, strict=True)):
        changed = None
        if augmentation.augments(each.config):
            changed = augmentation.augmented(each.config, table.views, pairs, each.seed, each.epoch)
        rows[:, place] = table.rows(pairs.to(rows.device), changed).view(steps, size, -1)
    return rows


def _angle_factors(table: PairTable, trainings: Sequence[Training], order: Tensor) -> Tensor:
    """Return 1 + angle_weight · |yaw| / 90° of every pair that the epoch shows, [steps, K, B, 1]."""
    slopes = table.turn.new_tensor([training.config.angle_weight for training in trainings])
    return (1 + slopes.view(*order.shape[1:-1], 1) * table.turn[order] / 90).unsqueeze(-1)


def _identities(table: PairTable, trainings: Sequence[Training], order: Tensor) -> list[Identity] | None:
    """Return the identity term of every step, for the trainings that have one; None if none has."""
    configs = [training.config for training in trainings]
    places = [place for place, config in enumerate(configs) if config.identity_weight > 0]
    if not places:
        return None
    models = torch.tensor(places, device=order.device) if order.dim() > 2 else None
    shape = (-1, 1, 1) if models is not None else (1, 1)
    weight, temperature = (
        table.turn.new_tensor([getattr(configs[place], name) for place in places]).view(shape)
        for name in ("identity_weight", "identity_temperature")
    )
    persons = table.person[order if models is None else order[:, models]].unsqueeze(-1)
    return [Identity(table.people, models, person, weight, temperature) for person in persons]
