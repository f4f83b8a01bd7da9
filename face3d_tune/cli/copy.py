"""`face3d-tune copy`: studies from one storage to another."""

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say


@click.command(
    cls=Command, epilog=example("face3d-tune copy sqlite:///face3d_tune.db postgresql://USER@HOST/face3d_tune")
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--study-name", metavar="NAME", help="The study to copy.  [default: every study]")
def copy(source: str, target: str, study_name: str | None) -> None:
    """Copy studies, exactly, to another storage."""
    import optuna

    from face3d_tune.storage import copy_studies
    from face3d_tune.storage.database import Storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place, there = Storage.parse(source), Storage.parse(target)
    copied = copy_studies.copy(place, there, study_name)
    for study in copied:
        say(f"copied study {study.name}: {study.trials} trials, to {there}")
    if not copied:
        say(f"{place} holds no study yet: nothing to copy")
    if running := sum(study.running for study in copied):
        say(
            f"warning: {running} trial(s) were in training; the next `face3d-tune run` there tries them again. "
            f"What workers still add to {place} is not in the copy",
            err=True,
        )
