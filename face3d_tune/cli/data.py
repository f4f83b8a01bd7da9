"""`face3d-tune data`: look at the six data files before trusting a search to them."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Group, example
from face3d_tune.cli.language import padded, say, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER, Choice
from face3d_tune.cli.options import pair_options
from face3d_tune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from face3d_tune.data.face_data import FaceData

BIN = 15  # degrees of yaw per bar
BAR = 40  # characters of the longest bar

UNITS = Choice(["degrees", "radians"])


@click.group(cls=Group, epilog=example("face3d-tune data check path/to/files"))
def data() -> None:
    """Check, write or convert the six data files."""


@data.command(epilog=example("face3d-tune data check path/to/files --max-yaw 60"))
@click.argument("folder", metavar="[DIR]", type=FILE_OR_FOLDER, required=False, envvar="FACE3D_TUNE_DATA_DIR")
@pair_options
def check(folder: Path | None, **selection: Any) -> None:
    """Show what is in DIR, or in the sample, and all that is wrong."""
    from face3d_tune.data.face_data import inspect

    inspection = inspect(folder, **selection)
    say(f"data         {inspection.source}")
    if inspection.data is not None:
        _describe(inspection.data)
        for warning in inspection.data.warnings:
            say(f"warning: {warning}")
        return
    for problem in inspection.problems:
        say(f"{problem.severity}: {problem}")
        if problem.hint:
            say(f"  hint: {problem.hint}")
    count = len(inspection.errors)
    raise DataError(
        f"{count} problem{'s' * (count > 1)} in {inspection.source}", hint=""
    )  # each problem has its own above


@data.command(epilog=example("face3d-tune data sample path/to/new/folder"))
@click.argument("folder", metavar="DIR", type=FILE_OR_FOLDER)
def sample(folder: Path) -> None:
    """Write the six files of the bundled sample, faces160, into DIR."""
    from face3d_tune.data.convert import write_sample

    write_sample(folder)
    say(f"wrote the six files of faces160 to {folder}")


@data.command(
    epilog=example(
        "face3d-tune data convert path/to/files path/to/copy --pose-unit radians\n"
        "face3d-tune data convert path/to/files path/to/copy --inputs ridge --pose-unit radians"
    )
)
@click.argument("folder", metavar="DIR", type=FILE_OR_FOLDER)
@click.argument("out", metavar="OUT", type=FILE_OR_FOLDER)
@click.option("--pose-unit", type=UNITS, help="Unit of the poses in the copy, which records it.")
@click.option(
    "--from", "unit_if_unrecorded", type=UNITS, help="Unit of the poses in DIR, if its files do not record it."
)
@click.option(
    "--inputs",
    type=Choice(["ridge", "kernel"]),
    help="Baseline whose outputs replace the embeddings of the views; OUT/baseline.npz is the fitted baseline.",
)
@pair_options
def convert(folder: Path, out: Path, pose_unit: Any, unit_if_unrecorded: Any, inputs: Any, **selection: Any) -> None:
    """Copy DIR to OUT with other poses or view embeddings."""
    from face3d_tune.data.convert import convert as write_copy

    if pose_unit is None and inputs is None:
        raise ConfigError("convert changes nothing without --pose-unit or --inputs", "give one of them, or both")
    if inputs is None:
        old_unit = write_copy(folder, out, unit=pose_unit, unit_if_unrecorded=unit_if_unrecorded)
    else:
        from face3d_tune.refit.baselines import NAMES
        from face3d_tune.training import inputs as training_inputs

        if unit_if_unrecorded is not None:
            raise ConfigError(
                "--inputs takes no --from", "first record the unit with --from and --pose-unit, in another copy"
            )
        old_unit = training_inputs.write_copy(folder, out, inputs, unit=pose_unit, **selection)
        say(f"wrote {out}: embeddings of the views are the outputs of {NAMES[inputs]}, which baseline.npz holds")
    if pose_unit is not None:
        change = f"still in {pose_unit}" if old_unit == pose_unit else f"from {old_unit} to {pose_unit}"
        say(f"wrote {out}: poses {change}, pose_unit recorded")


def _describe(data: "FaceData") -> None:
    """Print the contents of valid data."""
    import numpy as np

    from face3d_tune.data.doubts import SHARE, narrowest_arc
    from face3d_tune.data.pairs import PARTS, TURN_ANGLES

    views = np.unique(np.concatenate([pairs[:, 1] for pairs in data.parts.values()]))
    people = {name for names in data.people.values() for name in names}
    pairs = {pair for part in data.parts.values() for pair in map(tuple, part.tolist())}
    limit = "" if data.max_yaw is None else f" to {data.max_yaw:g}"
    limits = f", |yaw| from {data.min_yaw:g}{limit} degrees" if data.min_yaw or limit else ""
    say(f"people       {len(people)}")
    say(f"pairs        {len(pairs)} ({len(views)} of {len(data.poses)} views{limits})")
    say(f"features     {data.feature_size} numbers per embedding")
    say(f"pose unit    {data.file_pose_unit} ({'recorded' if data.pose_unit_recorded else 'not recorded'})")
    say(f"landmarks    {data.landmark_source}")
    say(f"fingerprint  {data.fingerprint()}")
    say(f"split        {data.split}")
    for part in PARTS:
        cosine = data.no_model_cosine(part)
        without = "" if part == "train" or math.isnan(cosine) else f"   no-model cosine {cosine:.3f}"
        say(f"  {padded(word(part), 10)} {len(data.people[part]):>5} people {len(data.parts[part]):>7} pairs{without}")
    say(f"angles, degrees      lowest   median  highest   {SHARE:.0%} within")
    for angle, degrees in zip(TURN_ANGLES, data.poses[views].T, strict=True):
        name = f"{angle}{', yaw' if angle == data.turn_angle else ''}"
        low, middle, high = np.percentile(degrees, (0, 50, 100)).round(1) + 0.0  # no -0.0
        say(f"  {name:<15} {low:>10.1f} {middle:>8.1f} {high:>8.1f} {narrowest_arc(degrees):>13.1f}")
    say("yaw, degrees      views")
    for line in _histogram(data.yaw[views].tolist()):
        say(f"  {line}")


def _histogram(yaw: list[float]) -> list[str]:
    """Return one line with a bar per BIN degrees; one bar on each side counts the angles beyond ±90."""
    last = 90 // BIN
    counts = dict.fromkeys(range(-last - 1, last + 1), 0)
    for angle in yaw:
        counts[max(-last - 1, min(last, math.floor(angle / BIN)))] += 1
    used = [index for index, count in counts.items() if count]
    longest = max(counts.values())
    lines = []
    for index in range(used[0], used[-1] + 1):
        low, high = index * BIN, (index + 1) * BIN
        label = "below -90" if index < -last else "90 and above" if index == last else f"{low:>3} to {high:>3}"
        bar = "#" * math.ceil(BAR * counts[index] / longest)
        lines.append(f"{label:<13} {counts[index]:>7} {bar}".rstrip())
    return lines
