"""`face3d-tune import` into a study that searches the user's own script."""

from pathlib import Path
from typing import TYPE_CHECKING

from face3d_tune.cli.language import say, word
from face3d_tune.study.attrs import TrialAttr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import FrozenTrial

    from face3d_tune.script.import_folders import ExaminedFolder
    from face3d_tune.storage.database import Storage

Numbers = dict[str, tuple[int, bool]]  # by `run_id`: the trial's number, and whether it is new


def import_folders(
    paths: tuple[Path, ...],
    study_file: Path,
    place: "Storage",
    *,
    study_name: str | None,
    script: Path | None,
    epochs: int | None,
    seed: int | None,
    dry_run: bool,
) -> None:
    """Import earlier runs of a script into a study as trials. Raises RefusedRunError if some do not belong there."""
    from dataclasses import replace

    from face3d_tune.errors import RefusedRunError
    from face3d_tune.script import earlier_folder
    from face3d_tune.script.import_folders import examine
    from face3d_tune.script.study_file import read
    from face3d_tune.search.added_trials import add_imported
    from face3d_tune.search.script_search import open_script_study
    from face3d_tune.storage.study_names import name_to_search

    file = read(study_file, script)
    file = file if epochs is None else replace(file, epochs=epochs)
    examined = examine(earlier_folder.find(paths), file)
    name = name_to_search(place, study_name or file.name)
    taken = [each.trial for each in examined if each.trial is not None]
    numbers: Numbers = {}
    if taken and not dry_run:
        with place.searching(), place.opened(create=True) as opened:
            study = open_script_study(opened, name, file, seed)
            numbers = add_imported(study, opened.engine, taken)
    _print(examined, numbers, file.objective.name)
    if dry_run:
        say("\nnothing was stored: --dry-run")
    if refused := len(examined) - len(taken):
        raise RefusedRunError(
            f"{refused} of {len(examined)} runs refused; see the reasons above",
            "a run belongs to a study that has its values in [fixed] and [space], and its metric",
        )


def _print(examined: "Sequence[ExaminedFolder]", numbers: "Mapping[str, tuple[int, bool]]", metric: str) -> None:
    """Print a line for each run: its value, and the decision; then every reason."""
    from face3d_tune.analysis.script_confirmation import number
    from face3d_tune.cli.console import TranslatedTable
    from face3d_tune.cli.result_tables import results_console

    table = TranslatedTable(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for header in ("epoch", metric):
        table.add_column(header, justify="right")
    table.add_column("")
    for each in examined:
        epoch = "" if each.best_epoch is None else str(each.best_epoch)
        value = "" if each.value is None else number(each.value)
        table.add_row(str(each.run.path), epoch, value, word(fate_of(each.trial, numbers)))
    results_console().print(table)
    say("\nnumbers of the epoch that the script keeps, as the run's own files say them: they are taken at their word")
    for each in examined:
        if each.reason:
            say(f"refused: {each.run.path}: {each.reason}")
        elif each.note:
            say(f"note: {each.run.path}: {each.note}")


def fate_of(trial: "FrozenTrial | None", numbers: "Mapping[str, tuple[int, bool]]") -> str:
    """Say what became of a run: refused without a trial, else its trial by the `run_id`, new or imported before."""
    if trial is None:
        return "refused"
    number, new = numbers.get(TrialAttr.run_id.of(trial.user_attrs), (None, True))
    if number is None:
        return "would be imported"
    return f"trial {number}" if new else f"already trial {number}"
