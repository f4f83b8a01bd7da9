"""`face3d-tune run`: search for better hyperparameters."""

import os
from dataclasses import dataclass

import click

from face3d_tune.cli.base import Command, example, option_group
from face3d_tune.cli.option_types import FILE_OR_FOLDER, Duration, Number
from face3d_tune.cli.options import (
    NOTIFY_VARIABLE,
    checkpoint_options,
    complete_study,
    complete_study_file,
    data_options,
    device_options,
    engine_option,
    layout_option,
    notify_option,
    objective_option,
    require_options_of_a_script,
    slots_option,
    storage_option,
    study_name_option,
)
from face3d_tune.search.search_options import (
    BudgetOptions,
    DataOptions,
    DeviceOptions,
    MessageOptions,
    SearchOptions,
    StudyOptions,
    WorkerOptions,
)

# Options that have no meaning for a script.
_TRAINER_ONLY = (
    "before",
    "objective",
    "layout",
    "folds",
    "data_dir",
    "split",
    "min_yaw",
    "max_yaw",
    "turn_angle",
    "amp",
    "engine",
    "checkpoint_every",
)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The form of the output."""

    quiet: bool
    as_json: bool


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune run --trials 50\nface3d-tune run --data-dir train/datas/file --study stage1-lr --timeout 8h"
    ),
)
@option_group(
    "Search",
    StudyOptions,
    click.option(
        "--study",
        "study_name_or_file",
        default="default",
        show_default=True,
        metavar="NAME|FILE",
        shell_complete=complete_study_file,
        help="Study file: a built-in name (default, stage1-lr, …) or a path ending in .toml.",
    ),
    study_name_option("Name of the study in the storage.  [default: the study file's name]"),
    click.option(
        "--from",
        "before",
        metavar="STUDY",
        shell_complete=complete_study,
        help="Start from the best trial of this study in the same storage, and from points near it.  [default: none]",
    ),
    click.option(
        "--like",
        metavar="URL#STUDY",
        help="Try the three best configs of this study on other data after the presets, e.g. sqlite:///other.db; "
        "#STUDY names one of several.  [default: none]",
    ),
    click.option(
        "--space",
        type=FILE_OR_FOLDER,
        metavar="FILE.toml",
        help="Let the ranges of a study that exists grow to those in the table [space] of this file; the others stay.",
    ),
    storage_option,
    click.option(
        "--script",
        type=FILE_OR_FOLDER,
        metavar="FILE.py",
        help="Search this training script of your own instead of the built-in trainer; --study is then the file that "
        "`face3d-tune script FILE.py` writes.  [default: the study file's]",
    ),
    click.option(
        "--accept-changed-script",
        is_flag=True,
        help="Continue a study although its script changed, so that its trials come from more than one version.",
    ),
    objective_option,
    layout_option,
    click.option(
        "--folds",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="K",
        help="Train each trial this many times, each time validated on other people; its value is the mean.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        metavar="N",
        help="Random seed of the search and its trials.  [default: 42]",
    ),
)
@option_group(
    "Budget",
    BudgetOptions,
    click.option(
        "--trials",
        type=click.IntRange(1),
        metavar="N",
        help="Total number of finished trials, earlier runs included.  [default: the study file's budget]",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(1),
        metavar="N",
        help="Maximum number of epochs of one trial.  [default: the study file's budget]",
    ),
    click.option(
        "--timeout",
        type=Duration(),
        metavar="TIME",
        help="Start no trial after this time in seconds, minutes or hours, e.g. 90s, 30m, 8h.  [default: no limit]",
    ),
    click.option(
        "--target",
        type=Number(),
        metavar="VALUE",
        help="End the search when a trial reaches this value of the objective, e.g. cosine 0.85 or identity -0.1.  "
        "[default: none]",
    ),
    click.option(
        "--target-epochs",
        type=click.IntRange(1),
        metavar="N",
        help="Number of epochs in a row that must reach --target, the best epoch among them.  [default: 1]",
    ),
)
@option_group("Data", DataOptions, data_options)
@option_group("Device", DeviceOptions, device_options, engine_option, slots_option)
@option_group(
    "Workers",
    WorkerOptions,
    checkpoint_options,
    click.option(
        "--trial-timeout",
        type=Duration(),
        metavar="TIME",
        help="End a trial that hangs, which gives no epoch for this long, and try it once again, e.g. 30m. Its start "
        "and its longest epoch must be shorter.  [default: no limit]",
    ),
    click.option(
        "--worker-timeout",
        type=Duration(),
        metavar="TIME",
        help="Reassign this worker's trials after this long without a heartbeat, e.g. 60s.  [default: 60s]",
    ),
    click.option(
        "--storage-timeout",
        type=Duration(),
        metavar="TIME",
        help="Wait this long for a database that does not answer, e.g. 10m.  [default: 10m]",
    ),
)
@option_group(
    "Messages",
    MessageOptions,
    notify_option(
        "Tell this service of a new best trial above all presets, of the end and of a failure: mail, DingTalk, Feishu, "
        "WeCom, Slack, Telegram, a webhook; see docs/operating.md. May be repeated.  [default: none]"
    ),
    click.option(
        "--on-end",
        metavar="COMMAND",
        help="Run this command in a shell when the search has ended, whatever ended it. FACE3D_TUNE_END_RESULT, "
        "…_STUDY, …_VALUE and others tell it how.  [default: none]",
    ),
)
@option_group(
    "Output",
    OutputOptions,
    click.option("--quiet", is_flag=True, help="Print only the result, warnings and errors."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print only JSON: one object a line for each thing that happens."
    ),
)
def run(
    search: StudyOptions,
    budget: BudgetOptions,
    data: DataOptions,
    device: DeviceOptions,
    workers: WorkerOptions,
    messages: MessageOptions,
    output: OutputOptions,
) -> None:
    """Search for better hyperparameters, or continue a search."""
    import optuna

    from face3d_tune.cli.language import translate
    from face3d_tune.cli.run_output import view_of
    from face3d_tune.cli.streams import go_on_without_output
    from face3d_tune.script.study_file import has_script
    from face3d_tune.search.run_search import run_search

    if search.script is not None or has_script(search.study_name_or_file):
        require_options_of_a_script(_TRAINER_ONLY)
    if budget.target_epochs is not None and budget.target is None:
        alone = "--target-epochs says how long the target must hold; expected --target VALUE with it"
        raise click.UsageError(alone, click.get_current_context())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    go_on_without_output()  # a night's search is worth more than its lines
    view = view_of(quiet=output.quiet, as_json=output.as_json, data_dir=data.data_dir)
    os.environ.pop(NOTIFY_VARIABLE, None)  # no script, and no other process that this one starts, gets its tokens
    run_search(SearchOptions(search, budget, data, device, workers, messages), view, translate)
