"""`face3d-tune run`: the main job."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.options import (
    Duration,
    Number,
    checkpoint_options,
    complete_study,
    complete_study_file,
    data_options,
    device_options,
    engine_option,
    layout_option,
    slots_option,
    storage_option,
    storage_words,
    study_name_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from face3d_tune.executor.plan import Plan
    from face3d_tune.search.search import Search
    from face3d_tune.storage.database import Storage


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune run --trials 50\nface3d-tune run --data-dir train/datas/file --study stage1-lr --timeout 8h"
    ),
)
@click.option(
    "--study",
    "study_name_or_file",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    shell_complete=complete_study_file,
    help="Study file: a built-in name (default, stage1-lr, …) or a path ending in .toml.",
)
@study_name_option("Name of the study in the storage.  [default: the study file's name]")
@click.option(
    "--from",
    "before",
    metavar="STUDY",
    shell_complete=complete_study,
    help="Begin where this study of the same storage ended: with its best trial, and what is near.",
)
@storage_option
@click.option(
    "--trials",
    type=click.IntRange(1),
    metavar="N",
    help="Finished trials the study shall hold in the end.  [default: the study file's budget]",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Longest training of one trial.  [default: the study file's budget]",
)
@click.option(
    "--folds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="K",
    help="Train each trial K times, on other people each time, and take the mean.",
)
@click.option("--timeout", type=Duration(), metavar="TIME", help="Start no trial after this time, e.g. 90s, 30m, 8h.")
@click.option(
    "--target",
    type=Number(-1, 1),
    metavar="COSINE",
    help="End the search when a trial reaches this validation cosine, e.g. 0.85.",
)
@click.option(
    "--target-epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Only if it is stable: so many epochs in a row reach it, the kept one among them.  [default: 1]",
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of the search and its trials.  [default: 42]")
@checkpoint_options
@click.option(
    "--worker-timeout",
    type=Duration(),
    metavar="TIME",
    help="Without a sign of life for so long, this worker's trials go to others.  [default: 60s]",
)
@click.option(
    "--storage-timeout",
    type=Duration(),
    metavar="TIME",
    help="How long to wait for a database that went away.  [default: 10m]",
)
@data_options
@device_options
@engine_option
@slots_option
@layout_option
@click.option("--quiet", is_flag=True, help="Print nothing but the result, warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print what happens as JSON, an object a line, and nothing else.")
def run(
    study_name_or_file: str,
    study_name: str | None,
    before: str | None,
    storage: str,
    trials: int | None,
    epochs: int | None,
    folds: int,
    timeout: float | None,
    target: float | None,
    target_epochs: int | None,
    seed: int | None,
    artifacts: str | None,
    checkpoint_every: float,
    keep_checkpoints: int,
    worker_timeout: float | None,
    storage_timeout: float | None,
    data_dir: Path | None,
    split: Any,
    min_yaw: float,
    max_yaw: float | None,
    turn_angle: Any,
    device: str,
    amp: Any,
    engine: Any,
    slots: int | None,
    layout: Any,
    quiet: bool,
    as_json: bool,
) -> None:
    """Search for better hyperparameters, or continue a search."""
    import math
    import time
    from contextlib import closing

    import optuna
    from rich.console import Console

    from face3d_tune.cli.progress import JsonLines, SearchProgress, Tally
    from face3d_tune.cli.table import before_and_after
    from face3d_tune.data.face_data import load
    from face3d_tune.device import choose_device, choose_precision, set_threads
    from face3d_tune.executor.plan import choose
    from face3d_tune.search.search import Search, check
    from face3d_tune.search.trial_run import Setup
    from face3d_tune.storage.artifacts import Artifacts
    from face3d_tune.storage.database import Storage
    from face3d_tune.storage.retry import DEFAULT_TIMEOUT
    from face3d_tune.storage.study_names import name_to_search
    from face3d_tune.storage.workers import DEFAULT_SILENCE
    from face3d_tune.study import study_file
    from face3d_tune.study.settings import Settings
    from face3d_tune.study.warm_start import take_up

    if target_epochs is not None and target is None:
        alone = "--target-epochs says how long the target must hold; expected --target COSINE with it"
        raise click.UsageError(alone, click.get_current_context())
    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    silent = quiet or as_json
    console = Console(stderr=True, highlight=False, markup=False, quiet=silent)
    console.soft_wrap = not console.is_terminal  # a pipe gets whole lines, a person whole words
    file = study_file.read(study_name_or_file)
    place = Storage.parse(storage)
    chosen_device = choose_device(device)
    precision, notice = choose_precision(amp, chosen_device)
    data = load(data_dir, split=split, min_yaw=min_yaw, max_yaw=max_yaw, turn_angle=turn_angle)
    for line in (*data.warnings, *([notice] if notice else [])):
        click.echo(f"warning: {line}", err=True)
    settings = Settings(layout, epochs or file.epochs, seed, folds)
    setup = Setup(data, chosen_device, precision, use_amp=amp != "off", target=target, target_epochs=target_epochs or 1)
    name = name_to_search(place, study_name or file.name)
    file, stage = take_up(place, name, before, data, file, settings)
    check(file, settings, setup)
    configs = file.for_layout(layout).extreme_configs(data.feature_size, layout)
    plan = choose(engine, slots, chosen_device, data, configs, folds)
    set_threads(1 if plan.engine == "batched" else None)  # others train
    goal = trials or file.trials
    kept = None if artifacts is None else Artifacts.parse(artifacts)
    with place.searching(), place.opened(create=True) as opened:
        # Ridge regression takes half a minute where embeddings are wide, once for a study.
        with console.status("what ridge regression reaches, which is the line to beat"):
            search = Search(
                opened,
                name,
                file,
                settings,
                setup,
                silence=worker_timeout or DEFAULT_SILENCE,
                storage_timeout=storage_timeout or DEFAULT_TIMEOUT,
                artifacts=kept,
                checkpoint_every=checkpoint_every,
                keep_checkpoints=keep_checkpoints,
                stage=stage,
            )
        _introduce(console, search, place, goal, plan)
        if abandoned := search.requeue_abandoned():
            console.print(f"{abandoned} trial(s) without a living worker: queued again")
        done_before = search.finished() >= goal or search.target_reached()
        if not done_before:
            search.enqueue_presets()
        tally = Tally(search.study.study_name, goal, search.study.get_trials(deepcopy=False))
        progress = JsonLines(console, tally, click.echo) if as_json else SearchProgress(console, tally)
        if isinstance(progress, JsonLines):
            follows = {"from": stage.to_attr()} if stage else {}
            progress.say("started", storage=str(place), goal=goal, done=tally.done, engine=plan.engine, **follows)
        if done_before and not as_json:
            click.echo(_nothing_to_do(search, goal))
        if not done_before:
            try:
                with closing(plan.open(data, search.archive.checkpoints)) as opened_slots, progress.shown():
                    deadline = math.inf if timeout is None else started + timeout
                    search.run(goal, progress, slots=opened_slots, deadline=deadline)
            except KeyboardInterrupt:
                done = f"{search.finished()} of {goal} finished trials"
                console.print(f"study {search.study.study_name!r} holds {done}; what was running is queued again")
                console.print("hint: the same command goes on from there")
                raise
        if said := search.archive.tidy():  # now that nothing trains any more
            progress.note(said)
        if isinstance(progress, JsonLines):
            value, number = tally.best or (None, None)
            progress.say("finished", done=tally.done, value=value, trial=number, seconds=time.monotonic() - started)
            return
        before_and_after(search.study)
        if not done_before:
            console.print(f"{tally}; {(time.monotonic() - started) / 60:.1f} minutes")
        _say_what_is_next(search, place, data_dir)


def _introduce(console: "Console", search: "Search", place: "Storage", goal: int, plan: "Plan") -> None:
    """Say what will happen, and where everything comes from."""
    from face3d_tune.device import device_name
    from face3d_tune.study.foreign import count_foreign
    from face3d_tune.study.settings import describe_data
    from face3d_tune.study.trials import count_imported
    from face3d_tune.study.warm_start import WarmStart, moved

    setup, file, study, folds = search.setup, search.file, search.study, search.settings.folds
    no_model = study.user_attrs["no_model_cosine"]
    imported = f", {count} more imported" if (count := count_imported(study)) else ""
    imported += f", {count} added by hand" if (count := count_foreign(study)) else ""
    console.print(f"data     {describe_data(study.user_attrs)}; poses in {setup.data.file_pose_unit}")
    done = f"{search.finished()} of {goal} trials done{imported}"
    console.print(f"study    {study.study_name} ({file.path.name}) in {place}; {done}")
    console.print(
        f"trials   {file.sampler.name} over {', '.join(file.space)}; {file.pruner.name} pruner; "
        f"up to {search.settings.epochs} epochs {f'in each of {folds} folds' if folds > 1 else 'each'}"
    )
    if stage := WarmStart.of(study.user_attrs):
        console.print(f"from     {stage}")
        for name, (was, now) in moved(file, stage, setup.data.feature_size).items():
            console.print(f"         its {name} is outside this space: {_short(was)}; begins at {_short(now)}")
    names = [name for name in file.presets if name not in file.near]
    near = f"; {len(file.near)} near the best" if file.near else ""
    console.print(f"presets  {', '.join(names) or 'none'}{near}")
    console.print(f"device   {device_name(setup.device)}, mixed precision {setup.precision}; seed {search.seed}")
    console.print(f"engine   {plan}")
    ridge, over = study.user_attrs["ridge_cosine"], f" over {folds} folds of people" if folds > 1 else ""
    ends = "" if setup.target is None else f"; ends at {_target(search)}"
    lines = f"without a model it is {no_model:.4f}, ridge {ridge:.4f}"
    console.print(f"goal     mean validation cosine{over}; {lines}{ends}\n")


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _target(search: "Search") -> str:
    """`0.85`, or `0.85 in 5 epochs in a row`."""
    target, epochs = search.setup.target, search.setup.target_epochs
    return f"{target}{f' in {epochs} epochs in a row' if epochs > 1 else ''}"


def _nothing_to_do(search: "Search", goal: int) -> str:
    name, finished = search.study.study_name, search.finished()
    if search.target_reached():
        return f"nothing to do: study {name!r} has reached the target, {_target(search)}\n"
    held = f"study {name!r} holds {finished} finished trials, {goal} were asked for"
    return f"nothing to do: {held}; for more: --trials {finished + 50}\n"


def _say_what_is_next(search: "Search", place: "Storage", data_dir: Path | None) -> None:
    """What to type next, as it can be pasted."""
    from rich.cells import cell_len

    from face3d_tune.cli.table import results_console
    from face3d_tune.study.trials import best_trial

    if best_trial(search.study) is None:
        return
    storage = storage_words(place)
    study = [*storage, "--study-name", search.study.study_name]
    data = ["--data-dir", str(data_dir)] if data_dir else []
    click.echo("\nNext, with this storage's URL in FACE3D_TUNE_STORAGE:" if place.holds_secret else "\nNext:")
    steps = (
        (["export", *study], "the training command of the best trial"),
        (["confirm", *study, *data], "is it really better? trained again, on people never seen"),
        (["train", *study, *data], "train it here: checkpoint, history, curve"),
        (["dashboard", *storage], "look at every trial in the browser"),
    )
    lines = [f"  face3d-tune {shlex.join(words):<40}  # {why}" for words, why in steps]
    console = results_console()
    if console.is_terminal and max(map(cell_len, lines)) > console.width:
        lines = [f"  # {why}\n  face3d-tune {shlex.join(words)}" for words, why in steps]
    click.echo("\n".join(lines))
