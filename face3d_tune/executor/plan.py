"""The engine and the number of slots: chosen from device, cores, memory and model size, or as asked for."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import ConfigError
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.processes import ProcessSlots
from face3d_tune.executor.slots import PlainSlot, Slots
from face3d_tune.system import limits
from face3d_tune.training.augmentation import augments

Engine = Literal["auto", "plain", "batched"]

_PROCESS = 400 * 2**20  # bytes of Python and torch in a child, measured
_COPIES = 8  # per parameter: weights, gradients, two moments, masks, activations and a margin
_SHARE = 0.7  # of the free memory that trainings may take
_MOST_ON_ACCELERATOR = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of how a search trains."""

    engine: Literal["plain", "batched"]
    slots: int
    device: torch.device
    reason: str

    def open(self, data: FaceData, checkpoints: Checkpoints | None = None) -> Slots:
        """Open the slots, ready to take tasks; with `checkpoints` they resume from them and save them."""
        if self.engine == "plain":
            return PlainSlot(data, self.device, checkpoints)
        processes, each = (self.slots, 1) if self.device.type == "cpu" else (1, self.slots)
        return ProcessSlots(data, self.device, processes=processes, each=each, checkpoints=checkpoints)

    def __str__(self) -> str:
        if self.engine == "plain":
            return f"plain, one trial after another ({self.reason})"
        where = "in as many processes of one thread" if self.device.type == "cpu" else "in one process"
        return f"batched, {self.slots} at once {where} ({self.reason})"


def choose(
    engine: Engine,
    slots: int | None,
    device: torch.device,
    data: FaceData,
    configs: Iterable[TrialConfig],
    folds: int = 1,
) -> Plan:
    """Choose a plan; `slots` None fits their number to the largest config that the search may try.

    A process holds the pairs once for every fold and kind of inputs. Raises ConfigError for slots that the
    engine does not have.
    """
    untried = engine == "auto" and device.type not in ("cpu", "cuda")
    if engine == "plain" or untried:
        reason = f"the batched engine has not been tried on {device.type}" if untried else "--engine plain"
        if slots not in (None, 1):
            raise ConfigError(f"--slots {slots} needs --engine batched: the plain engine trains one trial at a time")
        return Plan("plain", 1, device, reason)
    if slots is not None:
        return Plan("batched", slots, device, f"--slots {slots}")
    configs = list(configs)
    tables = folds * len({config.inputs for config in configs})
    largest = max(_parameters(config, data.feature_size) for config in configs)
    need = largest * 4 * _COPIES + (_bytes(data) if any(map(augments, configs)) else 0)  # and an epoch's views
    words = f"models of up to {largest / 1e6:.1f} million parameters"
    if device.type == "cpu":
        cores, memory = limits.cores(), limits.memory()
        fit = math.floor(_SHARE * memory.amount / (need + _PROCESS + tables * _bytes(data)))
        machine = f"{cores.amount} cores by CPU quota" if cores.of_cgroup else f"{cores.amount} cores"
        gib = f"{memory.amount / 2**30:.0f}"
        free = f"{gib} GiB free by memory limit" if memory.of_cgroup else f"{gib} GiB free"
        return Plan("batched", max(1, min(cores.amount, fit)), device, f"{machine}, {free}, {words}")
    if device.type == "cuda":
        on_gpu = torch.cuda.mem_get_info(device)[0]
        fit = math.floor(_SHARE * (on_gpu - tables * _bytes(data)) / need)
        count = max(1, min(_MOST_ON_ACCELERATOR, fit))
        return Plan("batched", count, device, f"{on_gpu / 2**30:.0f} GiB free on the GPU, {words}")
    return Plan("batched", 1, device, f"memory of {device.type} cannot be asked for")


def _parameters(config: TrialConfig, feature_size: int) -> int:
    """Estimate the parameters of a model from its large matrices (trainer contract §3)."""
    d, ff = config.d_model, config.dim_feedforward
    layer = 8 * d * d + 2 * d * ff
    head = 2 * feature_size * d + 2 * d * d + 512 * d + (2 * d * d + 128 * d) * config.use_spatial_attention
    return config.num_layers * layer + head + d * d * config.use_pose_attention


def _bytes(data: FaceData) -> int:
    """Return the bytes that the tables of all pairs take in a process."""
    pairs = sum(len(part) for part in data.parts.values())
    return pairs * 4 * (2 * data.feature_size + 40) * 2
