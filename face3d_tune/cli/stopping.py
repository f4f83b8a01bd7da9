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

    from face3d_tune.search.stop import request_stop
    from face3d_tune.storage.database import Storage
    from face3d_tune.storage.workers import read_workers
    from face3d_tune.study.trials import find_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Storage.parse(storage).opened() as opened:  # without the right to search, which a running search has
        study = find_study(opened, study_name)
        rows = read_workers(opened.engine, opened.get_study_id_from_name(study.study_name))
        workers = [f"{row.host}:{row.pid}" for row in rows if row.alive]
        if workers:
            request_stop(study, opened.engine, now=now)
    if not workers:
        say(f"no search of study {study.study_name!r} runs: nothing to stop")
        return
    name, listed = study.study_name, ", ".join(workers)
    if now:
        say(f"study {name!r}: asked {len(workers)} worker(s) to stop at once: {listed}")
    else:
        say(f"study {name!r}: asked {len(workers)} worker(s) to stop after the epochs that they train: {listed}")
    say("trials in training are queued again; `face3d-tune run` resumes them")
