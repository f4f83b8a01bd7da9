"""`export --inference`: a folder that predicts frontal embeddings without this program."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face3d_tune.cli.base import option_group
from face3d_tune.cli.language import say
from face3d_tune.cli.option_types import FILE_OR_FOLDER
from face3d_tune.cli.options import artifacts_option, baseline_option, blend_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from face3d_tune.data.face_data import FaceData
    from face3d_tune.refit.baselines import Blended
    from face3d_tune.refit.inference.ensemble import Ensemble, ExportedMember
    from face3d_tune.training.prediction_file import Blend


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """What the folder is made of, and where it is written."""

    out: Path | None  # None: no folder
    blend: Any  # a kind of baseline, or None
    baseline: Path | None  # whose outputs a script's model was trained on
    artifacts: str | None
    force: bool


inference_options = option_group(
    "Inference",
    InferenceOptions,
    click.option(
        "--inference",
        "out",
        type=FILE_OR_FOLDER,
        metavar="DIR",
        help="Write a folder that predicts frontal embeddings with numpy and torch alone, from the CHECKPOINTs or from "
        "the weights that the search kept of the trial.",
    ),
    blend_option,
    baseline_option,
    artifacts_option,
    click.option("--force", is_flag=True, help="Overwrite an earlier folder of --inference."),
)


def check_usage(
    options: InferenceOptions, checkpoints: tuple[Path, ...], study_name: str | None, number: int | None
) -> None:
    """Raise UsageError for options of which one makes no sense with or without another."""
    context = click.get_current_context()

    def refuse(sentence: str) -> None:
        raise click.UsageError(sentence, context)

    def given(name: str) -> bool:
        return context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE

    if options.out is None:
        for name, used in (
            ("CHECKPOINT", checkpoints),
            ("--blend", options.blend),
            ("--baseline", options.baseline),
            ("--force", options.force),
        ):
            if used:
                refuse(f"{name} needs --inference DIR")
        return
    for name, option in (("form", "--format"), ("script", "--script"), ("shell", "--shell"), ("partial", "--partial")):
        if given(name):
            refuse(f"{option} shapes a command: it goes without --inference")
    if given("check"):
        refuse("--check tries a command: it goes without --inference")
    if checkpoints and (study_name is not None or number is not None):
        refuse("a CHECKPOINT goes without --study-name and --trial")
    if options.baseline is not None and not checkpoints:
        refuse("--baseline goes with a CHECKPOINT only")


def export_inference(
    options: InferenceOptions,
    checkpoints: tuple[Path, ...],
    storage: str,
    study_name: str | None,
    number: int | None,
    data_dir: Path | None,
) -> None:
    """Write the folder, and print what it holds and how to use it."""
    from face3d_tune.device import set_threads
    from face3d_tune.refit.blend import fit_blend
    from face3d_tune.refit.inference import folder
    from face3d_tune.refit.inference.ensemble import assemble

    assert options.out is not None
    folder.require_usable(options.out, force=options.force)
    set_threads(None)
    if checkpoints:
        ensemble = assemble(*_of_checkpoints(checkpoints, data_dir, options.blend, options.baseline))
    else:
        member, data, attrs = _of_trial(storage, study_name, number, data_dir, options.artifacts)
        blend = None if options.blend is None else fit_blend(options.blend, [member], data, attrs)
        ensemble = assemble([member], blend, data)
    folder.write(options.out, ensemble)
    _tell(options.out, ensemble)


def tell_blend(blend: "Blend") -> None:
    """Say what a prediction is blended with, and if nothing of the checkpoints is left."""
    chosen_by = "as given" if blend.chosen is None else "as validation people chose"
    say(f"blended with {blend.name}, weight {blend.weight:.2f} ({chosen_by})")
    if blend.weight == 1:
        say(f"note: this weight leaves the checkpoints no share: the rows are those of {blend.name} alone", err=True)


def _of_trial(
    storage: str, study_name: str | None, number: int | None, data_dir: Path | None, artifacts: str | None
) -> "tuple[ExportedMember, FaceData, Mapping[str, Any]]":
    """Return the kept weights of a trial, its study's data and attributes; with folds, the people of the first."""
    from face3d_tune.refit.inference.sources import of_trial
    from face3d_tune.storage.artifacts import Artifacts
    from face3d_tune.storage.database import Storage
    from face3d_tune.study.lookup import read_trial
    from face3d_tune.study.study_data import study_data
    from face3d_tune.study.trials import folds_of

    stored = read_trial(Storage.parse(storage), study_name, number)
    stored.require_face_data("name a checkpoint of the script: face3d-tune export --inference DIR CHECKPOINT")
    store = None if artifacts is None else Artifacts.parse(artifacts, to_write=False)
    member = of_trial(stored, store)
    data = study_data(stored.study, stored.study_attrs, data_dir)
    return member, data.fold(1, of=folds_of(stored.study_attrs)), stored.study_attrs


def _of_checkpoints(
    checkpoints: tuple[Path, ...], data_dir: Path | None, kind: "Blended | None", baseline: Path | None
) -> "tuple[list[ExportedMember], Blend | None, FaceData | None]":
    """Return the checkpoints, their blend and their data; None for data that cannot be read and are not needed.

    A folder of `train --seeds` has its blends; a blend of others is fitted to the data.
    """
    from face3d_tune.device import choose_device
    from face3d_tune.errors import DataError
    from face3d_tune.refit import doubts
    from face3d_tune.refit.blend import fit_blend, of_folder, require_same
    from face3d_tune.refit.ensemble_folder import ABOUT
    from face3d_tune.refit.inference.ensemble import require_alike
    from face3d_tune.refit.inference.sources import of_checkpoints, recorded_data
    from face3d_tune.script.earlier_run import find
    from face3d_tune.training import baseline_file, predictor

    inputs = None if baseline is None else baseline_file.load(baseline)
    models = [predictor.read(path, choose_device("cpu"), inputs) for path in find(checkpoints)]
    require_alike(models)
    stored = data_dir is None and len(checkpoints) == 1 and (checkpoints[0] / ABOUT).is_file()
    needed = any(each.pose_unit is None for each in models) or (kind is not None and not stored)
    hint = "give the training data with --data-dir"
    data: FaceData | None = None
    try:
        data = recorded_data(models, data_dir)
    except DataError as error:
        if needed or data_dir is not None:
            raise DataError(error.message, hint) from error
        say(f"note: no validation people measure this export: {error.message}", err=True)
    members = of_checkpoints(models, data)
    blend: Blend | None = None
    if kind is not None and stored:
        blend = of_folder(checkpoints[0], kind, members, None)
    elif kind is not None and data is not None:
        for each in models:
            require_same(each, data, hint)
        blend = fit_blend(kind, members, data)
    if data is not None:
        for member in members:
            for doubt in doubts.find(member.predictor, member.unit, data):
                say(f"note: {member.predictor.path}: {doubt}", err=True)
    return members, blend, data


def _tell(out: Path, ensemble: "Ensemble") -> None:
    """Say what was written, what it reaches, and how to use it."""
    count = len(ensemble.members)
    say(f"wrote {out}: {count} member{'s' * (count > 1)}, predict.py, config.json and README.md")
    if (blend := ensemble.blend) is not None:
        tell_blend(blend)
    if ensemble.validation is not None:
        people, enrolled, rates = ensemble.validation.people, ensemble.validation.enrolled, ensemble.validation.all
        rank1 = "" if rates.rank1_enrolled is None else f", rank-1 among {enrolled} enrolled {rates.rank1_enrolled:.3f}"
        say(f"{people} validation people: cosine {rates.cosine:.4f}{rank1}")
    say(f"use it: python {shlex.quote(str(out / 'predict.py'))} DATA_DIR -o frontal.npy")
