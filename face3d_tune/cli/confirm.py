"""`face3d-tune confirm`: is the best of a study really better, on people who took no part in any decision?"""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say, translate, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER
from face3d_tune.cli.options import (
    ONLY_STUDY,
    data_dir_option,
    device_options,
    engine_option,
    slots_option,
    storage_option,
    storage_words,
    study_name_option,
)
from face3d_tune.cli.retraining import interruption_explained, require_preset, stored_already
from face3d_tune.study.attrs import StudyAttr

_SEEDS, _TOP = 5, 3
_ROTATIONS = 5  # `data.rotation.ROTATIONS`; --help loads no data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face3d_tune.cli.console import Console
    from face3d_tune.device import Precision
    from face3d_tune.executor.plan import Plan
    from face3d_tune.refit.confirm import Confirmation
    from face3d_tune.refit.ensemble_folder import Members
    from face3d_tune.refit.retrain import Job, Kept
    from face3d_tune.refit.stored_trainings import Record
    from face3d_tune.storage.database import Storage
    from face3d_tune.training.base import EpochResult


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune confirm\nface3d-tune confirm --study-name default --top 3 --seeds 5\nface3d-tune confirm --rotate"
    ),
)
@storage_option
@study_name_option(ONLY_STUDY)
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    help="Number of best trials to train again, each with different values.  [default: 3; 1 with a script of your own]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    metavar="N",
    help="Trainings per trial and preset; all share the same fresh seeds.  [default: 5; 1 in each rotation]",
)
@click.option(
    "--rotate",
    type=int,
    is_flag=False,
    flag_value=str(_ROTATIONS),
    metavar="[K]",
    help="Judge every person once instead of the test people: cut all people into K blocks, and judge each by models "
    "trained on the others. The test people judge too, so it counts as an evaluation on them.  "
    f"[default: {_ROTATIONS}, if K is omitted]",
)
@click.option(
    "--keep",
    type=FILE_OR_FOLDER,
    metavar="DIR",
    help="Folder for the checkpoints of all trainings: an ensemble of each trial and preset, for judge and predict.",
)
@click.option("--baseline", metavar="PRESET", help="Preset to compare with first.  [default: the best one]")
@click.option(
    "--script",
    type=FILE_OR_FOLDER,
    metavar="PATH",
    help="Where the script of a study that searches your own is now.  [default: where it was]",
)
@data_dir_option("the data that the study names")
@device_options
@engine_option
@slots_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for scripts.")
def confirm(
    storage: str,
    study_name: str | None,
    top: int | None,
    seeds: int | None,
    rotate: int | None,
    keep: Path | None,
    baseline: str | None,
    script: Path | None,
    data_dir: Path | None,
    device: str,
    amp: Any,
    engine: Any,
    slots: int | None,
    as_json: bool,
) -> None:
    """Evaluate the best trials and the presets on the test people."""
    from dataclasses import replace
    from functools import partial

    import optuna

    from face3d_tune.cli.confirm_keep import ensembles_in, keep_winner, say_size
    from face3d_tune.cli.console import Console
    from face3d_tune.cli.script_confirm import confirm_script, show
    from face3d_tune.device import choose_devices, choose_precision, set_threads
    from face3d_tune.errors import StudyError
    from face3d_tune.executor.plan import choose
    from face3d_tune.refit.candidates import candidates
    from face3d_tune.refit.confirm import Confirmation
    from face3d_tune.refit.rotate import RotatedConfirmation
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import find_study
    from face3d_tune.study.study_data import study_data

    if keep is not None and rotate is not None:
        raise click.UsageError(
            "--keep goes without --rotate: each rotation trains on other people", click.get_current_context()
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = Console(stderr=True, soft_wrap=True)
    place, chosen = Storage.parse(storage), choose_devices(device)
    precision, notice = choose_precision(amp, *chosen)
    kind = Confirmation if rotate is None else partial(RotatedConfirmation, of=rotate)
    if seeds is None:
        seeds = _SEEDS if rotate is None else 1  # each rotation has seeds of its own, and the interval counts rotations
    with place.opened() as opened, place.searching("confirm when it has ended; Ctrl-C ends it and loses nothing"):
        study = find_study(opened, study_name)
        if StudyAttr.script.held_by(study.user_attrs):
            _require_options_of_a_script(study.study_name)
            how: dict[str, Any] = {"script": script, "device": device, "slots": slots}
            retrained = confirm_script(study, opened, place, top=top, seeds=seeds, baseline=baseline, **how)
            show(retrained, study.study_name, as_json=as_json)
            return
        if script is not None:
            raise StudyError(f"study {study.study_name!r} searches no script of your own", "omit --script")
        _require_test_people(study)
        data = study_data(study.study_name, study.user_attrs, data_dir)
        for line in (*data.warnings, *([notice] if notice else [])):
            console.print(f"warning: {line}")
        picked = candidates(study, data, top or _TOP)
        require_preset(baseline, picked)
        if amp == "off":
            picked = [replace(each, config=replace(each.config, use_mixed_precision=False)) for each in picked]
        plan = choose(engine, slots, chosen, data, [each.config for each in picked])
        set_threads(1 if plan.engine == "batched" else None)  # others train
        confirmation = kind(study, opened, data, picked, seeds, console.print)
        ensembles = {} if keep is None else ensembles_in(keep, confirmation, data)
        _introduce(console, confirmation, plan)
        if keep is not None:
            say_size(console, confirmation, ensembles, keep)
        console.print(f"engine   {plan}\n")
        _train(console, confirmation, plan, precision, ensembles)
        if rotate is not None:
            console.print("fitting ridge and kernel ridge in every rotation")
        words = [
            "face3d-tune",
            "confirm",
            "--study-name",
            study.study_name,
            "--top",
            str(top or _TOP),
            "--seeds",
            str(seeds),
        ]
        words += [] if rotate is None else ["--rotate", str(rotate)]
        found = confirmation.conclude(shlex.join(words), baseline)
        if ensembles:
            keep_winner(console, found, ensembles, plan, study.user_attrs)
    if as_json:
        click.echo(json.dumps({"study": study.study_name, **found}, indent=1, ensure_ascii=False))
        return
    from face3d_tune.cli.result_tables import confirmed

    confirmed(found)
    _say_what_is_next(study.study_name, place)


def _require_options_of_a_script(study: str) -> None:
    """Raise StudyError if an option was given that only the built-in trainer knows."""
    from face3d_tune.errors import StudyError

    context = click.get_current_context()
    given = [
        option
        for option in ("rotate", "keep", "data_dir", "amp", "engine")
        if context.get_parameter_source(option) == ParameterSource.COMMANDLINE
    ]
    if given:
        named = ", ".join(f"--{option.replace('_', '-')}" for option in given)
        raise StudyError(f"study {study!r} searches a script of your own, which has no {named}", "omit it")


def _require_test_people(study: Any) -> None:
    """Raise StudyError for a study without test people."""
    from face3d_tune.errors import StudyError

    if StudyAttr.data.of(study.user_attrs)["split"] == "none":
        raise StudyError(
            f"study {study.study_name!r} was made with --split none, so it has no test people to judge by",
            "search with --split person, the default",
        )


def _introduce(console: "Console", confirmation: "Confirmation", plan: "Plan") -> None:
    """Print what will be trained."""
    from face3d_tune.study.described_data import describe_data

    trials = [each.name for each in confirmation.picked if not each.preset]
    presets = [
        each.name + (f" (= {', '.join(each.aliases)})" if each.aliases else "")
        for each in confirmation.picked
        if each.preset
    ]
    attrs, jobs, held = confirmation.study.user_attrs, len(confirmation.jobs), stored_already(confirmation)
    console.print(f"data     {describe_data(attrs)}")
    console.print(f"study    {confirmation.study.study_name}: {', '.join(trials)}")
    console.print(f"presets  {', '.join(presets) or 'none'}")
    if of := confirmation.rotations:
        people = sum(StudyAttr.data.of(attrs)["people"].values())
        console.print(f"rotate   {people} people in {of} rotations; each is judged once, by models trained on others")
        console.print(f"train    {jobs} trainings, {len(confirmation.seeds)} of each in every rotation{held}")
        console.print("note: all people judge, so the result counts as an evaluation on the test people")
    else:
        console.print(f"train    {jobs} trainings, {len(confirmation.seeds)} seeds of each{held}")


def _train(
    console: "Console",
    confirmation: "Confirmation",
    plan: "Plan",
    precision: "Precision",
    ensembles: "Mapping[str, Members]",
) -> None:
    """Run the missing trainings: print a line for each that ends, and on a terminal a bar."""
    from face3d_tune.cli.console import progress_bar
    from face3d_tune.cli.progress import Interrupt

    interrupt, total = Interrupt(console), len(confirmation.missing)
    with interrupt.caught(), progress_bar(console) as bars:
        bar = bars.add_task(word("trainings"), total=total)

        def ended(job: "Job", record: "Record") -> None:
            name = f"{job.candidate.name}, seed {job.number}"
            if of := confirmation.rotations:
                name = f"rotation {job.round + 1} of {of}: {name}"
            if "error" in record:
                console.print(f"{name:<24} diverged: {record['error']}")
            elif confirmation.rotations:
                # Test people are among those who validate: no number of theirs before the evaluation is counted.
                console.print(f"{name:<38} stored (epoch {record['best_epoch']} of {record['epochs']})")
            else:
                epochs = f"epoch {record['best_epoch']} of {record['epochs']}"
                console.print(f"{name:<24} validation cosine {record['validation']:.4f} ({epochs})")
            bars.advance(bar)

        def epoch(job: "Job", result: "EpochResult") -> None:
            interrupt.check()

        def keep(job: "Job", kept: "Kept") -> None:
            if ensembles:
                ensembles[job.candidate.name].keep(job.number, kept, plan)

        with interruption_explained(console, confirmation):
            confirmation.train(plan, precision, ended, epoch, keep)


def _say_what_is_next(study: str, place: "Storage") -> None:
    """Print the next commands, ready to paste."""
    words = [*storage_words(place), "--study-name", study]
    say("\nNext, with this storage's URL in FACE3D_TUNE_STORAGE:" if place.holds_secret else "\nNext:")
    for command, why in (("report", "this and everything else, as one page"), ("export", "the training command")):
        click.echo(f"  face3d-tune {shlex.join([command, *words])}  # {translate(why)}")
