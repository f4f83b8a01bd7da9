"""The engine and the number of slots: chosen from device, cores, memory and model size, or as asked for."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData
from face3d_tune.errors import ConfigError
from face3d_tune.executor.checkpoints import Checkpoints
from face3d_tune.executor.child import Share
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
    shares: tuple[Share, ...]  # of the processes that train; the plain engine has one, in this process
    reason: str

    @property
    def slots(self) -> int:
        """Return how many trials train at once."""
        return sum(share.slots for share in self.shares)

    @property
    def device(self) -> torch.device:
        """Return the device for everything but training: of several GPUs, the first."""
        return self.shares[0].device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Return every device that trains."""
        return tuple(dict.fromkeys(share.device for share in self.shares))

    def at_most(self, slots: int) -> "Plan":
        """Return the plan with no more than these slots, the same number in each process as far as it has them."""
        counts: Counter[int] = Counter()
        for _ in range(min(slots, self.slots)):
            free = (index for index, share in enumerate(self.shares) if counts[index] < share.slots)
            counts[min(free, key=lambda index: counts[index])] += 1
        shares = (replace(share, slots=counts[index]) for index, share in enumerate(self.shares) if counts[index])
        return replace(self, shares=tuple(shares))

    def open(self, data: FaceData, checkpoints: Checkpoints | None = None, *, timeout: float | None = None) -> Slots:
        """Open the slots, ready to take tasks; with `checkpoints` they resume from them and save them.

        With `timeout`, seconds that a training may give no epoch, all train in other processes, which can be ended.
        """
        if self.engine == "plain" and timeout is None:
            return PlainSlot(data, self.device, checkpoints)
        return ProcessSlots(data, self.shares, checkpoints, timeout=timeout)

    def __str__(self) -> str:
        if self.engine == "plain":
            return f"plain, one trial after another ({self.reason})"
        where = "in as many processes of one thread" if self.device.type == "cpu" else "in one process"
        if len(self.devices) > 1:
            divided = "+".join(str(share.slots) for share in self.shares)
            where = f"in a process for each of {len(self.devices)} GPUs, {divided}"
        return f"batched, {self.slots} at once {where} ({self.reason})"


def choose(
    engine: Engine,
    slots: int | None,
    devices: Sequence[torch.device],
    data: FaceData,
    configs: Iterable[TrialConfig],
    folds: int = 1,
) -> Plan:
    """Choose a plan for a device or several GPUs; `slots` None fits their number to the largest config of the search.

    A process holds the pairs once for every fold and kind of inputs. Raises ConfigError for slots or devices that the
    engine does not have.
    """
    device = devices[0]
    untried = engine == "auto" and device.type not in ("cpu", "cuda")
    if engine == "plain" or untried:
        reason = f"the batched engine has not been tried on {device.type}" if untried else "--engine plain"
        if slots not in (None, 1):
            raise ConfigError(f"--slots {slots} needs --engine batched: the plain engine trains one trial at a time")
        if len(devices) > 1:
            raise ConfigError(
                f"--device names {len(devices)} GPUs; the plain engine trains one trial at a time, on one",
                "use --engine batched, or name one GPU",
            )
        return Plan("plain", (Share(device, 1, "plain"),), reason)
    if slots is not None:
        if slots < len(devices):
            raise ConfigError(
                f"--slots {slots} is too few for the {len(devices)} GPUs of --device: each trains one trial or more",
                f"set --slots to at least {len(devices)}, or name fewer GPUs",
            )
        return Plan("batched", _shares(devices, [slots] * len(devices)), f"--slots {slots}").at_most(slots)
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
        count = max(1, min(cores.amount, fit))
        return Plan("batched", _shares(devices, [count]), f"{machine}, {free}, {words}")
    if device.type == "cuda":
        on_gpus = [torch.cuda.mem_get_info(gpu)[0] for gpu in devices]
        fits = [math.floor(_SHARE * (on_gpu - tables * _bytes(data)) / need) for on_gpu in on_gpus]
        counts = [max(1, min(_MOST_ON_ACCELERATOR, fit)) for fit in fits]
        gib, gpus = "+".join(f"{on_gpu / 2**30:.0f}" for on_gpu in on_gpus), "GPU" if len(devices) == 1 else "GPUs"
        return Plan("batched", _shares(devices, counts), f"{gib} GiB free on the {gpus}, {words}")
    return Plan("batched", _shares(devices, [1]), f"memory of {device.type} cannot be asked for")


def _shares(devices: Sequence[torch.device], counts: Sequence[int]) -> tuple[Share, ...]:
    """Return a process for every slot of a CPU, and one for each other device."""
    if devices[0].type == "cpu":
        return (Share(devices[0], 1),) * counts[0]
    return tuple(map(Share, devices, counts))


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
