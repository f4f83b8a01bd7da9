"""`face3d-tune try`: a config of one's own as the next trial of a study."""

from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say
from face3d_tune.cli.options import ONLY_STUDY, complete_preset, storage_option, study_name_option

if TYPE_CHECKING:
    import optuna

    from face3d_tune.search.trial_queue import TrialQueue


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

    from face3d_tune.search.trial_queue import TrialQueue
    from face3d_tune.search.tried_config import tried_config
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.trials import find_study

    context = click.get_current_context()
    if preset is not None and like is not None:
        raise click.UsageError("--preset and --like both give the other values; expected one of them", context)
    if not values and preset is None and like is None:
        raise click.UsageError("nothing to try; expected NAME=VALUE, --preset NAME or --like TRIAL", context)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    words = [*values, *(["--preset", preset] if preset else []), *([] if like is None else ["--like", str(like)])]
    with Storage.parse(storage).opened() as opened:  # without the right to search, which a running search has
        study = find_study(opened, study_name)
        config = tried_config(study, values, preset=preset, like=like)
        queue = TrialQueue(study, opened)
        number = queue.enqueue_tried(config.params, config.overrides, words)
        what_is_next = _what_is_next(study, queue, opened)
    given = {**config.params, **config.overrides}
    say(f"queued as trial {number} of study {study.study_name!r}: {_listed(given)}")
    if config.sampled:
        say(f"the sampler chooses {', '.join(config.sampled)}")
    say(what_is_next)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()
    )


def _what_is_next(study: "optuna.Study", queue: "TrialQueue", opened: Any) -> str:
    """Return who trains the trial, and when."""
    from optuna.trial import TrialState

    from face3d_tune.storage.workers import read_workers
    from face3d_tune.study.trials import FINISHED, budget_of

    counts, budget = queue.counts(), budget_of(study.user_attrs)
    spent = sum(counts.get(state, 0) for state in (*FINISHED, TrialState.RUNNING))
    waiting = counts.get(TrialState.WAITING, 0)
    if budget is not None and spent + waiting > budget:
        return (
            f"the budget of {budget} trials does not reach it: `face3d-tune run --trials {spent + waiting}` trains it"
        )
    if any(worker.alive for worker in read_workers(opened.engine, opened.get_study_id_from_name(study.study_name))):
        return "a running search trains it as soon as a slot is free"
    return "no search of this study runs: the next `face3d-tune run` trains it"
