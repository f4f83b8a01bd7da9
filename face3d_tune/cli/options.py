"""The options that several commands share."""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from face3d_tune.cli.option_types import FILE_OR_FOLDER, Choice, Duration, HomePath, Number, SlotCount
from face3d_tune.storage.defaults import ARTIFACTS_VARIABLE, DEFAULT_ARTIFACTS, DEFAULT_STORAGE, STORAGE_VARIABLE
from face3d_tune.study.builtin import builtin_names
from face3d_tune.study.objective import OBJECTIVES
from face3d_tune.study.presets import PRESETS
from face3d_tune.system.paths import expanded

if TYPE_CHECKING:
    from face3d_tune.storage.database import Storage

NOTIFY_VARIABLE = "FACE3D_TUNE_NOTIFY"
ONLY_STUDY = "The study; may be left out if the storage holds only one."


def storage_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--storage`, also from the environment."""
    return click.option(
        "--storage",
        metavar="URL",
        default=DEFAULT_STORAGE,
        show_default=True,
        envvar=STORAGE_VARIABLE,
        show_envvar=True,
        help="Database of the studies: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.",
    )(function)


def notify_option(words: str) -> Callable[..., Any]:
    """Add `--notify`, several times, also from the environment."""
    return click.option("--notify", metavar="URL", multiple=True, envvar=NOTIFY_VARIABLE, show_envvar=True, help=words)


def complete_study(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete names of studies in a SQLite file, read without importing Optuna."""
    url = context.params.get("storage") or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    path = expanded(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or not path.is_file():
        return []
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)
        ) as database:
            names = [name for (name,) in database.execute("select study_name from studies order by 1")]
    except sqlite3.Error:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_study_file(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete study files: the names of built-in ones, and paths."""
    built_in = [CompletionItem(name) for name in builtin_names() if name.startswith(incomplete)]
    return [*built_in, CompletionItem(incomplete, type="file")]


def complete_preset(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the guide's presets."""
    return [name for name in PRESETS if name.startswith(incomplete)]


def study_name_option(words: str) -> Callable[..., Any]:
    """Add `--study-name`, with completion in the shell."""
    return click.option("--study-name", metavar="NAME", help=words, shell_complete=complete_study)


def storage_words(storage: "Storage") -> list[str]:
    """Return the words that name this storage again on a command line, if any are needed."""
    context = click.get_current_context()
    by_option = context.get_parameter_source("storage") == click.core.ParameterSource.COMMANDLINE
    return ["--storage", str(storage)] if by_option and not storage.holds_secret else []


def require_options_of_a_script(trainer_only: Container[str | None]) -> None:
    """Raise UsageError if one of these options was typed, which only the built-in trainer has."""
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(option.name or "") == click.core.ParameterSource.COMMANDLINE
        if typed and option.name in trainer_only:
            words = f"{option.opts[0]} is for the built-in trainer: the study file sets a script's flags"
            raise click.UsageError(words, context)


def data_dir_option(without: str) -> Callable[..., Any]:
    """Add `--data-dir`, with its default."""
    option: Callable[..., Any] = click.option(
        "--data-dir",
        type=FILE_OR_FOLDER,
        metavar="DIR",
        envvar="FACE3D_TUNE_DATA_DIR",
        show_envvar=True,
        help=f"Folder with the six data files; without it {without}.",
    )
    return option


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data-dir` and the options of pairs: which pairs are used, and who validates."""
    function = data_dir_option("the bundled sample, faces160")(pair_options(function))
    return function


baseline_option = click.option(
    "--baseline",
    type=FILE_OR_FOLDER,
    metavar="FILE.npz",
    help="Baseline whose outputs a script's model was trained on: the file of `data convert --inputs`. Checkpoints of "
    "this program hold theirs.",
)

blend_option = click.option(
    "--blend",
    type=Choice(["ridge", "kernel"]),
    help="Blend the mean of the checkpoints with ridge or kernel ridge, fitted on the training people of --data-dir; "
    "its validation people choose the weight.",
)
weight_option = click.option(
    "--weight",
    type=Number(0, 1),
    metavar="X",
    help="Weight of the baseline in the blend.  [default: the one that validation people choose; predict takes the one "
    "that `train --seeds` left in the folder]",
)


turn_angle_option = click.option(
    "--turn-angle",
    type=Choice(["first", "second", "third"]),
    default="first",
    show_default=True,
    help="Angle of a pose that is the head turn, here called yaw; `data check` shows all three.",
)


def pair_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--split`, `--min-yaw`, `--max-yaw` and `--turn-angle`: which pairs are used, and who validates."""
    for option in reversed(
        (
            click.option(
                "--split",
                type=Choice(["person", "none"]),
                default="person",
                show_default=True,
                help="Validate on people never trained on, or (none) on the training pairs themselves.",
            ),
            click.option(
                "--min-yaw",
                type=Number(0, 180),
                default=0.0,
                metavar="DEGREES",
                help="Use only views turned at least this far.  [default: 0]",
            ),
            click.option(
                "--max-yaw",
                type=Number(0, 180),
                metavar="DEGREES",
                help="Use only views turned at most this far.  [default: no limit]",
            ),
            turn_angle_option,
        )
    ):
        function = option(function)
    return function


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` and `--amp`: where a training runs, and in which precision."""
    for option in reversed(
        (
            click.option(
                "--device",
                default="auto",
                show_default=True,
                metavar="auto|cpu|mps|cuda|cuda:N,...",
                help="Where to train; auto takes a GPU if there is one. Several GPUs, e.g. cuda:0,cuda:1, share the "
                "trainings.",
            ),
            click.option(
                "--amp",
                type=Choice(["auto", "fp16", "bf16", "off"]),
                default="auto",
                show_default=True,
                help="Mixed precision of the trials that ask for it; auto is fp16 on CUDA and off elsewhere.",
            ),
        )
    ):
        function = option(function)
    return function


inference_device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:N|mps",
    help="Where the model runs; auto takes a GPU if there is one.",
)

engine_option = click.option(
    "--engine",
    type=Choice(["auto", "plain", "batched"]),
    default="auto",
    show_default=True,
    envvar="FACE3D_TUNE_ENGINE",
    show_envvar=True,
    help="What trains: the readable trainer, or the fast one with the same results.",
)


slots_option = click.option(
    "--slots",
    type=SlotCount(),
    metavar="auto|N",
    envvar="FACE3D_TUNE_SLOTS",
    show_envvar=True,
    help="Trials in training at once, in total.  [default: auto: from cores, memory, device and model size]",
)


artifacts_option = click.option(
    "--artifacts",
    metavar="DIR|s3://BUCKET/PREFIX",
    default=DEFAULT_ARTIFACTS,
    show_default=True,
    envvar=ARTIFACTS_VARIABLE,
    show_envvar=True,
    callback=lambda context, parameter, value: None if value == "none" else value,
    help="Where checkpoints lie; several machines need one that all reach. none keeps no checkpoints.",
)


def checkpoint_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--artifacts`, `--checkpoint-every` and `--keep-checkpoints`: which checkpoints are saved, and where."""
    for option in reversed(
        (
            artifacts_option,
            click.option(
                "--checkpoint-every",
                type=Duration(zero=True),
                default=0.0,
                metavar="TIME",
                help="Time between two checkpoints of a trial, e.g. 60s.  [default: after every epoch]",
            ),
            click.option(
                "--keep-checkpoints",
                type=click.IntRange(0),
                default=10,
                show_default=True,
                metavar="N",
                help="Number of finished trials whose best weights are kept.",
            ),
        )
    ):
        function = option(function)
    return function


def trying_options(what: str) -> Callable[..., Any]:
    """Add `--python` and `--timeout`: how `what` runs the users' script."""

    def options(function: Callable[..., Any]) -> Callable[..., Any]:
        python = click.option(
            "--python",
            type=HomePath(),
            default=sys.executable,
            metavar="PATH",
            help=f"Python that {what} runs the script with.  [default: this program's]",
        )
        timeout = click.option(
            "--timeout",
            type=Duration(),
            default=600.0,
            metavar="TIME",
            help=f"How long {what} waits for the epoch, e.g. 90s, 30m.  [default: 10m]",
        )
        return python(timeout(function))

    return options


objective_option = click.option(
    "--objective",
    type=Choice(OBJECTIVES),
    help="What a trial is worth on the validation people: cosine to the own frontal embedding (-1 to 1), or identity, "
    "how far the own person stands above all enrolled (cosine units, at most 0).  [default: the study file's]",
)

layout_option = click.option(
    "--layout",
    type=Choice(["keypoint", "pose"]),
    default="keypoint",
    show_default=True,
    help="Layout of the model: with landmarks (the one the guide tuned), or pose only.",
)
