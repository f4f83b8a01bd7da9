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

    from face3d_tune.search.exclude import bring_back
    from face3d_tune.search.exclude import exclude as take_out
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.objective import Objective
    from face3d_tune.study.trials import best_trial, find_study

    if undo and reason:
        raise click.UsageError("--reason goes with an exclusion, not with --undo", click.get_current_context())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Storage.parse(storage).opened() as opened:  # without the right to search, which a running search has
        study = find_study(opened, study_name)
        before = best_trial(study)
        if undo:
            bring_back(study, opened.engine, number)
            say(f"trial {number} counts again")
        else:
            say(take_out(study, opened.engine, number, reason))
        best = best_trial(study)
        if best is None:
            say("no completed trial counts now")
        elif best.value is not None and (before is None or best.number != before.number):
            say(f"the best is now trial {best.number}: {Objective.of_study(study.user_attrs).said(best.value)}")
