"""`face3d-tune predict`: frontal embeddings for a folder of side views."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.inference import tell_blend
from face3d_tune.cli.language import say
from face3d_tune.cli.option_types import FILE_OR_FOLDER, Choice, Number
from face3d_tune.cli.options import baseline_option, blend_option, data_options, inference_device_option, weight_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from face3d_tune.config import PoseUnit
    from face3d_tune.data.views import Views
    from face3d_tune.training.prediction_file import Blend, Member
    from face3d_tune.training.predictor import Predictor


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune predict trained/default-trial-30/best_model.pth faces160 -o frontal.npy\n"
        "face3d-tune predict checkpoints/best_model.pth train/datas/file -o frontal.npy --pose-unit radians\n"
        "face3d-tune predict trained/default-trial-30-ensemble faces160 -o frontal.npy --blend kernel"
    ),
)
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True, type=FILE_OR_FOLDER)
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
@baseline_option
@blend_option
@weight_option
@data_options
@inference_device_option
def predict(
    checkpoints: tuple[Path, ...],
    folder: Path,
    out: Path,
    force: bool,
    unit: Any,
    scale: float | None,
    baseline: Path | None,
    blend: Any,
    weight: float | None,
    data_dir: Path | None,
    device: str,
    **pairs: Any,
) -> None:
    """Predict frontal embeddings for a folder of side views."""
    from face3d_tune.data.views import read_views
    from face3d_tune.device import choose_device, device_name, set_threads
    from face3d_tune.refit import doubts
    from face3d_tune.script.earlier_run import find
    from face3d_tune.training import baseline_file, predictor
    from face3d_tune.training.prediction_file import Member, about_file, check_fits, write

    _require_blend(blend)
    paths = find(checkpoints)
    _require_usable(out, paths, folder, force)
    chosen = choose_device(device)
    set_threads(None)
    given = None if baseline is None else baseline_file.load(baseline)
    models = [predictor.read(path, chosen, given) for path in paths]
    of_views = [Member(each, unit or each.pose_unit or "degrees") for each in models]
    mixed = None if blend is None else _blend(checkpoints, of_views, blend, weight, data_dir, chosen, pairs)
    reading = [each for each in models if each.needs_landmarks]
    views = read_views(
        folder,
        with_landmarks=bool(reading) or (mixed is not None and mixed.baseline.needs_landmarks),
        scale=scale,
        recorded_scale=_recorded_scale(reading, mixed),
    )
    for each in models:
        check_fits(each, views)
        for doubt in doubts.of_inputs(each, folder):
            say(f"note: {each.path}: {doubt}", err=True)
    members = [Member(each, unit or _unit(each, views)) for each in models]
    about = _with_bar(
        len(views),
        lambda after_rows: write(members, views, out, blend=mixed, device=device_name(chosen), after_rows=after_rows),
    )
    if mixed is not None:
        tell_blend(mixed)
    say(f"wrote {out} ({about['output']['rows']} rows of {views.feature_size} numbers) and {about_file(out)}")


def _require_blend(blend: str | None) -> None:
    """Raise UsageError if an option is there that goes with --blend only."""
    context = click.get_current_context()
    for option in ("weight", "data_dir", "split", "min_yaw", "max_yaw", "turn_angle"):
        if blend is None and context.get_parameter_source(option) == click.core.ParameterSource.COMMANDLINE:
            flag = "--" + option.replace("_", "-")
            raise click.UsageError(f"{flag} goes with --blend only", context)


def _blend(
    given: tuple[Path, ...],
    members: "list[Member]",
    kind: Any,
    weight: float | None,
    data_dir: Path | None,
    device: Any,
    pairs: dict[str, Any],
) -> "Blend":
    """Return the blend that `train --seeds` left in the folder, or without that and with --data-dir, fit one."""
    from face3d_tune.data.face_data import load
    from face3d_tune.refit import blend
    from face3d_tune.refit.ensemble_folder import ABOUT

    if data_dir is None and len(given) == 1 and (given[0] / ABOUT).is_file():
        return blend.of_folder(given[0], kind, members, weight)
    data = load(data_dir, **pairs)
    for line in data.warnings:
        say(f"warning: {line}", err=True)
    return blend.of_data(kind, members, data, weight, device)


def _recorded_scale(reading: "list[Predictor]", mixed: "Blend | None") -> float | None:
    """Return the scale of the landmarks that the models record; None if they record none, or different ones."""
    recorded = {each.landmark_scale for each in reading}
    if mixed is not None and mixed.baseline.needs_landmarks:
        recorded.add(mixed.landmark_scale)
    return recorded.pop() if len(recorded) == 1 else None


def _require_usable(out: Path, checkpoints: list[Path], folder: Path, force: bool) -> None:
    """Raise an error now, not after the last row, if the two files cannot be written or would replace an input."""
    from face3d_tune.data.files import FILES
    from face3d_tune.errors import ConfigError
    from face3d_tune.training.prediction_file import about_file

    another = "name another file with -o"
    if out.suffix != ".npy":
        raise ConfigError(f"-o {out} does not end in .npy", f"-o {out}.npy")
    if not out.parent.is_dir():
        raise ConfigError(f"-o {out} cannot be used: there is no folder {out.parent}", "make the folder first")
    inputs = [path.resolve() for path in (*checkpoints, *(folder / name for name in FILES))]
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
    from face3d_tune.cli.console import Console, progress_bar

    console = Console(stderr=True)
    with progress_bar(console, described=False) as bars:
        task = bars.add_task("rows", total=rows)
        return work(lambda done: bars.update(task, completed=done))
