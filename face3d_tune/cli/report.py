"""`face3d-tune report`: a study as one file to send to a colleague, or as files for other programs."""

import re
from pathlib import Path
from typing import Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.option_types import Choice, HomePath
from face3d_tune.cli.options import complete_study, storage_option

_BEGINNING = 2000  # characters; every report identifies itself within them


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune report\nface3d-tune report default -o report.html --lang zh\nface3d-tune report -o -\n"
        "face3d-tune report --format csv -o tables\nface3d-tune report stage1-lr sqlite:///other.db#stage1-lr"
    ),
)
@click.argument("studies", nargs=-1, metavar="[STUDY [STUDY]]", shell_complete=complete_study)
@storage_option
@click.option("--study-name", metavar="NAME", help="The study, as in other commands; the argument STUDY is the same.")
@click.option(
    "-o",
    "--out",
    type=HomePath(),
    metavar="FILE|DIR",
    help="File to write, or folder for csv and tensorboard; - is the standard output.  [default: report-STUDY.html, or "
    "report-STUDY-csv]",
)
@click.option(
    "--format",
    "form",
    type=Choice(["html", "md", "json", "csv", "tensorboard"]),
    help="A page, Markdown without pictures, or data for scripts; csv: all trials and curves as two tables; "
    "tensorboard: each trial as a run.  [default: from FILE's extension, else html]",
)
@click.option(
    "--lang",
    "language",
    type=Choice(["en", "zh"]),
    default="en",
    show_default=True,
    help="Language of the report, and of what the terminal says.",
)
@click.option("--force", is_flag=True, help="Overwrite a file that is not a report, or files of csv and tensorboard.")
def report(
    studies: tuple[str, ...],
    storage: str,
    study_name: str | None,
    out: str | None,
    form: Any,
    language: Any,
    force: bool,
) -> None:
    """Write a report on a study, or on two side by side."""
    from datetime import datetime

    import optuna

    from face3d_tune.analysis.findings import find
    from face3d_tune.cli.report_files import write_files
    from face3d_tune.cli.report_two import read_two
    from face3d_tune.report.render import report as tell
    from face3d_tune.report.render import report_two
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import find_study

    if len(studies) > 2 or (len(studies) == 2 and study_name):
        raise click.UsageError("a report is on one study, or on two side by side; expected STUDY, or STUDY STUDY")
    study = studies[0] if studies else None
    if study is not None and study_name not in (None, study):
        raise click.UsageError(f"two studies named: {study!r} and --study-name {study_name!r}; give one of them")
    form = form or _form(out)
    if form in ("csv", "tensorboard") and len(studies) == 2:
        raise click.UsageError(f"--format {form} has the tables of one study; expected html, md or json for two")
    if form in ("csv", "tensorboard") and out == "-":
        raise click.UsageError(f"--format {form} writes files into a folder; expected -o DIR")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = datetime.now().astimezone()
    if len(studies) == 2:
        (first, second), names = read_two(Storage.parse(storage), studies)
        name, text = "-".join(names), report_two(first, second, names, form, language, made)
    else:
        with Storage.parse(storage).opened() as opened:
            found = find_study(opened, study or study_name)
            if form in ("csv", "tensorboard"):
                folder = Path(out or f"report-{_file_name(found.study_name)}-{form}")
                write_files(found, form, folder, force=force)
                return
            findings = find(found)
        name, text = findings.name, tell(findings, form, language, made)
    path = None if out == "-" else Path(out or f"report-{_file_name(name)}.{form}")
    if path is not None and not force:
        _check(path)
    if path is None:
        click.echo(text, nl=False)
        return
    _write(path, text)
    say(f"wrote {path} ({len(text.encode()) / 1000:.0f} kB)")


def _form(out: str | None) -> str:
    ending = Path(out or "").suffix.lower()
    return {".md": "md", ".json": "json"}.get(ending, "html")


def _file_name(study: str) -> str:
    """Return the study's name, with only characters that every file system accepts."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", study)[:100].rstrip(". ") or "study"


def _check(path: Path) -> None:
    """Raise ConfigError if this would overwrite something that is no report."""
    from face3d_tune.errors import ConfigError
    from face3d_tune.report.render import is_report
    from face3d_tune.system import regular_file

    if not path.exists():
        return
    try:
        regular_file.require(path)
        with path.open(encoding="utf-8", errors="replace") as file:
            own = is_report(file.read(_BEGINNING))
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be used: {error.strerror}", "name another file with -o") from error
    if not own:
        raise ConfigError(
            f"{path} exists and is not a report", "name another file with -o, or overwrite it with --force"
        )


def _write(path: Path, text: str) -> None:
    """Write the report atomically. Raises ConfigError."""
    from face3d_tune.errors import ConfigError
    from face3d_tune.system.whole_file import replacing

    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be written: {error.strerror}", "name another file with -o") from error
