"""`face3d-tune export` of a study that searches the user's own script."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli import script_output
from face3d_tune.cli.language import say
from face3d_tune.study.attrs import StudyAttr

if TYPE_CHECKING:
    from face3d_tune.script.flags import Script
    from face3d_tune.study.attrs import StoredScript
    from face3d_tune.study.lookup import StoredTrial


def export_script(
    stored: "StoredTrial",
    form: str,
    *,
    script: Path | None,
    shell: Any,
    partial: bool,
    tried: tuple[str | None, float] | None,
) -> None:
    """Print a trial as a command of its script, as JSON, or as a preset of the study file.

    `tried`: run the command until its first epoch has ended, with this Python (None: the study's), and wait for it so
    many seconds.
    """
    from face3d_tune.errors import ExportError
    from face3d_tune.script.export import quote
    from face3d_tune.script.export_trial import changed, command_of, moved, script_of, to_json, to_toml

    table = StudyAttr.script.of(stored.study_attrs)
    for name in changed(table):
        say(f"warning: {name} has changed since the study, so the trial's numbers may not come again", err=True)
    match form:
        case "json":
            click.echo(to_json(stored), nl=False)
            return
        case "toml":
            click.echo(to_toml(stored), nl=False)
            return
    accepted = script_of(table, script)
    exported = command_of(stored, accepted, other=script is not None)
    for note in exported.notes:
        say(f"note: {note}", err=True)
    if exported.missing and not partial:
        raise ExportError(
            f"{accepted.path} cannot express {'; '.join(exported.missing)}",
            "--partial prints the command without",
        )
    for line in exported.missing:
        say(f"warning: not expressed: {line}", err=True)
    if tried is not None:
        python, timeout = tried
        _check(stored, moved(table, script, python), accepted, timeout)
    for command in exported.commands:
        click.echo(quote(command, shell))


def _check(stored: "StoredTrial", table: "StoredScript", script: "Script", timeout: float) -> None:
    """Run the command until its first epoch has ended; compare it with the trial's on stderr. Raises ScriptError."""
    from face3d_tune.script.one_epoch import difference, try_command

    say(
        f"check: one epoch of {script.path} with {table['command'][0]}, in a temporary folder; Ctrl-C ends it", err=True
    )
    with script_output.shown_if_it_fails():
        tried = try_command(stored, table, script, timeout)
    say(f"check: it trains; one epoch and its start took {tried.seconds:.0f} s", err=True)
    for line in difference(tried, stored):
        say(line, err=True)
