"""A study for Python: `face3d_tune.load_study`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna import Study as OptunaStudy

from face3d_tune.data.face_data import FaceData
from face3d_tune.device import choose_device
from face3d_tune.errors import StudyError, TuneError
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage
from face3d_tune.storage.defaults import (
    ARTIFACTS_VARIABLE,
    DEFAULT_ARTIFACTS,
    DEFAULT_STORAGE,
    NO_ARTIFACTS,
    STORAGE_VARIABLE,
)
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.kept_weights import kept_weights
from face3d_tune.study.lookup import StoredTrial, find_study
from face3d_tune.study.objective import Direction, Objective
from face3d_tune.study.records import Trial, records
from face3d_tune.study.study_data import study_data
from face3d_tune.study.trials import best_trial
from face3d_tune.training.predictor import FromViews


@contextmanager
def told_in_python() -> Iterator[None]:
    """Let an error show its hint as well, since no command line prints it."""
    try:
        yield
    except TuneError as error:
        if error.hint and error.args == (error.message,):
            error.args = (f"{error.message}\nhint: {error.hint}",)
        raise


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging anything but errors until the block ends."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@dataclass(frozen=True, slots=True)
class Study:
    """A study, as it was when it was loaded; `optuna` is Optuna's own object, which reads and writes the storage.

    Attributes:
        name: Its name.
        objective: What a trial's value is: cosine, identity, or the name of a script's number.
        direction: Which values are better: maximize or minimize.
        trials: Its trials by number, without those of other programs.
        best: The completed trial with the best value; None before there is one.
        attrs: Its user attributes.
        optuna: The study as Optuna has it.
    """

    name: str
    objective: str
    direction: Direction
    trials: tuple[Trial, ...] = field(repr=False)
    best: Trial | None
    attrs: Mapping[str, Any] = field(repr=False)
    optuna: OptunaStudy = field(repr=False, compare=False)

    def trial(self, number: int | None = None) -> Trial:
        """Return a trial by number, or the best. Raises StudyError."""
        with told_in_python():
            if number is None and self.best is not None:
                return self.best
            found = next((trial for trial in self.trials if trial.number == number), None)
            if found is None:
                lacks = "no completed trial yet" if number is None else f"no trial {number}"
                raise StudyError(f"study {self.name!r} has {lacks}", f"it holds {len(self.trials)} trials")
            return found

    def config(self, number: int | None = None) -> dict[str, Any]:
        """Return everything that a trial, or the best, trains with; a script's flags. Raises StudyError."""
        return dict(self.trial(number).config)

    def curves(self, number: int | None = None) -> dict[str, tuple[float, ...]]:
        """Return the curves of a trial, or of the best: one number an epoch, by name. Raises StudyError."""
        return dict(self.trial(number).curves)

    def model(self, number: int | None = None, *, artifacts: str | None = None, device: str = "cpu") -> torch.nn.Module:
        """Return a trial, or the best, as a module in evaluation mode with its best weights.

        `model(src, landmarks, pose)` predicts frontal embeddings, [B, F], from side-view embeddings, [B, F], landmarks
        as `data().landmarks` has them, [B, 5, 3], and poses, [B, 3], in the trial's `pose_unit`. With several folds it
        is the model of the first.

        Args:
            number: Of the trial; None: the best.
            artifacts: Folder or s3://BUCKET/PREFIX where the search kept weights; as `--artifacts` by default.
            device: Where it runs: cpu, cuda, cuda:N, mps or auto.

        Raises:
            StudyError: There is no such trial, or the study searches a script, whose models are the script's own.
            CheckpointError: The search kept no weights of this trial; by default it keeps the best ten.
            ArtifactError: The folder or bucket cannot be read.
        """
        with told_in_python():
            trial = self.trial(number).optuna
            stored = StoredTrial(self.name, self.attrs, trial, ())
            stored.require_face_data("load its checkpoint with the script's own classes; the folder of a trial has it")
            place = artifacts or os.environ.get(ARTIFACTS_VARIABLE) or DEFAULT_ARTIFACTS
            store = None if place == NO_ARTIFACTS else Artifacts.parse(place, to_write=False)
            kept = kept_weights(stored, store, choose_device(device))
            if kept.baseline is None:
                return kept.model
            assert kept.pose_unit is not None, "a search records it"
            return FromViews(kept.model, kept.baseline, kept.pose_unit).eval()

    def data(self, folder: str | Path | None = None) -> FaceData:
        """Load the data that the study was made on, with its people and pairs; a folder if they lie elsewhere now.

        Raises DataError, and StudyError if these are other data, or if the study searches a script.
        """
        with told_in_python():
            if script := StudyAttr.script.get(self.attrs):
                raise StudyError(
                    f"study {self.name!r} searches a script of your own, {script['path']}", "the script knows its data"
                )
            return study_data(self.name, self.attrs, None if folder is None else Path(folder))


def load_study(storage: str | None = None, name: str | None = None) -> Study:
    """Load a study with all its trials.

    Args:
        storage: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; by default as `--storage`.
        name: Of the study; may be omitted if the storage holds only one.

    Raises:
        StorageError: The database cannot be reached, or holds no study.
        StudyError: There is no such study, or another program made it.
    """
    place = storage or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    with told_in_python(), quiet_optuna(), Storage.parse(place).opened() as opened:
        found = find_study(opened, name)
        objective, trials, best = Objective.of_study(found.user_attrs), tuple(records(found)), best_trial(found)
        return Study(
            name=found.study_name,
            objective=objective.name,
            direction=objective.direction,
            trials=trials,
            best=None if best is None else next(trial for trial in trials if trial.number == best.number),
            attrs=found.user_attrs,
            optuna=found,
        )
