"""The best weights of a trial, which its search kept."""

import tempfile
from pathlib import Path

import torch

from face3d_tune.errors import CheckpointError
from face3d_tune.storage.artifacts import Artifacts, best_weights, unique_name
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.lookup import StoredTrial
from face3d_tune.study.trials import is_imported
from face3d_tune.training import predictor
from face3d_tune.training.predictor import Predictor


def kept_weights(stored: StoredTrial, artifacts: Artifacts | None, device: torch.device) -> Predictor:
    """Read the best weights of a trial as a model. Raises ArtifactError, and CheckpointError without any."""
    trial, attrs = stored.trial, stored.study_attrs
    if is_imported(trial):
        raise CheckpointError(
            f"trial {trial.number} was trained elsewhere, so study {stored.study!r} has no weights of it",
            f"give its checkpoint: {TrialAttr.imported_from.get(trial.user_attrs)}",
        )
    file = best_weights(unique_name(stored.study, StudyAttr.id.of(attrs)), f"trial-{trial.number}")
    content = None if artifacts is None else artifacts.read(file)
    if content is None:
        raise CheckpointError(
            f"--artifacts {artifacts or 'none'} has no weights of trial {trial.number} of study {stored.study!r}",
            "name where the search kept them; or train it again with `face3d-tune train`, and give its best_model.pth",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"trial-{trial.number}.pth"
        path.write_bytes(content)
        try:
            return predictor.read(path, device)
        except CheckpointError as error:
            raise CheckpointError(error.message.replace(str(path), f"{artifacts}: {file}"), error.hint) from error
