"""`face3d-tune doctor`: checks whether a search can run here, with a fix for each problem."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import padded, say, translate, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER
from face3d_tune.cli.options import (
    artifacts_option,
    layout_option,
    notify_option,
    storage_option,
    trying_options,
    turn_angle_option,
)
from face3d_tune.system.safe_text import visible

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune doctor --data-dir train/datas/file\n"
        "face3d-tune doctor --data-dir train/datas/file --script train_transformer3D/train_3d.py"
    ),
)
@storage_option
@artifacts_option
@click.option(
    "--data-dir",
    type=FILE_OR_FOLDER,
    envvar="FACE3D_TUNE_DATA_DIR",
    show_envvar=True,
    metavar="DIR",
    help="Folder with your six files.  [default: the bundled sample]",
)
@turn_angle_option
@click.option(
    "--script",
    type=FILE_OR_FOLDER,
    metavar="PATH",
    help="Your copy of the training script; it is run for one epoch on a few views, to find which layout it builds.",
)
@trying_options("--script")
@layout_option
@notify_option(
    "Send a test message to this service, as `run --notify` does, and say whether it was taken.  [default: none]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def doctor(
    context: click.Context,
    storage: str,
    artifacts: str | None,
    data_dir: Path | None,
    turn_angle: Any,
    script: Path | None,
    python: str,
    timeout: float,
    layout: Any,
    notify: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check whether a search can run here, and suggest fixes."""
    import optuna

    from face3d_tune.search.doctor import ScriptToTry, examine

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    findings = []
    to_try = ScriptToTry(script, python, timeout, layout) if script else None
    for finding in examine(storage, artifacts, data_dir, turn_angle, to_try, notify):
        findings.append(finding)
        if as_json:
            continue
        level = click.style(padded(word(finding.level), 8), _COLOURS[finding.level])
        said = visible(translate(finding.said), keep="\n")
        click.echo(f"{level} {padded(word(finding.name), 10)} {said}")
        if finding.level != "ok" and finding.advice:
            say(" " * 20 + f"hint: {finding.advice}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    context.exit(any(finding.level == "problem" for finding in findings))
