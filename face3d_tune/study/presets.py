"""The five presets of the owners' tuning guide (trainer contract §6), with their exact values.

`recommended`, `aggressive` and `conservative` are the guide's three commands, and `baseline` is its starting point.
`quickstart` is its short command, whose unstated values are the script's defaults: it equals `recommended`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from face3d_tune.config import ABOUT, DEFAULTS, RUN_SETTINGS

Preset = Mapping[str, Any]

OF_SCRIPT = "defaults"  # the preset of a study of a script that has the script's own defaults

# What the guide began with, the defaults of its script (trainer contract §3 and §4); the others say what they change.
_BASELINE: dict[str, Any] = {
    name: value for name, value in DEFAULTS.items() if name not in RUN_SETTINGS and not ABOUT[name].later
}

_RECOMMENDED: dict[str, Any] = {
    **_BASELINE,
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
        "baseline": _BASELINE,
        "recommended": _RECOMMENDED,
        "aggressive": {
            **_BASELINE,
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
            **_BASELINE,
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
