"""The values of one training: a frozen record, checked once, when it is built.

Field names are the flags of the users' `train_3d.py` (trainer contract §5), so that a name means one thing everywhere.
"""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from face3d_tune.errors import ConfigError

Layout = Literal["keypoint", "pose"]
PoseUnit = Literal["degrees", "radians"]
LossType = Literal["combined", "mse", "cosine"]
InputsName = Literal["view", "ridge", "kernel"]
OptimizerName = Literal["adamw", "adam"]
SchedulerType = Literal["plateau", "cosine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The facts about a parameter beside its type and default: its range, and where it counts."""

    low: float | None = None  # the least value
    above: float | None = None  # instead of `low`: every value is above it
    high: float | None = None  # the greatest value
    below: float | None = None  # instead of `high`: every value is below it
    structure: bool = False  # decides shape, type, kernel or rows of a tensor, so that trainings share it or no batch
    optional: bool = False  # a script without such a flag trains as the default says
    ours: bool = False  # no known copy of the script has such a flag, so one of that name may mean something else
    later: bool = False  # older versions had no such field; they trained as the default says

    def expected(self, value: float) -> str | None:
        """Return the range in words if `value` is outside it."""
        least = self.low if self.above is None else self.above
        if least is None:
            return None
        limits = [self.high is None or value <= self.high, self.below is None or value < self.below]
        if (value >= least if self.above is None else value > least) and value < float("inf") and all(limits):
            return None
        lower = f"at least {least:g}" if self.above is None else f"above {least:g}"
        if self.high is not None or self.below is not None:
            return f"{lower} and {f'at most {self.high:g}' if self.below is None else f'below {self.below:g}'}"
        return f"a number {'of ' if self.above is None else ''}{lower}"


def _about(**about: Any) -> dict[str, Any]:
    return {"about": About(**about)}


def _extra(**about: Any) -> dict[str, Any]:
    """Describe a field that this program added to those of the script."""
    return _about(**about, optional=True, ours=True, later=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """All values that a training depends on, besides the data, the seed and the device.

    Raises ConfigError, naming the field, if a value is outside the range that its metadata states.
    """

    d_model: int = field(metadata=_about(low=1, structure=True))  # a multiple of nhead
    dim_feedforward: int = field(metadata=_about(low=1, structure=True))
    layout: Layout = field(default="keypoint", metadata=_about(structure=True))
    nhead: int = field(default=8, metadata=_about(low=1, structure=True))
    num_layers: int = field(default=4, metadata=_about(low=1, structure=True))
    dropout: float = field(default=0.1, metadata=_about(low=0, below=1))
    use_spatial_attention: bool = field(default=False, metadata=_about(structure=True, optional=True))  # keypoint only
    use_pose_attention: bool = field(default=False, metadata=_about(structure=True, optional=True))
    pose_unit: PoseUnit = "degrees"
    inputs: InputsName = field(default="view", metadata=_extra(structure=True))  # in place of the view's embedding
    batch_size: int = field(default=32, metadata=_about(low=2, structure=True))  # batch normalisation needs two
    epochs: int = field(default=100, metadata=_about(low=1))
    lr: float = field(default=1e-4, metadata=_about(above=0))
    weight_decay: float = field(default=1e-5, metadata=_about(low=0))
    optimizer: OptimizerName = field(default="adamw", metadata=_extra(structure=True))
    mse_weight: float = field(default=0.5, metadata=_about(low=0))
    cosine_weight: float = field(default=0.5, metadata=_about(low=0))
    loss_type: LossType = field(default="combined", metadata=_about(optional=True))
    focal_gamma: float = field(default=0.0, metadata=_extra(low=0))  # 0 = off
    angle_weight: float = field(default=0.0, metadata=_extra(low=0))  # at |yaw| = 90 degrees, 0 = off
    identity_weight: float = field(default=0.0, metadata=_extra(low=0, high=1))  # share of the whole loss, 0 = off
    identity_temperature: float = field(default=0.1, metadata=_extra(above=0))  # in units of cosine
    scheduler_type: SchedulerType = field(default="plateau", metadata=_about(optional=True, later=True))
    scheduler_factor: float = field(default=0.5, metadata=_about(above=0, below=1))  # of plateau
    scheduler_patience: int = field(default=5, metadata=_about(low=0))  # epochs, of plateau
    scheduler_min_lr: float = field(default=0.0, metadata=_about(low=0))
    warmup_epochs: int = field(default=0, metadata=_about(low=0, optional=True, later=True))  # 0 = off
    early_stopping_patience: int = field(default=0, metadata=_about(low=0, optional=True))  # epochs, 0 = off
    early_stopping_min_delta: float = field(default=1e-5, metadata=_about(low=0))  # of validation loss
    use_mixed_precision: bool = field(default=False, metadata=_about(optional=True))
    oversampling: float = field(default=0.0, metadata=_extra(low=0))  # of views of 45 degrees and more, 0 = off
    view_mixing: float = field(default=0.0, metadata=_extra(low=0, high=1))  # probability
    feature_noise: float = field(default=0.0, metadata=_extra(low=0))  # of the embedding's length
    pose_jitter: float = field(default=0.0, metadata=_extra(low=0))  # degrees
    landmark_noise: float = field(default=0.0, metadata=_extra(low=0))  # of the landmarks' root mean square

    def __post_init__(self) -> None:
        for name in ABOUT:
            check_type(name, getattr(self, name))
        for name, about in ABOUT.items():
            if expected := about.expected(value) if isinstance(value := getattr(self, name), int | float) else None:
                raise ConfigError(f"{name} = {value!r} is out of range; expected {expected}")
        if self.loss_type == "combined" and self.mse_weight + self.cosine_weight == 0:
            raise ConfigError("mse_weight and cosine_weight are both 0; at least one must be above 0")
        if self.d_model % self.nhead:
            divisors = [n for n in range(1, min(self.d_model, 64) + 1) if self.d_model % n == 0]
            raise ConfigError(
                f"nhead = {self.nhead} does not divide d_model = {self.d_model}",
                f"use one of {', '.join(map(str, divisors))}",
            )
        if self.layout == "pose" and self.use_spatial_attention:
            raise ConfigError("use_spatial_attention = true needs layout = keypoint: the pose layout has no such part")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON; `TrialConfig(**config.to_dict())` is the same config."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the values that tell this config from others, e.g. to hash.

        A later field at its default is left out, so the hash of a training from before that field stays the same.
        """
        return {name: value for name, value in asdict(self).items() if not ABOUT[name].later or value != DEFAULTS[name]}


ABOUT: Mapping[str, About] = {each.name: each.metadata.get("about", About()) for each in fields(TrialConfig)}
DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(TrialConfig) if each.default is not MISSING}

# Settings of a whole run: every trial of a study shares them, so a study file or preset does not set them.
RUN_SETTINGS = ("epochs", "layout")

# What a study file may search or fix and what a preset may set, with the type of each. `width` is d_model as a
# multiple of the data's feature size, so that one study file fits embeddings of any size.
PARAMETERS: dict[str, Any] = {
    **{each.name: each.type for each in fields(TrialConfig) if each.name not in RUN_SETTINGS},
    "width": float,
}
_TYPES: Mapping[str, Any] = {**{each.name: each.type for each in fields(TrialConfig)}, **PARAMETERS}


def check_type(name: str, value: object) -> None:
    """Raise ConfigError unless `value` has the type of the parameter or run setting `name`."""
    check_kind(name, value, _TYPES[name])


def check_kind(name: str, value: object, expected: Any) -> None:
    """Raise ConfigError unless `value` is of a type: bool, int, float, str, or a Literal of choices.

    An int may stand for a float, a bool never for a number.
    """
    if choices := get_args(expected):
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in choices):
            raise ConfigError(f"{name} = {value!r} is unknown; expected one of {', '.join(map(str, choices))}")
        return
    fits = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):
        word = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[expected]
        raise ConfigError(f"{name} = {value!r} has the wrong type; expected {word}")
    if expected is float and isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ConfigError(f"{name} is a whole number that no float can hold; expected at most 1e308")


def resolve(values: Mapping[str, Any], *, feature_size: int, epochs: int, layout: Layout) -> TrialConfig:
    """Complete parameter values for data of `feature_size` numbers per embedding.

    d_model follows the data unless given, directly or through `width`; dim_feedforward is 4 · d_model unless given;
    mse_weight is 1 − cosine_weight unless given. Raises ConfigError.
    """
    complete = dict(values)
    for name, value in complete.items():
        check_type(name, value)
        if PARAMETERS[name] is float:
            complete[name] = float(value)
    width = complete.pop("width", None)
    if width is not None and not 0 < width < float("inf"):
        raise ConfigError(f"width = {width!r} is out of range; expected a number above 0")
    if "d_model" not in complete:
        nhead = max(1, complete.get("nhead", 8))  # TrialConfig refuses a smaller one by its own name
        complete["d_model"] = feature_size if width is None else max(1, round(width * feature_size / nhead)) * nhead
    elif width is not None:
        raise ConfigError("width and d_model are both set; one follows from the other, so set one")
    complete.setdefault("dim_feedforward", 4 * complete["d_model"])
    if "cosine_weight" in complete and "mse_weight" not in complete:
        if complete["cosine_weight"] > 1:
            raise ConfigError(
                f"cosine_weight = {complete['cosine_weight']} is above 1, so mse_weight cannot be 1 - cosine_weight",
                "set mse_weight as well",
            )
        complete["mse_weight"] = 1.0 - complete["cosine_weight"]
    return TrialConfig(**complete, epochs=epochs, layout=layout)
