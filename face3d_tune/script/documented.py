"""The documented trainer among users' scripts, and the config that its flags mean (trainer contract §3 to §5)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from face3d_tune.config import ABOUT, DEFAULTS, Layout, PoseUnit, SchedulerType, TrialConfig
from face3d_tune.errors import ConfigError
from face3d_tune.script.flags import DOCUMENTED, UNKNOWN, Script
from face3d_tune.training.unsearched_flags import UNSEARCHED_FLAGS

_CORE = (
    *("data_dir", "epochs", "batch_size", "lr", "mse_weight", "cosine_weight", "scheduler_factor"),
    *("scheduler_patience", "dim_feedforward", "nhead", "d_model"),
)
_LAYERS = ("num_decoder_layers", "num_layers")  # a copy with both builds its model by the first
_LIMITS = ("min_yaw_angle", "max_yaw_angle")
_THEIRS = tuple(name for name, about in ABOUT.items() if not about.ours)
# Flags that the built-in trainer has, or that change none of its numbers.
_KNOWN = (*DOCUMENTED.flags, *_THEIRS, *UNSEARCHED_FLAGS, *_LAYERS, *_LIMITS, "model_type", "seed")


def is_documented(script: Script) -> bool:
    """Tell whether a script has the flags that every copy of the documented trainer has."""
    return script.flags.keys() >= set(_CORE) and not script.flags.keys().isdisjoint(_LAYERS)


@dataclass(frozen=True, slots=True)
class DocumentedValues:
    """The values of a copy's flags: those that a command sets, and the defaults of the others.

    Args:
        script: The copy, for which `is_documented` holds.
        values: What a command sets, by flag.
        own: Flags that a search sets by itself, such as folders.
    """

    script: Script
    values: Mapping[str, Any]
    own: Collection[str] = ()

    def config(self, *, layout: Layout, pose_unit: PoseUnit, epochs: int) -> TrialConfig:
        """Return the config with these values and without warm-up, which copies do in ways of their own.

        Raises ConfigError, naming the flag, if the built-in trainer cannot train with these values.
        """
        if strange := [name for name in self.values if self.script.flags[name].typed in self.others]:
            raise ConfigError(f"the built-in trainer has no {', '.join(strange)}")
        if (scheduler := self._value("scheduler_type")) not in get_args(SchedulerType):
            raise ConfigError(f"the built-in trainer has no scheduler_type = {scheduler}")
        values = {name: self._value(name) for name in _THEIRS if name not in ("layout", "pose_unit")}
        values |= {"warmup_epochs": 0, "epochs": epochs, "layout": layout, "pose_unit": pose_unit}
        if layout == "pose":
            values["use_spatial_attention"] = False  # that layout has no such part, so a copy ignores the flag
        for name, value in values.items():
            if type(DEFAULTS.get(name)) is float and type(value) is int:
                values[name] = float(value)
        return TrialConfig(**values)

    @property
    def data_dir(self) -> str:
        """Return the folder of the data as the script gets it. Raises ConfigError if its default cannot be read."""
        return str(self._value("data_dir"))

    @property
    def limits(self) -> tuple[float, float | None]:
        """Return the limits of |yaw|; none is 0, or None. Raises ConfigError."""
        low, high = (self._value(name) if name in self.script.flags else None for name in _LIMITS)
        return float(low or 0), None if high is None or high == float("inf") else float(high)

    @property
    def others(self) -> tuple[str, ...]:
        """Return the flags, as typed, that the built-in trainer lacks."""
        known = {self.script.flags[name].typed for name in (*_KNOWN, *self.own) if name in self.script.flags}
        return tuple(sorted({flag.typed for flag in self.script.flags.values()} - known))

    def _value(self, name: str) -> Any:
        """Return the value of a flag that trains as the script would."""
        place = next((each for each in _LAYERS if each in self.script.flags), name) if name in _LAYERS else name
        flag = self.script.flags.get(place)
        if flag is None:
            if name in DEFAULTS and (ABOUT[name].optional or name == "early_stopping_min_delta"):
                return DEFAULTS[name]
            raise ConfigError(f"{self.script.path} has no --{name}")
        given = [value for key, value in self.values.items() if self.script.flags[key].typed == flag.typed]
        value = given[-1] if given else flag.default
        if value is UNKNOWN:
            raise ConfigError(f"the default of {flag.typed} cannot be read from the source of {self.script.path}")
        return DEFAULTS.get(name) if value is None else value
