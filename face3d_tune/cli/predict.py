"""`face3d-tune predict`: frontal embeddings for a folder of side views."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import FILE_OR_FOLDER, Choice, Number, inference_device_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from face3d_tune.config import PoseUnit
    from face3d_tune.data.views import Views
    from face3d_tune.training.predictor import Predictor


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune predict trained/default-trial-30/best_model.pth faces160 -o frontal.npy\n"
        "face3d-tune predict checkpoints/best_model.pth train/datas/file -o frontal.npy --pose-unit radians"
    ),
)
@click.argument("checkpoint", type=FILE_OR_FOLDER)
@click.argument("folder", metavar="DIR", type=FILE_OR_FOLDER)
@click.option(
    "-o",
    "--out",
    type=FILE_OR_FOLDER,
    required=True,
    metavar="FILE.npy",
    help="File to write; FILE.json beside it says what was made of what.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.npy and FILE.json.")
@click.option(
    "--pose-unit",
    "unit",
    type=Choice(["degrees", "radians"]),
    help="Unit of the poses at the model's input.  [default: the checkpoint's; without one, the unit of DIR]",
)
@click.option(
    "--landmark-scale",
    "scale",
    type=Number(0, min_open=True),
    metavar="X",
    help="Factor of landmarks_3d_original.  [default: standard_scale of DIR/front_metadata.json; without that file, "
    "the checkpoint's]",
)
@inference_device_option
def predict(
    checkpoint: Path, folder: Path, out: Path, force: bool, unit: Any, scale: float | None, device: str
) -> None:
    """Predict frontal embeddings for a folder of side views."""
    from face3d_tune.data.views import read_views
    from face3d_tune.device import choose_device, device_name, set_threads
    from face3d_tune.training import predictor
    from face3d_tune.training.prediction_file import about_file, check_fits, write

    _require_usable(out, checkpoint, folder, force)
    chosen = choose_device(device)
    set_threads(None)
    model = predictor.read(checkpoint, chosen)
    views = read_views(
        folder, with_landmarks=model.layout == "keypoint", scale=scale, recorded_scale=model.landmark_scale
    )
    check_fits(model, views)
    unit = unit or _unit(model, views)
    about = _with_bar(
        len(views),
        lambda after_rows: write(model, views, unit, out, device=device_name(chosen), after_rows=after_rows),
    )
    say(f"wrote {out} ({about['output']['rows']} rows of {views.feature_size} numbers) and {about_file(out)}")


def _require_usable(out: Path, checkpoint: Path, folder: Path, force: bool) -> None:
    """Raise an error now, not after the last row, if the two files cannot be written or would replace an input."""
    from face3d_tune.data.files import FILES
    from face3d_tune.errors import ConfigError
    from face3d_tune.training.prediction_file import about_file

    another = "name another file with -o"
    if out.suffix != ".npy":
        raise ConfigError(f"-o {out} does not end in .npy", f"-o {out}.npy")
    if not out.parent.is_dir():
        raise ConfigError(f"-o {out} cannot be used: there is no folder {out.parent}", "make the folder first")
    inputs = [path.resolve() for path in (checkpoint, *(folder / name for name in FILES))]
    written = (out, about_file(out))
    for path in written:
        if path.is_dir():
            raise ConfigError(f"-o {out} cannot be used: {path} is a folder", another)
        if path.resolve() in inputs:
            raise ConfigError(f"-o {out} would overwrite {path}, one of the inputs", another)
    taken = [str(path) for path in written if path.exists()]
    if taken and not force:
        exist = "exists" if len(taken) == 1 else "exist"
        raise ConfigError(f"{' and '.join(taken)} {exist} already", f"{another}, or overwrite with --force")


def _unit(model: "Predictor", views: "Views") -> "PoseUnit":
    """Return the unit of the poses in training; a script, which records none, reads poses as its files have them."""
    if model.pose_unit is not None:
        return model.pose_unit
    unit = views.pose_unit or "degrees"
    say(
        f"note: the checkpoint does not record the unit of its poses; it gets {unit}, as in {views.folder}; "
        "--pose-unit sets another",
        err=True,
    )
    return unit


def _with_bar(rows: int, work: "Callable[[Callable[[int], object]], dict[str, Any]]") -> dict[str, Any]:
    """Run `work` with a bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from face3d_tune.cli.console import Console

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task("rows", total=rows)
        return work(lambda done: bars.update(task, completed=done))
