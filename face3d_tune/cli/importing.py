"""`face3d-tune import`: earlier runs as the first trials of a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER
from face3d_tune.cli.options import (
    data_options,
    layout_option,
    objective_option,
    require_options_of_a_script,
    storage_option,
)

# Options that have no meaning for a script.
_TRAINER_ONLY = ("unconfirmed", "data_dir", "split", "min_yaw", "max_yaw", "turn_angle", "layout", "objective")

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face3d_tune.script.import_runs import Examined


@click.command(
    "import",
    cls=Command,
    epilog=example(
        "face3d-tune import checkpoints/best_model.pth --data-dir train/datas/file --dry-run\n"
        "face3d-tune import checkpoints old_runs --data-dir train/datas/file"
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=FILE_OR_FOLDER)
@click.option(
    "--study",
    "study_name_or_file",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="Study file, as for run.",
)
@click.option("--study-name", metavar="NAME", help="Name of the study.  [default: the study file's name]")
@click.option(
    "--script",
    type=FILE_OR_FOLDER,
    metavar="FILE.py",
    help="The script of a study file that searches one of your own.  [default: the study file's]",
)
@storage_option
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="As for run.  [default: the study file's budget]")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of a new study.  [default: 42]")
@click.option(
    "--unconfirmed",
    is_flag=True,
    help="Also import runs whose cosine does not hold on the study's validation people, e.g. runs validated on "
    "their training pairs.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be imported, and store nothing.")
@data_options
@layout_option
@objective_option
def import_(
    paths: tuple[Path, ...],
    study_name_or_file: str,
    study_name: str | None,
    script: Path | None,
    storage: str,
    epochs: int | None,
    seed: int | None,
    unconfirmed: bool,
    dry_run: bool,
    data_dir: Path | None,
    layout: Any,
    objective: Any,
    **pairs: Any,
) -> None:
    """Import earlier runs into a study as trials."""
    import optuna

    from face3d_tune.cli.script_import import import_folders
    from face3d_tune.data.face_data import load
    from face3d_tune.errors import RefusedRunError
    from face3d_tune.script import earlier_run
    from face3d_tune.script.import_runs import examine
    from face3d_tune.script.study_file import has_script
    from face3d_tune.search.added_trials import add_imported
    from face3d_tune.search.open_study import check, open_study, store_baselines
    from face3d_tune.storage.database import Storage
    from face3d_tune.storage.study_names import name_to_search
    from face3d_tune.study import study_file
    from face3d_tune.study.objective import Objective
    from face3d_tune.study.settings import Settings
    from face3d_tune.study.warm_start import take_up
    from face3d_tune.system.paths import expanded

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if script is not None or has_script(study_name_or_file):
        require_options_of_a_script(_TRAINER_ONLY)
        how: dict[str, Any] = {"study_name": study_name, "script": script, "epochs": epochs, "seed": seed}
        import_folders(paths, expanded(study_name_or_file), Storage.parse(storage), dry_run=dry_run, **how)
        return
    file, place = study_file.read(study_name_or_file), Storage.parse(storage)
    runs = [earlier_run.read(path) for path in earlier_run.find(paths)]
    data = load(data_dir, **pairs)
    for line in data.warnings:
        say(f"warning: {line}", err=True)
    settings = Settings(layout, epochs or file.epochs, seed, objective=Objective(objective or file.objective))
    name = name_to_search(place, study_name or file.name)
    bound, stage = take_up(place, name, None, data, file.bind(layout, data.feature_size, settings.epochs), settings)
    check(bound, settings, data)
    examined = [examine(run, bound, settings, data, unconfirmed=unconfirmed) for run in runs]
    taken = [each.trial for each in examined if each.trial is not None]
    if dry_run or not taken:
        _print(examined, {})
    else:
        with place.searching(), place.opened(create=True) as opened:
            study = open_study(opened, name, bound, settings, data, stage)
            store_baselines(study, data, settings.folds)
            numbers = add_imported(study, opened.engine, taken)
        _print(examined, numbers)
    refused = len(examined) - len(taken)
    if dry_run:
        say("\nnothing was stored: --dry-run")
    if refused:
        raise RefusedRunError(
            f"{refused} of {len(examined)} runs refused; see the reasons above",
            "--unconfirmed takes those whose cosine does not hold; parameters outside a study's space need another "
            "study file",
        )


def _print(examined: "Sequence[Examined]", numbers: "dict[str, tuple[int, bool]]") -> None:
    """Print a line for each run: its claimed and measured cosine, and the decision; then every reason."""
    from face3d_tune.analysis.recognising import of_trial
    from face3d_tune.cli.console import TranslatedTable
    from face3d_tune.cli.result_tables import results_console
    from face3d_tune.cli.script_import import fate_of

    table = TranslatedTable(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for header in ("epoch", "says", "validation", "train", "both", "rank-1"):
        table.add_column(header, justify="right")
    table.add_column("")
    for each in examined:
        by_people = {str(whom): cosine for whom, cosine in each.measured.items()}
        cosines = [f"{by_people[whom]:.4f}" if whom in by_people else "" for whom in ("validation", "train", "both")]
        fate = word(fate_of(each.trial, numbers))
        table.add_row(str(each.run.path), str(each.run.best_epoch), f"{each.claim:.4f}", *cosines, _rank1(each), fate)
    results_console().print(table)
    say("\ncosine of the best epoch: as its file says, and as its weights give on people of this study")
    records = [of_trial(each.trial) for each in examined if each.trial]
    sizes = {record["enrolled"] for record in records if record}
    for enrolled in sizes:  # the same in every run, if any has been measured
        say(f"rank-1: of the validation people, among {enrolled} enrolled")
    for each in examined:
        if each.reason:
            say(f"{'refused' if each.trial is None else 'warning'}: {each.run.path}: {each.reason}")
        elif each.note:
            say(f"note: {each.run.path}: {each.note}")


def _rank1(each: "Examined") -> str:
    from face3d_tune.analysis.recognising import of_trial, rank1

    rate = rank1(of_trial(each.trial)) if each.trial else None
    return "" if rate is None else f"{rate:.3f}"
