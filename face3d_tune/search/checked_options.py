"""What the command line checks of its options, for a search from Python."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import get_args

from face3d_tune.config import Layout
from face3d_tune.data.pairs import Split, TurnAngle
from face3d_tune.device import Amp
from face3d_tune.errors import ConfigError, did_you_mean
from face3d_tune.executor.plan import Engine
from face3d_tune.script.study_file import has_script
from face3d_tune.search.search_options import SearchOptions
from face3d_tune.study.objective import ObjectiveName
from face3d_tune.system import durations


def check(options: SearchOptions, given: Sequence[str]) -> None:
    """Check the options, those of a script too. Raises ConfigError.

    `given`: which of `data_dir` and `engine` the caller gave. From the environment they are no mistake with a script.
    """
    study, budget, data, workers = options.search, options.budget, options.data, options.workers
    for name, value, allowed in (
        ("objective", study.objective, (None, *get_args(ObjectiveName))),
        ("layout", study.layout, get_args(Layout)),
        ("split", data.split, get_args(Split)),
        ("turn_angle", data.turn_angle, get_args(TurnAngle)),
        ("amp", options.device.amp, get_args(Amp)),
        ("engine", options.device.engine, get_args(Engine)),
    ):
        if value not in allowed:
            listed = ", ".join(repr(each) for each in allowed if each is not None)
            near = did_you_mean(str(value), [each for each in allowed if each is not None])
            raise ConfigError(f"{name} = {value!r} is not one of {listed}{near}")
    whole = (
        ("folds", study.folds, 1),
        ("seed", study.seed, 0),
        ("trials", budget.trials, 1),
        ("epochs", budget.epochs, 1),
        ("target_epochs", budget.target_epochs, 1),
        ("slots", options.device.slots, 1),
        ("keep_checkpoints", workers.keep_checkpoints, 0),
    )
    real = (
        ("target", budget.target, -math.inf),
        ("min_yaw", data.min_yaw, 0),
        ("max_yaw", data.max_yaw, 0),
        ("checkpoint_every", workers.checkpoint_every, 0),
    )
    seconds = (
        ("timeout", budget.timeout, 0),
        ("worker_timeout", workers.worker_timeout, 0),
        ("trial_timeout", workers.trial_timeout, 0),
        ("storage_timeout", workers.storage_timeout, 0),
    )
    number_kinds = (whole, Integral, "a whole number"), (real, Real, "a number"), (seconds, Real, "a number of seconds")
    for rows, kind, expected in number_kinds:
        for name, number, low in rows:
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, kind):
                raise ConfigError(f"{name} = {number!r} has the wrong type; expected {expected}")
            if rows is seconds and not number > low:
                raise ConfigError(f"{name} = {number} is out of range; expected more than {low} seconds")
            if rows is seconds and number > durations.MOST:
                raise ConfigError(f"{name} = {number} is out of range; expected at most {durations.MOST} seconds")
            if not number >= low:
                raise ConfigError(f"{name} = {number} is out of range; expected at least {low}")
    if budget.target_epochs is not None and budget.target is None:
        raise ConfigError("target_epochs says how long the target must hold; expected target with it")
    if study.script is not None or has_script(study.study_name_or_file):
        _require_defaults(options, given)


def _require_defaults(options: SearchOptions, given: Sequence[str]) -> None:
    """Raise ConfigError if an option is given that has no meaning for a script."""
    study, data, device, workers = options.search, options.data, options.device, options.workers
    changed = {
        "before": study.before is not None,
        "objective": study.objective is not None,
        "layout": study.layout != "keypoint",
        "folds": study.folds != 1,
        "split": data.split != "person",
        "min_yaw": data.min_yaw != 0,
        "max_yaw": data.max_yaw is not None,
        "turn_angle": data.turn_angle != "first",
        "amp": device.amp != "auto",
        "checkpoint_every": workers.checkpoint_every != 0,
    }
    if named := next((name for name, wrong in changed.items() if wrong), next(iter(given), None)):
        raise ConfigError(f"{named} is for the built-in trainer: the study file sets a script's flags")
