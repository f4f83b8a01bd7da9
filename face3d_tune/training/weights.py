"""The model that a checkpoint contains, as the names and shapes of its weights show (trainer contract §3)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

from torch import Tensor

from face3d_tune.config import TrialConfig
from face3d_tune.training.model import Model

# Keys under which scripts store their weights; the last is a file that contains nothing else.
_PLACES = ("model_state_dict", "state_dict", "model")
# Prefixes of torch.nn.DataParallel and torch.compile before the names of the module that they wrap.
_WRAPPERS = ("module", "_orig_mod")
_FIRST, _WIDTH = "input_projection.weight", "transformer_decoder.layers.0.linear1.weight"
# Fields of TrialConfig that names and shapes show.
SHOWN = ("layout", "d_model", "dim_feedforward", "num_layers", "use_spatial_attention", "use_pose_attention")
_LAYER = re.compile(r"transformer_decoder\.layers\.(\d+)\.")


def find(checkpoint: Mapping[Any, Any]) -> dict[str, Tensor] | None:
    """Find the weights of a model in a checkpoint, or return None; names are those of `unwrapped`."""
    for each in (*(checkpoint.get(place) for place in _PLACES), checkpoint):
        if is_weights(each):
            return unwrapped(each)
    return None


def is_weights(value: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Tell whether a value is a state dict: names to tensors, at least one."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in value.items())
    )


def unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to the bare model's names, without the prefixes of wrappers."""
    return {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): weight for name, weight in weights.items()
    }


def structure(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer from names and shapes what they show of a config; empty for another kind of model.

    The key `feature_size` is beside the fields of TrialConfig. Heads and dropout leave no trace in weights.
    """
    if not all(name in weights and weights[name].ndim == 2 and weights[name].numel() for name in (_FIRST, _WIDTH)):
        return {}
    names = list(weights)
    return {
        "layout": "keypoint" if "fusion_weights" in weights else "pose",
        "feature_size": weights[_FIRST].shape[1],
        "d_model": weights[_FIRST].shape[0],
        "dim_feedforward": weights[_WIDTH].shape[0],
        "num_layers": len({match[1] for match in map(_LAYER.match, names) if match}),
        "use_spatial_attention": any(name.startswith("spatial_fusion.") for name in names),
        "use_pose_attention": any(name.startswith("pose_attention.") for name in names),
    }


def differences(weights: Mapping[str, Tensor], config: TrialConfig, feature_size: int) -> list[str]:
    """Compare weights with the model of a config: each difference in a few words, none if they load strictly.

    A setting names its difference. Names and shapes describe what no setting explains.
    """
    settings = structure(weights)
    wanted = {**config.to_dict(), "feature_size": feature_size}
    if settings.get("layout") == "pose":
        # The pose layout has no such part: the flag goes with the layout, and any such weights are reported below.
        wanted["use_spatial_attention"] = settings["use_spatial_attention"] = False
    differences = [
        f"{name} = {_text(value)}, not {_text(wanted[name])}"
        for name, value in settings.items()
        if value != wanted[name]
    ]
    sizes = {name: value for name, value in settings.items() if name != "feature_size"}
    like = replace(config, **sizes, nhead=1) if settings else config  # one head divides every size
    shapes = {
        name: tuple(weight.shape)
        for name, weight in Model(like, settings.get("feature_size", feature_size), None).state_dict().items()
    }
    if lacking := shapes.keys() - weights.keys():
        differences.append(f"it lacks {_listed(name for name in shapes if name in lacking)}")
    if extra := [name for name in weights if name not in shapes]:
        differences.append(f"it also has {_listed(extra)}")
    for name, shape in shapes.items():
        if name in weights and tuple(weights[name].shape) != shape:
            differences.append(f"{name} has the shape {_shape(weights[name].shape)}, not {_shape(shape)}")
    return differences


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _listed(names: Iterable[str]) -> str:
    """Return the first two names, and how many more there are."""
    first, *rest = names
    return f"{first}, {rest[0]} and {len(rest) - 1} more" if len(rest) > 2 else ", ".join((first, *rest))
