"""The device and the precision of a training; a request that cannot be met is answered here, once."""

import os
from typing import Literal

import torch

from face3d_tune.errors import ConfigError

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


def device_name(device: torch.device) -> str:
    """Return the GPU's own name, or e.g. `cpu (8 threads)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def choose_precision(amp: Amp, device: torch.device) -> tuple[Precision, str | None]:
    """Choose the mixed precision on `device` for trials that ask for it.

    The second value is a notice if the precision is not the one that `amp` asked for.
    """
    match amp, device.type:
        case (("auto" | "fp16"), "cuda"):
            return "fp16", None
        case "auto", _:
            return "off", None
        case "fp16", kind:
            return "off", f"--amp fp16 needs CUDA; training in float32 on {kind} (a CPU can do --amp bf16)"
        case "bf16", "mps":
            return "off", "--amp bf16 is not available on mps; training in float32"
        case "bf16", "cuda" if not torch.cuda.is_bf16_supported():
            return "off", "--amp bf16 is not supported by this GPU; training in float32"
        case "bf16", _:
            return "bf16", None
        case _:
            return "off", None


def set_threads(count: int | None) -> None:
    """Let torch use `count` threads of this process; None is all cores but one.

    Torch's threads wait for each other by spinning. When they outnumber the free cores, a step can take seconds instead
    of milliseconds. A dashboard or a browser is enough for that.
    """
    torch.set_num_threads(count or max(1, (os.cpu_count() or 1) - 1))
