"""`face3d-tune export` and `face3d-tune presets`: the way back to the users' own script."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from face3d_tune.cli import script_output
from face3d_tune.cli.base import Command, example
from face3d_tune.cli.inference import InferenceOptions, check_usage, export_inference, inference_options
from face3d_tune.cli.language import say, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER, Choice, HomePath
from face3d_tune.cli.options import ONLY_STUDY, complete_preset, storage_option, study_name_option, trying_options
from face3d_tune.study.attrs import StudyAttr, TrialAttr

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from face3d_tune.config import TrialConfig
    from face3d_tune.data.provenance import DataUse
    from face3d_tune.script.flags import Script
    from face3d_tune.study.lookup import StoredTrial

_CHECK_NEEDS = "--check needs --script PATH, and goes with commands only"


def command_options(function: Any) -> Any:
    """Add `--script`, `--shell` and `--partial`, which shape a training command."""
    for option in reversed(
        (
            click.option(
                "--script",
                type=FILE_OR_FOLDER,
                metavar="PATH",
                help="Your copy of the training script; it is read, not run, and only its flags are used.",
            ),
            click.option(
                "--shell",
                type=Choice(["bash", "powershell", "cmd"]),
                default="bash",
                show_default=True,
                help="Shell to quote for.",
            ),
            click.option(
                "--partial", is_flag=True, help="Print the command even if it leaves out what the script cannot do."
            ),
        )
    ):
        function = option(function)
    return function


@click.command(
    cls=Command,
    epilog=example(
        "face3d-tune export\n"
        "face3d-tune export --trial 12 --script train_transformer3D/train_3d.py\n"
        "face3d-tune export trained/default-trial-30-ensemble --inference frontal --blend kernel"
    ),
)
@click.argument("checkpoints", metavar="[CHECKPOINT]...", nargs=-1, type=FILE_OR_FOLDER)
@storage_option
@study_name_option(ONLY_STUDY)
@click.option(
    "--trial", "number", type=click.IntRange(0), metavar="N", help="Number of the trial.  [default: the best]"
)
@click.option(
    "--format",
    "form",
    type=Choice(["command", "json", "toml"]),
    default="command",
    show_default=True,
    help="A command, all values as JSON, or a preset for a study file.",
)
@click.option(
    "--data-dir",
    type=HomePath(),
    metavar="DIR",
    help="Folder to name in the command, or with --inference the data of the members.  [default: the study's]",
)
@command_options
@click.option(
    "--check",
    is_flag=True,
    help="Run the --script with the command's flags for one epoch, on copies in a temporary folder.",
)
@trying_options("--check")
@inference_options
def export(
    inference: InferenceOptions,
    checkpoints: tuple[Path, ...],
    storage: str,
    study_name: str | None,
    number: int | None,
    form: str,
    data_dir: str | None,
    check: bool,
    python: str,
    timeout: float,
    **how: Any,
) -> None:
    """Print a trial's training command, or export its model."""
    import optuna

    from face3d_tune.data.face_data import SAMPLE_NAME
    from face3d_tune.data.provenance import SAMPLE_FOLDER, DataUse
    from face3d_tune.errors import StudyError
    from face3d_tune.script.export import to_json, to_toml
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import read_trial
    from face3d_tune.study.trials import folds_of, kept_cosine, repeatable_config

    if check and form != "command":
        raise click.UsageError(_CHECK_NEEDS, click.get_current_context())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    check_usage(inference, checkpoints, study_name, number)
    if inference.out is not None:
        folder = None if data_dir is None else Path(data_dir)
        export_inference(inference, checkpoints, storage, study_name, number, folder)
        return
    stored = read_trial(Storage.parse(storage), study_name, number)
    trial = stored.trial
    _note_state(trial)
    if StudyAttr.script.held_by(stored.study_attrs):
        from face3d_tune.cli.script_export import export_script

        if data_dir is not None:
            raise StudyError(
                f"study {stored.study!r} searches a script of your own, which reads its own data", "omit --data-dir"
            )
        given = click.get_current_context().get_parameter_source("python") != ParameterSource.DEFAULT
        export_script(stored, form, tried=(python if given else None, timeout) if check else None, **how)
        return
    if check and how["script"] is None:
        raise click.UsageError(_CHECK_NEEDS, click.get_current_context())
    data = StudyAttr.data.of(stored.study_attrs)
    config = repeatable_config(trial)
    folder = Path(data_dir or data["source"])
    sampled = data_dir is None and data["source"] == SAMPLE_NAME
    if sampled:
        say(f"note: the study used the bundled sample; `face3d-tune data sample {SAMPLE_FOLDER}` writes it", err=True)
    use = DataUse.of_study(data, data_dir)
    match form:
        case "json":
            origin = {"study": stored.study, "trial": trial.number, "value": kept_cosine(trial)}
            origin |= {"folds": folds} if (folds := folds_of(stored.study_attrs)) > 1 else {}
            click.echo(to_json(config, use, {**origin, "seed": TrialAttr.seed.get(trial.user_attrs)}), nl=False)
        case "toml":
            click.echo(to_toml(f"{stored.study}-trial-{trial.number}", config, use.feature_size), nl=False)
        case _:
            if check:
                how["tried"] = lambda script: _check(
                    stored, config, use, None if sampled else folder, script, python, timeout, partial=how["partial"]
                )
            _print_commands(config, use, **how)


def _note_state(trial: "FrozenTrial") -> None:
    """Note on stderr that a trial has not completed."""
    from face3d_tune.study.other_programs import is_foreign

    if is_foreign(trial):
        say(f"note: trial {trial.number} was ended from outside, so face3d-tune knows no value of it", err=True)
    elif trial.state.name != "COMPLETE":
        say(f"note: trial {trial.number} has not completed: its state is {trial.state.name.lower()}", err=True)


@click.command(cls=Command, epilog=example("face3d-tune presets\nface3d-tune presets recommended"))
@click.argument("name", required=False, shell_complete=complete_preset)
@click.option(
    "--data-dir",
    type=HomePath(),
    default="train/datas/file",
    show_default=True,
    metavar="DIR",
    help="Folder to name in it.",
)
@click.option(
    "--feature-size",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    metavar="F",
    help="Numbers per embedding in that folder; d_model follows from it.",
)
@command_options
def presets(name: str | None, data_dir: str, feature_size: int, **how: Any) -> None:
    """Show the guide's presets, or print the command of one."""
    from face3d_tune.config import DEFAULTS, resolve
    from face3d_tune.data.provenance import DataUse
    from face3d_tune.errors import StudyError, did_you_mean
    from face3d_tune.study.presets import PRESETS

    if name is None:
        _list_presets()
        return
    if name not in PRESETS:
        raise StudyError(f"no preset named {name!r}{did_you_mean(name, PRESETS)}", f"there are {', '.join(PRESETS)}")
    config = resolve(PRESETS[name], feature_size=feature_size, epochs=DEFAULTS["epochs"], layout="keypoint")
    _print_commands(config, DataUse(data_dir=data_dir, feature_size=feature_size, file_pose_unit="degrees"), **how)


def _print_commands(
    config: "TrialConfig",
    use: "DataUse",
    script: Path | None,
    shell: Any,
    partial: bool,
    tried: Callable[["Script"], None] = lambda script: None,
) -> None:
    """Print the commands alone on stdout, and their omissions on stderr, as an error unless `partial`.

    `tried` is called before anything is on stdout, and may raise.
    """
    from face3d_tune.errors import ExportError
    from face3d_tune.script.export import commands, quote
    from face3d_tune.script.flags import DOCUMENTED, read_script

    accepted = read_script(script) if script else DOCUMENTED
    exported = commands(config, use, accepted)
    for note in exported.notes:
        say(f"note: {note}", err=True)
    if exported.missing and not partial:
        raise ExportError(
            f"{script or 'the documented script'} cannot express {'; '.join(exported.missing)}",
            "`face3d-tune train` trains it here; --partial prints the command without",
        )
    for line in exported.missing:
        say(f"warning: not expressed: {line}", err=True)
    if exported.missing:
        say("note: `face3d-tune train` trains all of it here", err=True)
    tried(accepted)
    for command in exported.commands:
        click.echo(quote(command, shell))


def _check(
    stored: "StoredTrial",
    config: "TrialConfig",
    use: "DataUse",
    folder: Path | None,
    script: "Script",
    python: str,
    timeout: float,
    *,
    partial: bool,
) -> None:
    """Run the script for one epoch, and compare it on stderr with the first epoch of the trial.

    Raises ScriptError if it does not train, and unless `partial` if it builds another model.
    """
    from face3d_tune.data.face_data import load, recorded_selection
    from face3d_tune.errors import DataError, ScriptError
    from face3d_tune.script.check import difference, try_script, wrong_model

    attr = StudyAttr.data.of(stored.study_attrs)
    try:
        data = load(folder, **recorded_selection(attr))
    except DataError as error:
        raise ScriptError(f"--data_dir {use.data_dir} cannot be used: {error.message}", error.hint) from error
    say(f"check: one epoch of {script.path} with {python}, in a temporary folder; Ctrl-C ends it", err=True)
    with script_output.shown_if_it_fails():
        tested = try_script(config, use, folder, script, python=python, timeout=timeout)
    say(f"check: it trains; one epoch and its start took {tested.seconds:.0f} s", err=True)
    for line in tested.warnings:
        say(f"warning: {line}", err=True)
    if other := wrong_model(tested, config, use, script):
        if not partial:
            raise ScriptError(other.message, f"{other.hint}; --partial prints the command anyway")
        say(f"warning: {other.message}", err=True)
    elif tested.weights is not None:
        sizes = f"{config.layout} layout, d_model {config.d_model}, {config.num_layers} layers"
        say(f"check: it builds the model of trial {stored.trial.number}: {sizes}", err=True)
    if data.fingerprint() != StudyAttr.data_fingerprint.of(stored.study_attrs):
        say("warning: the study was made on other data, so the values need not agree", err=True)
    for line in difference(tested, stored):
        say(line, err=True)


def _list_presets() -> None:
    """Print a line for each preset, with the values that differ between presets."""
    from face3d_tune.cli.console import TranslatedTable
    from face3d_tune.cli.result_tables import results_console
    from face3d_tune.study.presets import PRESETS

    table = TranslatedTable(box=None, pad_edge=False)
    for header in ("preset", "lr", "mse / cosine", "factor", "patience", "min lr", "early stop", "AMP", "attention"):
        table.add_column(header)
    for name, preset in PRESETS.items():
        attention = [kind for kind in ("spatial", "pose") if preset[f"use_{kind}_attention"]]
        table.add_row(
            name,
            f"{preset['lr']:g}",
            f"{preset['mse_weight']} / {preset['cosine_weight']}",
            str(preset["scheduler_factor"]),
            str(preset["scheduler_patience"]),
            f"{preset['scheduler_min_lr']:g}",
            str(preset["early_stopping_patience"] or word("off")),
            word("yes" if preset["use_mixed_precision"] else "no"),
            " + ".join(attention) or word("none"),
        )
    results_console().print(table)
    say("\nbatch 32, 100 epochs; `face3d-tune presets NAME` prints the training command of one")
