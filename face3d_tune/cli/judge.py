"""`face3d-tune judge`: how well checkpoints recognise people, beside methods that need no training."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.option_types import FILE_OR_FOLDER, Choice
from face3d_tune.cli.options import (
    baseline_option,
    blend_option,
    data_options,
    inference_device_option,
    storage_option,
    weight_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from face3d_tune.storage.database import Storage


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune judge trained/default-trial-30/best_model.pth\n"
        "face3d-tune judge checkpoints/best_model.pth trained --data-dir train/datas/file --part test\n"
        "face3d-tune judge trained/default-trial-30-ensemble --blend kernel"
    ),
)
@click.argument("checkpoints", metavar="[CHECKPOINT]...", nargs=-1, type=FILE_OR_FOLDER)
@click.option(
    "--part",
    type=Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="People to judge; an evaluation on the test people is counted in --storage, as one of confirm is.",
)
@click.option(
    "--pose-unit",
    "unit",
    type=Choice(["degrees", "radians"]),
    help="Unit of the poses at the input of a model whose checkpoint records none.  [default: the better one on "
    "training people]",
)
@baseline_option
@blend_option
@weight_option
@storage_option
@data_options
@inference_device_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for scripts.")
def judge(
    checkpoints: tuple[Path, ...],
    part: Any,
    unit: Any,
    baseline: Path | None,
    blend: Any,
    weight: float | None,
    storage: str,
    data_dir: Path | None,
    device: str,
    as_json: bool,
    **pairs: Any,
) -> None:
    """Measure how well baselines and checkpoints recognise people."""
    import optuna

    from face3d_tune.data.face_data import load
    from face3d_tune.device import choose_device, device_name, set_threads
    from face3d_tune.refit.judge import judge as judged_by
    from face3d_tune.refit.judge import notes
    from face3d_tune.script.earlier_run import find
    from face3d_tune.storage.database import Storage
    from face3d_tune.training import baseline_file, predictor

    if weight is not None and blend is None:
        raise click.UsageError("--weight goes with --blend only", click.get_current_context())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place, chosen = Storage.parse(storage), choose_device(device)
    counted = part == "test" and place.holds_studies()  # now, not after the evaluation, if the database is away
    set_threads(None)
    given = None if baseline is None else baseline_file.load(baseline)
    models = [predictor.read(path, chosen, given) for path in find(checkpoints)]
    data = load(data_dir, **pairs)
    for line in data.warnings:
        say(f"warning: {line}", err=True)
    judgement = judged_by(models, data, part, unit=unit, device=chosen, blends=[blend] if blend else (), weight=weight)
    for line in notes(judgement):
        say(f"note: {line}", err=True)
    result = {**judgement.to_dict(), "device": device_name(chosen)}
    if part == "test":
        result["looks"] = _count(place, result, blend, weight) if counted else None
    if as_json:
        click.echo(json.dumps(result, indent=1, ensure_ascii=False))
        return
    from face3d_tune.cli.result_tables import judged

    judged(result)
    if part == "test":
        _tell_count(result, place)


def _count(
    place: "Storage", result: "Mapping[str, Any]", blend: str | None, weight: float | None
) -> "Sequence[Mapping[str, Any]] | None":
    """Store this evaluation with the studies on these data; return all evaluations so far, None without a study."""
    from face3d_tune.refit import evaluations

    names = [row["name"] for row in result["rows"] if row["kind"] == "checkpoint"]
    words = [] if blend is None else ["--blend", blend]
    words += [] if weight is None else ["--weight", f"{weight:.15g}"]
    command = shlex.join(["face3d-tune", "judge", *names, "--part", "test", *words])
    look = {"time": result["time"], "command": command, "compared": names}
    with place.opened() as opened:
        return evaluations.record(opened, result["data"]["fingerprint"], look)


def _tell_count(result: "Mapping[str, Any]", place: "Storage") -> None:
    from face3d_tune.analysis import confirmation

    if result["looks"] is not None:
        say(confirmation.looks(result))
        return
    say(
        f"This evaluation on the test people is not recorded anywhere: {place} holds no study on these data "
        f"({result['data']['fingerprint']})."
    )
