"""`confirm --keep`: the checkpoints of all trainings, as an ensemble of each trial and preset."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from face3d_tune.cli.console import Console
    from face3d_tune.data.face_data import FaceData
    from face3d_tune.executor.plan import Plan
    from face3d_tune.refit.confirm import Confirmation
    from face3d_tune.refit.ensemble_folder import Members


def ensembles_in(folder: Path, confirmation: "Confirmation", data: "FaceData") -> "dict[str, Members]":
    """Return the ensemble of each candidate by name; make the folder.

    Raises ConfigError if that is impossible, or if an ensemble's own folder holds other trainings.
    """
    from face3d_tune.errors import ConfigError
    from face3d_tune.refit.ensemble_folder import Members

    another = "name another folder with --keep"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--keep {folder} cannot be used: {error.strerror}", another) from error
    ensembles, seeds = {}, [seed for (seed,) in confirmation.seeds]
    for each in confirmation.picked:
        place = folder / re.sub(r"[^\w.-]+", "-", each.name)
        ensembles[each.name] = Members(place, each.config, seeds, data, another)
        ensembles[each.name].missing()
    return ensembles


def say_size(
    console: "Console", confirmation: "Confirmation", ensembles: "Mapping[str, Members]", folder: Path
) -> None:
    """Print how much --keep will write, and how many checkpoints are lost."""
    from face3d_tune.refit.ensemble_folder import megabytes

    missing = confirmation.missing
    size = sum(megabytes(job.candidate.config, ensembles[job.candidate.name].data.feature_size) for job in missing)
    console.print(f"keep     {len(missing)} checkpoints in {folder}, {size:.0f} MB")
    absent = {name: members.missing() for name, members in ensembles.items()}
    ended = [job for job in confirmation.jobs if "error" not in confirmation.records.get(job.key, {"error": None})]
    lost = [job for job in ended if job.number in absent[job.candidate.name]]
    if lost:
        console.print(f"note: {len(lost)} trainings are stored without a checkpoint, and are not trained again for one")


def keep_winner(
    console: "Console",
    found: "Mapping[str, Any]",
    ensembles: "Mapping[str, Members]",
    plan: "Plan",
    attrs: "Mapping[str, Any]",
) -> None:
    """Write what a blend of the winner needs beside its members, if all of them are there."""
    winner = ensembles[found["winner"]["name"]]
    if winner.missing():
        return
    winner.judge(plan, attrs)
    console.print(f"kept the winner as an ensemble of {len(winner.seeds)} in {winner.folder}")
