"""Hyperparameter search for the Transformer that turns a side-view face embedding into the frontal one.

    import face3d_tune as ft

    study = ft.run(trials=20)  # as `face3d-tune run --trials 20`
    study = ft.load_study("sqlite:///face3d_tune.db")

Importing this module loads neither torch nor Optuna: its names are loaded when they are first used (docs/python.md).
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face3d_tune import errors as errors
    from face3d_tune.data.face_data import load as load_data
    from face3d_tune.search.from_python import Progress, run
    from face3d_tune.study.loaded_study import Study, load_study
    from face3d_tune.study.records import Trial

__version__ = "0.1.0"

__all__ = ["Progress", "Study", "Trial", "errors", "load_data", "load_study", "run"]

# Where each name lies. `data` and `search`, which one might expect, are folders of this package.
_PLACES = {
    "Progress": ("search.from_python", "Progress"),
    "Study": ("study.loaded_study", "Study"),
    "Trial": ("study.records", "Trial"),
    "load_data": ("data.face_data", "load"),
    "load_study": ("study.loaded_study", "load_study"),
    "run": ("search.from_python", "run"),
}

if not TYPE_CHECKING:

    def __getattr__(name):
        """Load a public name when it is first used."""
        if name == "errors":
            return import_module("face3d_tune.errors")
        if name not in _PLACES:
            raise AttributeError(f"module 'face3d_tune' has no attribute {name!r}")
        place, attribute = _PLACES[name]
        with warnings.catch_warnings():
            # In a notebook without ipywidgets, tqdm warns when Optuna loads it; nothing here uses its bars.
            warnings.filterwarnings("ignore", "IProgress not found")
            module = import_module(f"face3d_tune.{place}")
        value = globals()[name] = getattr(module, attribute)
        return value

    def __dir__():
        """List the public names beside the loaded ones."""
        return sorted({*globals(), *__all__})
