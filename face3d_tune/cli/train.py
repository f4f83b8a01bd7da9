"""`face3d-tune train`: one full training, kept on disk."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.language import say, translate, word
from face3d_tune.cli.option_types import FILE_OR_FOLDER
from face3d_tune.cli.options import (
    ONLY_STUDY,
    complete_preset,
    data_options,
    device_options,
    engine_option,
    layout_option,
    storage_option,
    study_name_option,
)
from face3d_tune.study.attrs import TrialAttr

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from face3d_tune.cli.console import Console
    from face3d_tune.config import TrialConfig
    from face3d_tune.data.face_data import FaceData
    from face3d_tune.refit.full_training import Trained
    from face3d_tune.training.base import EpochResult


@click.command(
    cls=Command, epilog=example("face3d-tune train\nface3d-tune train --preset recommended --out trained/recommended")
)
@storage_option
@study_name_option(ONLY_STUDY)
@click.option(
    "--trial", "number", type=click.IntRange(0), metavar="N", help="Number of the trial.  [default: the best]"
)
@click.option(
    "--preset", metavar="NAME", shell_complete=complete_preset, help="Train a documented preset instead of a trial."
)
@click.option(
    "--out",
    type=FILE_OR_FOLDER,
    metavar="DIR",
    help="Folder to write to.  [default: trained/STUDY-trial-N or trained/PRESET; of an ensemble, that and -ensemble]",
)
@click.option("--force", is_flag=True, help="Overwrite an earlier training in that folder.")
@click.option(
    "--epochs", type=click.IntRange(1), metavar="N", help="Maximum number of epochs.  [default: the trial's, or 100]"
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Random seed.  [default: the trial's, or 42]")
@click.option(
    "--seeds",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Train an ensemble of N members: the same config with N seeds, the first of them --seed. An interrupted one "
    "resumes with the members that are missing.",
)
@data_options
@device_options
@engine_option
@layout_option
def train(
    storage: str,
    study_name: str | None,
    number: int | None,
    preset: str | None,
    out: Path | None,
    force: bool,
    epochs: int | None,
    seed: int | None,
    count: int,
    data_dir: Path | None,
    device: str,
    amp: Any,
    engine: Any,
    **pairs: Any,
) -> None:
    """Train the best trial, another trial or a preset, and save it."""
    from dataclasses import replace

    from face3d_tune.cli.console import Console
    from face3d_tune.cli.train_ensemble import train_ensemble
    from face3d_tune.device import choose_devices, choose_precision, set_threads
    from face3d_tune.executor.plan import choose
    from face3d_tune.refit.ensemble_folder import ABOUT, Members, seeds_of
    from face3d_tune.refit.full_training import FILES, train_fully

    if preset is not None and (study_name is not None or number is not None):
        raise click.UsageError("--preset goes without --study-name and --trial", click.get_current_context())
    chosen = _preset(preset, data_dir, **pairs) if preset is not None else _trial(storage, study_name, number, data_dir)
    config, data = replace(chosen.config, epochs=epochs or chosen.config.epochs), chosen.data
    if amp == "off":
        config = replace(config, use_mixed_precision=False)
    out = out or Path("trained") / (chosen.name if count == 1 else f"{chosen.name}-ensemble")
    taken = FILES if count > 1 else (*FILES, ABOUT, "member-1")  # an ensemble resumes
    if not force and any((out / file).exists() for file in taken):
        raise click.UsageError(
            f"{out} holds an earlier training; use --force, or another --out", click.get_current_context()
        )
    _require_writable(out)
    devices = choose_devices(device)
    if count == 1 and len(devices) > 1:
        raise click.UsageError(
            f"--device names {len(devices)} GPUs, and one training uses one; name one, or train several with --seeds",
            click.get_current_context(),
        )
    if engine == "auto":
        engine = chosen.engine or "auto"
    plan = choose(engine, None, devices, data, [config])
    precision, notice = choose_precision(amp, *devices)
    console = Console(stderr=True, soft_wrap=True)
    for line in (*data.warnings, *([notice] if notice else [])):
        console.print(f"warning: {line}")
    seed = chosen.seed if seed is None else seed
    if count > 1:
        members = Members(out, config, seeds_of(seed, count), data)
        train_ensemble(console, members, plan.at_most(count), precision, chosen.name, chosen.attrs, force=force)
        return
    set_threads(1 if plan.engine == "batched" and plan.device.type == "cpu" else None)
    console.print(f"training {chosen.name} into {out} on {data.source}")
    trained = _train_shown(
        console,
        lambda after_epoch: train_fully(
            config,
            data,
            out,
            seed=seed,
            device=plan.device,
            precision=precision,
            engine=plan.engine,
            after_epoch=after_epoch,
            notice=console.print,
        ),
        config.epochs,
    )
    _print_result(data, trained, chosen)
    say(f"\nwrote {', '.join(str(out / file) for file in FILES)}")


@dataclass(frozen=True)
class _Chosen:
    """What to train: a trial or a preset."""

    name: str
    config: "TrialConfig"
    data: "FaceData"
    seed: int
    expected: float | None = None  # cosine on validation people
    engine: "Literal['plain', 'batched'] | None" = None  # that trained the trial
    attrs: "Mapping[str, Any]" = field(default_factory=dict)  # of its study


def _require_writable(out: Path) -> None:
    """Raise ConfigError now, not after the first epoch, if no folder `out` can be made or written to."""
    from face3d_tune.errors import ConfigError

    nearest = next(path for path in (out, *out.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written to" if nearest.is_dir() else "is no folder"
        raise ConfigError(f"--out {out} cannot be used: {nearest} {reason}", "name another folder with --out")


def _preset(name: str, data_dir: Path | None, layout: Any, **pairs: Any) -> _Chosen:
    """Return what to train for a documented preset."""
    from face3d_tune.config import DEFAULTS, resolve
    from face3d_tune.data.face_data import load
    from face3d_tune.errors import StudyError, did_you_mean
    from face3d_tune.study.presets import PRESETS
    from face3d_tune.study.settings import DEFAULT_SEED

    if name not in PRESETS:
        raise StudyError(f"no preset named {name!r}{did_you_mean(name, PRESETS)}", f"there are {', '.join(PRESETS)}")
    data = load(data_dir, **pairs)
    values = dict(PRESETS[name])
    if layout == "pose":
        values["use_spatial_attention"] = False  # this layout has no spatial attention
    config = resolve(values, feature_size=data.feature_size, epochs=DEFAULTS["epochs"], layout=layout)
    return _Chosen(name, config, data, DEFAULT_SEED)


def _trial(storage: str, study_name: str | None, number: int | None, data_dir: Path | None) -> _Chosen:
    """Return the same for a trial; pairs and layout are those of its study."""
    import optuna

    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import read_trial
    from face3d_tune.study.study_data import study_data
    from face3d_tune.study.trials import folds_of, kept_cosine, repeatable_config

    context = click.get_current_context()
    for option in ("split", "min_yaw", "max_yaw", "turn_angle", "layout"):
        if context.get_parameter_source(option) == click.core.ParameterSource.COMMANDLINE:
            flag = "--" + option.replace("_", "-")
            raise click.UsageError(f"{flag} goes with --preset only; a trial has its study's", context)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stored = read_trial(Storage.parse(storage), study_name, number)
    stored.require_face_data("`face3d-tune export` prints the command that trains a trial with your script")
    trial, data = stored.trial, study_data(stored.study, stored.study_attrs, data_dir)
    name = f"{stored.study}-trial-{trial.number}"
    attrs = trial.user_attrs
    engine: Any = TrialAttr.engine.get(attrs, "plain")  # an older study, from before the batched engine
    expected = kept_cosine(trial)
    if (folds := folds_of(stored.study_attrs)) > 1:
        reached = "" if expected is None else f", {expected:.4f},"
        say(
            f"note: the trial's value{reached} is a mean over {folds} folds; this training uses the ordinary split",
            err=True,
        )
        expected = None
    config, seed = repeatable_config(trial), TrialAttr.seed.get(attrs, 42)
    return _Chosen(name, config, data, seed, expected, engine, stored.study_attrs)


def _train_shown(console: "Console", training: Any, epochs: int) -> "Trained":
    """Run `training` with a line per epoch: live on a terminal, every tenth where not."""
    from face3d_tune.cli.console import progress_bar
    from face3d_tune.cli.progress import Interrupt

    interrupt = Interrupt(console)
    with interrupt.caught(), progress_bar(console) as bars:
        task = bars.add_task("", total=epochs)

        def after_epoch(result: "EpochResult") -> None:
            losses = f"{result.train_loss:.4f} / {result.val_loss:.4f}"
            named = "" if result.rank1 is None else f"  rank-1 {result.rank1:.3f}"
            line = f"loss {losses}  cosine {result.val_cosine:.4f}{named}  lr {result.lr:.1e}"
            bars.update(task, completed=result.epoch, description=translate(line))
            if not console.is_terminal and (result.epoch == 1 or result.epoch % 10 == 0):
                console.print(f"epoch {result.epoch:>3}  {line}")
            interrupt.check()

        trained: Trained = training(after_epoch)
    return trained


def _print_result(data: "FaceData", trained: "Trained", chosen: _Chosen) -> None:
    """Print the result on the validation people, beside the no-model baseline; no test people."""
    from face3d_tune.cli.console import TranslatedTable
    from face3d_tune.cli.result_tables import add_band_columns, bands, results_console

    table = TranslatedTable(box=None, pad_edge=False)
    table.add_column("mean cosine")
    for header in ("people", "pairs", "no model", "trained"):
        table.add_column(header, justify="right")
    add_band_columns(table)
    table.add_row(
        word("validation"),
        str(len(data.people["validation"])),
        str(len(data.parts["validation"])),
        f"{data.no_model_cosine('validation'):.4f}",
        f"{trained.validation.cosine:.4f}",
        *bands(trained.validation.cosine_by_yaw),
    )
    warning, recognised = _recognised(data, trained, chosen.attrs)
    if warning:
        say(f"{warning}\n")
    results_console().print(table)
    say(recognised)
    say(f"kept epoch {trained.best.epoch} of {trained.epochs_run}")
    if (expected := chosen.expected) is not None:
        same = abs(trained.validation.cosine - expected) < 5e-5
        say(f"the study's trial reached {expected:.4f} on validation{': the same' if same else ''}")
    say("no test people were used; `face3d-tune confirm` evaluates the best trials on them")


def _recognised(data: "FaceData", trained: "Trained", attrs: "Mapping[str, Any]") -> tuple[str | None, str]:
    """Return the sentence on a model that only raises the cosine, or None, and a line with rank-1 of all enrolled."""
    from face3d_tune.analysis.recognising import only_raises_cosine
    from face3d_tune.refit import baselines

    assert trained.validation.recognition is not None, "an evaluation has it"
    enrolled, model = trained.validation.recognition.enrolled, trained.validation.recognition.all
    reached = baselines.reached(data, attrs)
    sentence = only_raises_cosine(model.cosine, model.rank1_enrolled, reached)
    names = {"no model": "without a model"}
    beside = "".join(f"; {names.get(name, name)} {rank1:.3f}" for name, (_, rank1) in reached.items())
    line = f"rank-1 among {enrolled} enrolled {model.rank1_enrolled:.3f}{beside}"
    return sentence and f"The checkpoint {sentence}.", line
