"""`face3d-tune confirm` of a study that searches the user's own script."""

import json
import shlex
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.language import chosen, word
from face3d_tune.cli.retraining import interruption_explained, require_preset, stored_already
from face3d_tune.study.attrs import StudyAttr

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study

    from face3d_tune.cli.console import Console
    from face3d_tune.refit.script_confirm import ScriptConfirmation, ScriptJob
    from face3d_tune.refit.stored_trainings import Record
    from face3d_tune.storage.database import Storage

_TOP = 1  # further trials cost trainings of the script, and the best trial is the winner


def confirm_script(
    study: "Study",
    opened: "RDBStorage",
    place: "Storage",
    *,
    top: int | None,
    seeds: int,
    baseline: str | None,
    script: Path | None,
    device: str,
    slots: int | None,
) -> "dict[str, Any]":
    """Train the best trial and the presets again with the script, and return what that found, as stored."""
    from face3d_tune.cli.console import Console
    from face3d_tune.refit.script_candidates import script_candidates
    from face3d_tune.refit.script_confirm import ScriptConfirmation
    from face3d_tune.script.export_trial import moved, script_of
    from face3d_tune.script.running.slots import ScriptSlots
    from face3d_tune.script.study_running import running
    from face3d_tune.search.prepare_script import script_plan

    console = Console(stderr=True, soft_wrap=True)
    stored = StudyAttr.script.of(study.user_attrs)
    accepted, table = script_of(stored, script), moved(stored, script)
    picked = script_candidates(study, top or _TOP)
    confirmation = ScriptConfirmation(study, opened, table, accepted, picked, seeds, console.print)
    require_preset(baseline, picked)
    plan = script_plan(device, slots)
    _introduce(console, confirmation)
    console.print(f"engine   {plan}\n")
    with tempfile.TemporaryDirectory(prefix="face3d-tune-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ours = [place.sqlite_file.absolute()] if place.sqlite_file else []
        how = running(table, accepted, study=folder.name, ours=ours)
        with closing(ScriptSlots(how, folder, plan.slots, plan.devices, plan.threads)) as places:
            _train(console, confirmation, places, folder)
    words = ["face3d-tune", "confirm", "--study-name", study.study_name, "--seeds", str(seeds)]
    words += [] if top is None else ["--top", str(top)]
    return confirmation.conclude(shlex.join(words), baseline)


def show(found: "dict[str, Any]", study: str, *, as_json: bool) -> None:
    """Print a confirmation as a table and sentences, or as JSON."""
    from face3d_tune.analysis.script_confirmation import headings, rows, sentences
    from face3d_tune.cli.console import TranslatedTable
    from face3d_tune.cli.result_tables import results_console

    if as_json:
        click.echo(json.dumps({"study": study, **found}, indent=1, ensure_ascii=False))
        return
    first, *others = headings(found, chosen())
    table = TranslatedTable(box=None, pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    for row in rows(found):
        table.add_row(*row)
    results_console().print(table)
    click.echo()
    for sentence in sentences(found, chosen()):
        click.echo(sentence)


def _introduce(console: "Console", confirmation: "ScriptConfirmation") -> None:
    """Print what will be trained, and what weakens it."""
    trials = [each.name for each in confirmation.picked if not each.preset]
    presets = [" = ".join((each.name, *each.aliases)) for each in confirmation.picked if each.preset]
    jobs, held = len(confirmation.jobs), stored_already(confirmation)
    seeded = confirmation.table["seed_flag"] is not None
    console.print(f"script   {confirmation.table['path']}")
    console.print(f"study    {confirmation.study.study_name}: {', '.join(trials)}")
    console.print(f"presets  {', '.join(presets) or 'none'}")
    if seeded:
        console.print(f"train    {jobs} trainings, {confirmation.count} seeds of each{held}")
    else:
        console.print(f"train    {jobs} trainings, {confirmation.count} repeats of each{held}")
    for name in confirmation.changed:
        console.print(f"warning: {name} has changed since the study, so its values there are of an earlier version")
    if not seeded:
        console.print("note: the study names no flag for a seed, so repeats may differ at random or not at all")


def _train(console: "Console", confirmation: "ScriptConfirmation", slots: Any, folder: Path) -> None:
    """Run the missing trainings: print a line for each that ends, and on a terminal a bar."""
    from face3d_tune.analysis.script_confirmation import number
    from face3d_tune.cli.console import progress_bar
    from face3d_tune.system.signals import endings_interrupt

    total, metric = len(confirmation.missing), confirmation.table["metric"]
    with endings_interrupt(), progress_bar(console) as bars:
        bar = bars.add_task(word("trainings"), total=total)

        def ended(job: "ScriptJob", record: "Record") -> None:
            name = f"{job.candidate.name}, {'repeat' if job.seed is None else 'seed'} {job.number}"
            if "error" in record:
                console.print(f"{name:<24} diverged: {record['error']}")
            else:
                epochs = f"epoch {record['best_epoch']} of {record['epochs']}"
                console.print(f"{name:<24} {metric} {number(record['numbers'][metric])} ({epochs})")
            bars.advance(bar)

        with interruption_explained(console, confirmation):
            confirmation.train(slots, folder, ended)
