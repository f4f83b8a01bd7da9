"""The device and the precision of a training; a request that cannot be met is answered here, once."""

import re
from collections.abc import Sequence
from typing import Literal

import torch

from face3d_tune.errors import ConfigError
from face3d_tune.system import limits

Amp = Literal["auto", "fp16", "bf16", "off"]
Precision = Literal["off", "fp16", "bf16"]


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first GPU, if there is one.

    Raises ConfigError if this machine cannot use the device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # there and back: torch also has devices that hold no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch says it in all three ways
        raise ConfigError(
            f"--device {name} cannot be used: {str(error).splitlines()[0]}", "try --device auto"
        ) from error
    return device


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """Return the device called `names`, or several GPUs, such as `cuda:0,cuda:1`.

    Raises ConfigError if this machine cannot use one of them, or if the list is none of different GPUs.
    """
    each = [name.strip() for name in names.split(",")]
    if len(each) == 1:
        return (choose_device(names),)
    if other := [name for name in each if not re.fullmatch(r"cuda:(0|[1-9]\d*)", name)]:
        raise ConfigError(
            f"--device {names} cannot be used: {other[0]!r} does not have the form cuda:N",
            "several devices are GPUs, e.g. --device cuda:0,cuda:1",
        )
    if twice := [name for name in each if each.count(name) > 1]:
        raise ConfigError(f"--device {names} names {twice[0]} twice", "name each GPU once")
    return tuple(map(choose_device, each))


def device_names(devices: Sequence[torch.device]) -> str:
    """Return the name of each kind of device, e.g. `NVIDIA A100, NVIDIA L4`."""
    return ", ".join(dict.fromkeys(map(device_name, devices)))


def device_name(device: torch.device) -> str:
    """Return the GPU's own name, or e.g. `cpu (8 threads)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' * (threads > 1)})"


def choose_precision(amp: Amp, *devices: torch.device) -> tuple[Precision, str | None]:
    """Choose the mixed precision on one device, or on several GPUs, for trials that ask for it.

    The second value is a notice if the precision is not the one that `amp` asked for. Raises ConfigError if only some
    of the GPUs have it: the trials of a search share one precision.
    """
    first, *others = [_precision(amp, device) for device in devices]
    if any(other != first for other in others):
        raise ConfigError(
            f"--amp {amp} is supported by only some of the GPUs {','.join(map(str, devices))}",
            "use --amp fp16, or GPUs that all support it",
        )
    return first


def _precision(amp: Amp, device: torch.device) -> tuple[Precision, str | None]:
    match amp, device.type:
        case (("auto" | "fp16"), "cuda"):
            return "fp16", None
        case "auto", _:
            return "off", None
        case "fp16", kind:
            return "off", f"--amp fp16 needs CUDA; training in float32 on {kind} (a CPU can do --amp bf16)"
        case "bf16", "mps":
            return "off", "--amp bf16 is not available on mps; training in float32"
        case "bf16", "cuda" if not _supports_bf16(device):
            return "off", "--amp bf16 is not supported by this GPU; training in float32"
        case "bf16", _:
            return "bf16", None
        case _:
            return "off", None


def _supports_bf16(gpu: torch.device) -> bool:
    with torch.cuda.device(gpu):  # torch answers for its current GPU
        return bool(torch.cuda.is_bf16_supported())


def set_threads(count: int | None) -> None:
    """Let torch use `count` threads of this process; None is all cores that it may use, but one.

    Torch's threads wait for each other by spinning. When they outnumber the free cores, a step can take seconds instead
    of milliseconds. A dashboard or a browser is enough for that.
    """
    torch.set_num_threads(count or max(1, limits.cores().amount - 1))
