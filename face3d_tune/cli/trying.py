"""`face3d-tune try`: a config of one's own as the next trial of a study."""

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import ONLY_STUDY, complete_preset, storage_option, study_name_option


@click.command(
    "try",
    cls=Command,
    epilog=example(
        "face3d-tune try lr=3e-4 dropout=0.3\n"
        "face3d-tune try dropout=0.3 --like 12\n"
        "face3d-tune try weight_decay=1e-3 --preset recommended"
    ),
)
@click.argument("values", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=complete_preset,
    help="Take all other values from this preset of the study.",
)
@click.option(
    "--like",
    type=click.IntRange(0),
    metavar="TRIAL",
    help="Take all other values from this trial of the study.  [default: the sampler chooses them]",
)
@storage_option
@study_name_option(ONLY_STUDY)
def try_(values: tuple[str, ...], preset: str | None, like: int | None, storage: str, study_name: str | None) -> None:
    """Queue a config of your own as a trial of a study."""
    import optuna

    from face3d_tune.search.steering import try_config
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import find_study

    context = click.get_current_context()
    if preset is not None and like is not None:
        raise click.UsageError("--preset and --like both give the other values; expected one of them", context)
    if not values and preset is None and like is None:
        raise click.UsageError("nothing to try; expected NAME=VALUE, --preset NAME or --like TRIAL", context)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Storage.parse(storage).opened() as opened:
        for line in try_config(find_study(opened, study_name), opened, values, preset=preset, like=like):
            say(line)
