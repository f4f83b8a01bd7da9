"""The values of one training: a frozen record, checked once, when it is built.

Field names are the flags of the users' `train_3d.py` (trainer contract §5), so that a name means one thing everywhere.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from face3d_tune.errors import ConfigError

Layout = Literal["keypoint", "pose"]
PoseUnit = Literal["degrees", "radians"]
LossType = Literal["combined", "mse", "cosine"]
OptimizerName = Literal["adamw", "adam"]
SchedulerType = Literal["plateau", "cosine"]


# Fields that older versions did not have; they trained as the defaults of these fields do.
_LATER = (
    *("optimizer", "focal_gamma", "angle_weight", "scheduler_type", "warmup_epochs", "oversampling"),
    *("view_mixing", "feature_noise", "pose_jitter", "landmark_noise"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """All values that a training depends on, besides the data, the seed and the device.

    Raises ConfigError, naming the field, if a value is outside the range stated beside it.
    """

    d_model: int  # a multiple of nhead
    dim_feedforward: int  # >= 1
    layout: Layout = "keypoint"
    nhead: int = 8  # >= 1
    num_layers: int = 4  # >= 1
    dropout: float = 0.1  # [0, 1)
    use_spatial_attention: bool = False  # keypoint layout only
    use_pose_attention: bool = False
    pose_unit: PoseUnit = "degrees"
    batch_size: int = 32  # >= 2: batch normalisation needs two
    epochs: int = 100  # >= 1
    lr: float = 1e-4  # > 0
    weight_decay: float = 1e-5  # >= 0
    optimizer: OptimizerName = "adamw"
    mse_weight: float = 0.5  # >= 0
    cosine_weight: float = 0.5  # >= 0
    loss_type: LossType = "combined"
    focal_gamma: float = 0.0  # >= 0, 0 = off
    angle_weight: float = 0.0  # at |yaw| = 90 degrees, >= 0, 0 = off
    scheduler_type: SchedulerType = "plateau"
    scheduler_factor: float = 0.5  # (0, 1), of plateau
    scheduler_patience: int = 5  # epochs, >= 0, of plateau
    scheduler_min_lr: float = 0.0  # >= 0
    warmup_epochs: int = 0  # >= 0, 0 = off
    early_stopping_patience: int = 0  # epochs, 0 = off
    early_stopping_min_delta: float = 1e-5  # of validation loss, >= 0
    use_mixed_precision: bool = False
    oversampling: float = 0.0  # of views of 45 degrees and more, >= 0, 0 = off
    view_mixing: float = 0.0  # probability, [0, 1]
    feature_noise: float = 0.0  # of the embedding's length, >= 0
    pose_jitter: float = 0.0  # degrees, >= 0
    landmark_noise: float = 0.0  # of the landmarks' root mean square, >= 0

    def __post_init__(self) -> None:
        for field in fields(self):
            check_type(field.name, getattr(self, field.name))
        at_least = {
            "d_model": 1,
            "dim_feedforward": 1,
            "nhead": 1,
            "num_layers": 1,
            "batch_size": 2,
            "epochs": 1,
            "weight_decay": 0,
            "mse_weight": 0,
            "cosine_weight": 0,
            "scheduler_patience": 0,
            "scheduler_min_lr": 0,
            "early_stopping_patience": 0,
            "early_stopping_min_delta": 0,
            "dropout": 0,
            "focal_gamma": 0,
            "angle_weight": 0,
            "warmup_epochs": 0,
            "oversampling": 0,
            "view_mixing": 0,
            "feature_noise": 0,
            "pose_jitter": 0,
            "landmark_noise": 0,
        }
        for name, low in at_least.items():
            value = getattr(self, name)
            if not low <= value < float("inf"):
                raise ConfigError(f"{name} = {value!r} is out of range; expected a number of at least {low}")
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr = {self.lr!r} is out of range; expected a number above 0")
        if not self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout!r} is out of range; expected at least 0 and below 1")
        if not self.view_mixing <= 1:
            raise ConfigError(f"view_mixing = {self.view_mixing!r} is out of range; expected at least 0 and at most 1")
        if not 0 < self.scheduler_factor < 1:
            raise ConfigError(
                f"scheduler_factor = {self.scheduler_factor!r} is out of range; expected above 0 and below 1"
            )
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
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value != defaults[name]}


# Settings of a whole run: every trial of a study shares them, so a study file or preset does not set them.
RUN_SETTINGS = ("epochs", "layout")

# What a study file may search or fix and what a preset may set, with the type of each. `width` is d_model as a
# multiple of the data's feature size, so that one study file fits embeddings of any size.
PARAMETERS: dict[str, Any] = {
    **{field.name: field.type for field in fields(TrialConfig) if field.name not in RUN_SETTINGS},
    "width": float,
}


def check_type(name: str, value: object) -> None:
    """Raise ConfigError unless `value` has the type of the parameter or run setting `name`.

    An int may stand for a float, a bool never for a number.
    """
    expected = {**{field.name: field.type for field in fields(TrialConfig)}, **PARAMETERS}[name]
    if choices := get_args(expected):
        if value not in choices or isinstance(value, bool):
            raise ConfigError(f"{name} = {value!r} is unknown; expected one of {', '.join(choices)}")
        return
    fits = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):
        word = {bool: "true or false", int: "a whole number", float: "a number"}[expected]
        raise ConfigError(f"{name} = {value!r} has the wrong type; expected {word}")


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
