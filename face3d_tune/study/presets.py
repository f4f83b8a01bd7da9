"""The five presets of the owners' tuning guide (trainer contract §6), with their exact values.

`recommended`, `aggressive` and `conservative` are the guide's three commands, and `baseline` is its starting point.
`quickstart` is its short command, whose unstated values are the script's defaults: it equals `recommended`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Preset = Mapping[str, Any]

# The values of all presets: the defaults of the guide's script (trainer contract §3 and §4).
_SCRIPT_DEFAULTS: dict[str, Any] = {
    "batch_size": 32,
    "nhead": 8,
    "num_layers": 4,
    "dropout": 0.1,
    "weight_decay": 1e-5,
    "loss_type": "combined",
    "pose_unit": "degrees",
    "early_stopping_min_delta": 1e-5,
    "use_spatial_attention": False,
    "use_pose_attention": False,
}

_RECOMMENDED: dict[str, Any] = {
    **_SCRIPT_DEFAULTS,
    "lr": 5e-5,
    "mse_weight": 0.3,
    "cosine_weight": 0.7,
    "scheduler_factor": 0.2,
    "scheduler_patience": 3,
    "scheduler_min_lr": 1e-7,
    "early_stopping_patience": 15,
    "use_mixed_precision": True,
}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "baseline": {
            **_SCRIPT_DEFAULTS,
            "lr": 1e-4,
            "mse_weight": 0.5,
            "cosine_weight": 0.5,
            "scheduler_factor": 0.5,
            "scheduler_patience": 5,
            "scheduler_min_lr": 0.0,
            "early_stopping_patience": 0,
            "use_mixed_precision": False,
        },
        "recommended": _RECOMMENDED,
        "aggressive": {
            **_SCRIPT_DEFAULTS,
            "lr": 2e-5,
            "mse_weight": 0.2,
            "cosine_weight": 0.8,
            "scheduler_factor": 0.1,
            "scheduler_patience": 2,
            "scheduler_min_lr": 5e-8,
            "early_stopping_patience": 10,
            "use_mixed_precision": True,
            "use_spatial_attention": True,
            "use_pose_attention": True,
        },
        "conservative": {
            **_SCRIPT_DEFAULTS,
            "lr": 5e-5,
            "mse_weight": 0.4,
            "cosine_weight": 0.6,
            "scheduler_factor": 0.3,
            "scheduler_patience": 4,
            "scheduler_min_lr": 1e-7,
            "early_stopping_patience": 20,
            "use_mixed_precision": False,
        },
        "quickstart": _RECOMMENDED,
    }
)
