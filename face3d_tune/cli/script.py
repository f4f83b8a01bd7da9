"""`face3d-tune script`: what a training script of one's own offers a search, and a study file for it."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli import script_output
from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import padded, say, width, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER
from face3d_tune.cli.options import trying_options
from face3d_tune.errors import ConfigError

if TYPE_CHECKING:
    from face3d_tune.script.draft import Draft
    from face3d_tune.script.guesses import ScriptStart
    from face3d_tune.script.metrics import ProbedNumber
    from face3d_tune.script.probe import Probe

_NUMBERS = 25  # of a script, in the table


class _ScriptCommand(Command):
    """The command, which tells a flag of the script from a mistyped option of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            hint = f"arguments of the script stand after --: {ctx.command_path} PATH -- {error.option_name} …"
            raise ConfigError(f"`{ctx.command_path}` has no option {error.option_name}", hint) from error


@click.command(
    cls=_ScriptCommand,
    epilog=example(
        "face3d-tune script train_transformer3D/train_3d_triplet.py\n"
        "face3d-tune script train.py --out search.toml -- --data_dir train/datas/file"
    ),
)
@click.argument("path", metavar="PATH", type=FILE_OR_FOLDER)
@click.argument("arguments", metavar="[-- ARGS...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--out", type=FILE_OR_FOLDER, metavar="FILE", help="Study file to write.  [default: the script's name, .toml]"
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--metric", metavar="NAME", help="Number that a trial is worth, as the script names it.  [default: a guess]"
)
@click.option(
    "--no-run",
    is_flag=True,
    help="Only read the flags, in place of running two epochs in a temporary folder; you then add the metric.",
)
@trying_options("the command")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def script(
    path: Path,
    arguments: tuple[str, ...],
    out: Path | None,
    force: bool,
    metric: str | None,
    no_run: bool,
    python: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Write a study file for your own training script."""
    from face3d_tune.script import draft as drafts
    from face3d_tune.script import guesses, metrics
    from face3d_tune.script.flags import read_script
    from face3d_tune.script.sources import whole_text

    target = _target(path, out, force=force)
    read = read_script(path)
    plan = guesses.plan(read, arguments)
    guesses.searchable(read, plan)
    if not as_json:
        _print_flags(path, len(guesses.distinct(read)), plan)
    probe, chosen = None, None
    if not no_run:
        probe = _probe(read, plan, python, timeout)
        chosen = metrics.choose(probe.numbers, str(path), whole_text(path), metric)
    own = None if python == sys.executable else python
    draft = drafts.Draft(target, read, plan, chosen, probe, own)
    content = drafts.write(draft)
    _write(target, content)
    if as_json:
        click.echo(json.dumps(_as_json(draft), indent=2, ensure_ascii=False))
        return
    if probe is not None:
        _print_numbers(probe, chosen.number if chosen else None)
    _print_space(draft)
    say(f"wrote {target}")
    if chosen is None:
        say("next: name the metric in it; without --no-run it is found")
    else:
        say(f"next: read it, then `face3d-tune run --study {shlex.quote(str(target))}`")


def _target(path: Path, out: Path | None, *, force: bool) -> Path:
    """Return the study file to write, before the script runs for minutes. Raises StudyFileError."""
    from face3d_tune.errors import StudyFileError

    target = out or Path(f"{path.stem}.toml")
    if target.suffix != ".toml":
        raise StudyFileError(f"--out {target}: a study file ends in .toml", f"--out {target.with_suffix('.toml')}")
    if target.exists() and not force:
        raise StudyFileError(f"{target} exists", "name another file with --out, or overwrite it with --force")
    if not target.absolute().parent.is_dir():
        raise StudyFileError(f"--out {target}: {target.parent} is no folder", "create it first")
    return target


def _write(target: Path, content: str) -> None:
    from face3d_tune.errors import StudyFileError
    from face3d_tune.system.whole_file import replacing

    try:
        with replacing(target) as file:
            file.write(content.encode())
    except OSError as error:
        raise StudyFileError(f"{target} cannot be written: {error.strerror}", "name another file with --out") from error


def _probe(read: Any, plan: "ScriptStart", python: str, timeout: float) -> "Probe":
    """Run the script for two epochs; show the last of its output if it fails."""
    from face3d_tune.script.probe import try_script

    say(f"running two epochs of {read.path} in a temporary folder; Ctrl-C ends it", err=True)
    with script_output.shown_if_it_fails():
        probe = try_script(read, plan, python=python, timeout=timeout)
    for note in probe.notes:
        say(f"note: {note}", err=True)
    return probe


def _print_flags(path: Path, count: int, plan: "ScriptStart") -> None:
    """Print what the flags of the script are for."""
    roles = plan.roles
    none = word("no flag")
    say(f"script       {path}, {count} flag{'s' * (count > 1)}")
    for name, flag in (("epochs", roles.epochs), ("seed", roles.seed), ("resume", roles.resume)):
        click.echo(f"{padded(word(name), 12)} {flag or none}")
    click.echo(f"{padded(word('folders'), 12)} {', '.join(roles.folders) or none}")
    for name, value in plan.fixed.items():
        click.echo(f"{padded(word('fixed'), 12)} {name} = {value}")


def _print_numbers(probe: "Probe", chosen: "ProbedNumber | None") -> None:
    """Print the numbers of the script, the metric first."""
    say(f"time         {probe.seconds:.1f} s an epoch, its start included")
    order = ("epoch", "once", "many")
    said = {"epoch": "once an epoch", "once": "once", "many": "more often"}
    numbers = sorted(probe.numbers, key=lambda number: (number != chosen, order.index(number.often)))
    widest = max(width(number.name) for number in numbers[:_NUMBERS])
    say("numbers of the script")
    for number in numbers[:_NUMBERS]:
        mark = word("metric") if number == chosen else ""
        how = padded(word(said[number.often]), 13)
        line = f"  {how} {number.source:<11} {padded(number.name, widest)} {number.values[-1]:>12.6g}  {mark}"
        click.echo(line.rstrip())
    if len(numbers) > _NUMBERS:
        say(f"  and {len(numbers) - _NUMBERS} more")


def _print_space(draft: "Draft") -> None:
    """Print which flags the study file searches."""
    from face3d_tune.script.flag_owners import kind
    from face3d_tune.study.space import describe, parse

    flags, searched = draft.script.flags, draft.searched()
    say("searched                  default      range")
    for row in searched:
        values = describe(parse(row.name, row.row, kind(flags[row.name])))
        click.echo(f"  {row.name:<23} {flags[row.name].default!s:<12} {values}")
    if offered := [row.name for row in draft.rows() if row not in searched]:
        say(f"in the file, not searched: {', '.join(offered)}")


def _as_json(draft: "Draft") -> dict[str, Any]:
    from face3d_tune.script.flags import UNKNOWN
    from face3d_tune.script.guesses import distinct

    roles, metric, probe = draft.plan.roles, draft.metric, draft.probe
    return {
        "script": draft.script.path,
        "study_file": str(draft.out),
        "flags": {
            name: {
                "flag": flag.typed,
                "kind": flag.kind,
                "default": None if flag.default is UNKNOWN else flag.default,
                "choices": flag.choices,
                "required": flag.required,
            }
            for name, flag in distinct(draft.script).items()
        },
        "epochs_flag": roles.epochs,
        "seed_flag": roles.seed,
        "folder_flags": roles.folders,
        "resume_flag": roles.resume,
        "fixed": draft.plan.fixed,
        "searched": [row.name for row in draft.searched()],
        "metric": metric and metric.number.name,
        "source": metric and metric.number.source,
        "direction": metric and metric.direction,
        "keep_lowest": metric and metric.keep_lowest,
        "seconds_per_epoch": probe and round(probe.seconds, 3),
        "notes": probe.notes if probe else (),
        "numbers": [
            {"name": number.name, "source": number.source, "often": number.often, "values": number.values}
            for number in (probe.numbers if probe else ())
        ],
    }
