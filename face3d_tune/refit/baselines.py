"""The methods without training that a model is compared and blended with: no model, ridge and kernel ridge."""

from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from face3d_tune.analysis import recognising
from face3d_tune.data.face_data import FaceData
from face3d_tune.data.pairs import Part
from face3d_tune.study.attrs import StudyAttr
from face3d_tune.study.trials import folds_of
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.recognition import Gallery

Blended = Literal["ridge", "kernel"]  # a baseline that a blend may have, as options name it
NAMES: Mapping[Blended, str] = {"ridge": "ridge", "kernel": "kernel ridge"}


class NoModel:
    """The embeddings of the views as they are, asked like a fit."""

    def cosines(self, data: FaceData, part: Part) -> NDArray[Any]:
        """Return the cosine of each pair of a part, [pairs]."""
        return data.no_model_cosines(part)

    def predict(self, data: FaceData, part: Part) -> NDArray[Any]:
        """Return the embedding of each pair's view, [pairs, F], of any length."""
        return data.no_model_predictions(part)


Fitted = ridge.Ridge | kernel_ridge.KernelRidge | NoModel


def fit(data: FaceData, attrs: Mapping[str, Any] | None = None) -> dict[str, Fitted]:
    """Fit every method on the training people, by name.

    `attrs` are the user attributes of a study on these data: see `fit_one`.
    """
    return {"no model": NoModel(), **{name: fit_one(kind, data, attrs) for kind, name in NAMES.items()}}


def fit_one(
    kind: Blended, data: FaceData, attrs: Mapping[str, Any] | None = None
) -> ridge.Ridge | kernel_ridge.KernelRidge:
    """Fit ridge or kernel ridge on the training people.

    `attrs` are the user attributes of a study on these data: what it has chosen is not chosen again. A study of folds
    has chosen on the training people of fold 1, who may validate here, so its choice does not count.
    """
    attrs = attrs if attrs is not None and folds_of(attrs) == 1 else {}
    if kind == "ridge":
        return ridge.fit(data, StudyAttr.ridge_penalty.get(attrs))
    stored = StudyAttr.kernel_ridge_choice.get(attrs)
    return kernel_ridge.fit(data, None if stored is None else kernel_ridge.Hyperparameters.of(stored))


def reached(data: FaceData, attrs: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """Return cosine and rank-1 among everyone enrolled that each method reaches on the validation people, by name.

    A study on these data and their ordinary split has stored them in its `attrs`; else the methods are fitted.
    """
    stored = recognising.of_baselines(attrs) if folds_of(attrs) == 1 else {}
    if stored.keys() >= {"no model", *NAMES.values()}:
        return {name: (each["all"]["cosine"], each["all"]["rank1_enrolled"]) for name, each in stored.items()}
    gallery = Gallery(data, "validation")
    scores = {name: gallery.scores(each.predict(data, "validation")) for name, each in fit(data, attrs).items()}
    rates = {name: each.summary().all for name, each in scores.items()}
    return {name: (each.cosine, each.rank1_enrolled) for name, each in rates.items()}
