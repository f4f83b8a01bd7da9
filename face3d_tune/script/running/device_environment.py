"""What the environment of a script says about its device: the GPU that it sees, or its threads on a CPU."""

import os

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def of(device: str, threads: int) -> dict[str, str]:
    """Return the variables for a device.

    Where this process sees a few GPUs only, as under a scheduler, a number counts these.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return dict.fromkeys(_THREADS, str(threads))
    visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    index = int(number or 0)
    return {"CUDA_VISIBLE_DEVICES": visible[index] if index < len(visible) else str(index)}
