"""What a search needs of a study file, whatever it trains: the built-in trainer or a script of the user's own."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from face3d_tune.study.space import Space
from face3d_tune.study.study_file import InitialTrial
from face3d_tune.study.tables import Component


class SearchedFile(Protocol):
    """A study file, read and checked: `study_file.BoundStudyFile`, or `script.study_file.ScriptStudyFile`."""

    @property
    def name(self) -> str:
        """Return the name of the study."""

    @property
    def path(self) -> Path:
        """Return the path of the file."""

    @property
    def trials(self) -> int:
        """Return the number of finished trials to reach."""

    @property
    def sampler(self) -> Component:
        """Return the sampler's name and options."""

    @property
    def pruner(self) -> Component:
        """Return the pruner's name and options."""

    @property
    def space(self) -> Space:
        """Return the distribution of each searched parameter."""

    @property
    def fixed(self) -> Mapping[str, Any]:
        """Return the values that every trial has."""

    @property
    def presets(self) -> Mapping[str, Any]:
        """Return the first trials, by name, in their order."""

    @property
    def near(self) -> Sequence[str]:
        """Return the names of those that are near the best of a study before."""

    @property
    def parameters(self) -> Collection[str]:
        """Return the parameters that a preset may set."""

    def exact(self, name: str, value: Any) -> Any:
        """Return a value in its parameter's type. Raises ConfigError if it does not fit."""

    def constant(self, name: str) -> Any:
        """Return the value of a parameter that is not searched; None if trials may have several, or it is not known."""

    def config(self, params: Mapping[str, Any], overrides: Mapping[str, Any]) -> Any:
        """Return what trains with these values. Raises ConfigError."""

    def distinct_presets(self) -> tuple[list[InitialTrial], dict[str, str]]:
        """Return the presets without equal ones, and for those the names of the earlier ones."""
