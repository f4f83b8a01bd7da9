"""`face3d-tune exclude`: take a trial out of a study, or let it count again."""

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import ONLY_STUDY, storage_option, study_name_option


@click.command(
    cls=Command,
    epilog=example('face3d-tune exclude 12 --reason "trained on the old labels"\nface3d-tune exclude 12 --undo'),
)
@click.argument("number", metavar="TRIAL", type=click.IntRange(0))
@click.option("--reason", metavar="TEXT", default="", help="Why: stored and shown.  [default: no reason]")
@click.option("--undo", is_flag=True, help="Let the trial count again.")
@storage_option
@study_name_option(ONLY_STUDY)
def exclude(number: int, reason: str, undo: bool, storage: str, study_name: str | None) -> None:
    """Take a trial out of best, tables, pruner and sampler."""
    import optuna

    from face3d_tune.search.steering import bring_trial_back, exclude_trial
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import find_study

    if undo and reason:
        raise click.UsageError("--reason goes with an exclusion, not with --undo", click.get_current_context())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Storage.parse(storage).opened() as opened:
        study = find_study(opened, study_name)
        lines = bring_trial_back(study, opened, number) if undo else exclude_trial(study, opened, number, reason)
        for line in lines:
            say(line)
