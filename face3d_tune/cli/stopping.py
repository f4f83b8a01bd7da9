"""`face3d-tune stop`: end a search, wherever its workers run."""

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import ONLY_STUDY, storage_option, study_name_option


@click.command(cls=Command, epilog=example("face3d-tune stop\nface3d-tune stop --now --study-name stage1-lr"))
@click.option("--now", is_flag=True, help="Cut running epochs off.  [default: they end, and are saved]")
@storage_option
@study_name_option(ONLY_STUDY)
def stop(now: bool, storage: str, study_name: str | None) -> None:
    """Stop a search: every worker of the study ends after its epoch."""
    import optuna

    from face3d_tune.search.steering import stop_search
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import find_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Storage.parse(storage).opened() as opened:
        for line in stop_search(find_study(opened, study_name), opened, now=now):
            say(line)
