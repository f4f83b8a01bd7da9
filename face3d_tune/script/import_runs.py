"""Earlier runs as trials of a study, if their claimed value is what this study would have measured.

A checkpoint contains the weights, so the claim can be tested. On this study's validation people they must reach the
cosine and the loss that the file states. If they reach these on the run's training pairs instead, the run was validated
there. Its value then says nothing about new people, and no trial is comparable.

A run without a split was validated on everyone, including the test people, whom only a confirmation evaluates. So such
a run is recognised by what its claim would imply for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import Tensor

from face3d_tune.config import PARAMETERS, PoseUnit, TrialConfig
from face3d_tune.data.face_data import FaceData, mean_by_yaw
from face3d_tune.errors import ConfigError
from face3d_tune.script.earlier_run import EarlierRun, NotExpressible, learning_rates
from face3d_tune.study import history, space
from face3d_tune.study.attrs import TrialAttr
from face3d_tune.study.objective import COSINE
from face3d_tune.study.settings import Settings
from face3d_tune.study.study_file import BoundStudyFile
from face3d_tune.study.trials import IMPORTED
from face3d_tune.training import losses, weights
from face3d_tune.training.base import PairTensors, pair_scores
from face3d_tune.training.inputs import seen
from face3d_tune.training.model import Model
from face3d_tune.training.recognition import Judging, Recognition

# Of cosine and of loss. The script may have validated in mixed precision, or with its pairs in other batches.
_SAME = 0.003
_LIKELY = 0.03  # the farthest plausible distance of the test people's cosine from that of other people
_CLEARLY = 3  # times nearer to the claim than on any other people

_CPU = torch.device("cpu")

Whom = Literal["validation", "train", "both"]


@dataclass(frozen=True, slots=True)
class _Scores:
    """The results of weights on some pairs, one number a pair."""

    squared_errors: Tensor  # averaged over the numbers of an embedding
    cosines: Tensor
    yaw: NDArray[np.float64]  # [pairs], degrees
    recognition: Recognition

    @property
    def mse(self) -> float:
        return self.squared_errors.mean().item()

    @property
    def cosine(self) -> float:
        return self.cosines.mean().item()


@dataclass(frozen=True, slots=True)
class Examined:
    """One run beside a study. Its claim is the cosine of its best epoch; unknown values are None."""

    run: EarlierRun
    claim: float
    measured: Mapping[Whom, float]  # cosine of its weights, by people of the study; empty without a test
    trial: FrozenTrial | None  # ready to be stored; None: refused
    confirmed: bool
    reason: str  # why it is refused or not confirmed; "" if neither
    note: str = ""  # what else to know before comparing it


def examine(
    run: EarlierRun, file: BoundStudyFile, settings: Settings, data: FaceData, *, unconfirmed: bool
) -> Examined:
    """Test a run's claim on a study's data. Make a trial if it holds or `unconfirmed` runs are accepted."""
    claim, measured = run.cosine[run.best_epoch - 1], {}
    try:
        _check_conditions(run, settings, data)
        unit, scores = _evaluate(run, data)
        measured = {whom: each.cosine for whom, each in scores.items()}
        config = run.config(unit)
        params, overrides = _cut(config, file)
    except NotExpressible as error:
        return Examined(run, claim, measured, None, False, str(error))
    doubt = _doubt(run, config, scores, data)
    trial = None
    if not doubt or unconfirmed:
        trial = _trial(run, config, params, overrides, file, settings, scores["validation"], confirmed=not doubt)
    note = ""
    if run.best_epoch == config.epochs < settings.epochs:
        note = (
            f"it still improved when it ended, after {config.epochs} epochs; trials here train up to {settings.epochs}"
        )
    return Examined(run, claim, measured, trial, not doubt, doubt, note)


def _check_conditions(run: EarlierRun, settings: Settings, data: FaceData) -> None:
    """Raise NotExpressible unless the study could have made this run."""
    run.config("degrees")
    if run.feature_size != data.feature_size:
        raise NotExpressible(f"its embeddings have {run.feature_size} numbers, the study's {data.feature_size}")
    if run.layout != settings.layout:
        raise NotExpressible(f"its model has the {run.layout} layout, the study's the {settings.layout} layout")
    if run.best_epoch > settings.epochs:
        most = f"{settings.epochs} at most (--epochs)"
        raise NotExpressible(f"its best epoch is {run.best_epoch}; this study trains {most}")
    if not run.holds_best:
        raise NotExpressible(f"its weights are not those of its best epoch, {run.best_epoch}; give its best_model.pth")


def _evaluate(run: EarlierRun, data: FaceData) -> tuple[PoseUnit, dict[Whom, _Scores]]:
    """Score the weights on each part of the people, in the unit of the poses that comes nearest to the claim."""
    units: tuple[PoseUnit, ...] = (run.pose_unit,) if run.pose_unit else ("degrees", "radians")
    tried = {unit: _evaluate_in(unit, run, data) for unit in units}
    near = {
        unit: min(_distance(run, run.config(unit), each) for each in scores.values()) for unit, scores in tried.items()
    }
    unit = min(units, key=lambda unit: near[unit])
    return unit, tried[unit]


def _evaluate_in(unit: PoseUnit, run: EarlierRun, data: FaceData) -> dict[Whom, _Scores]:
    config = run.config(unit)
    if differences := weights.differences(run.weights, config, data.feature_size):
        raise NotExpressible(f"it is another model than its args say: {'; '.join(differences)}")
    data = seen(data, config.inputs)
    model = Model(config, data.feature_size, torch.Generator())
    model.load_state_dict(run.weights)
    model.eval()
    scores: dict[Whom, _Scores] = {"validation": _score(model, data, unit)}
    if data.split == "person":  # else these are everyone
        both = np.concatenate((data.parts["train"], data.parts["validation"]))
        both = both[np.lexsort(both.T[::-1])]  # in the order of the files, as a script without a split
        others: dict[Whom, NDArray[np.int64]] = {"train": data.parts["train"], "both": both}
        for whom, pairs in others.items():
            scores[whom] = _score(model, replace(data, parts={**data.parts, "validation": pairs}), unit)
    return scores


@torch.no_grad()
def _score(model: Model, data: FaceData, unit: PoseUnit) -> _Scores:
    """Score the weights on the validation pairs."""
    pairs = PairTensors(data, "validation", unit, _CPU)

    def predict(batch: slice) -> tuple[Tensor, Tensor]:
        return model(pairs.src[batch], pairs.landmarks[batch], pairs.poses[batch]), pairs.target[batch]

    judging = Judging(pairs.gallery)
    return _Scores(*pair_scores(len(pairs), predict, judging), pairs.yaw, judging.end().summary())


def _distance(run: EarlierRun, config: TrialConfig, scores: _Scores) -> float:
    """Return the distance of scores from the file's best epoch: in cosine or loss, the larger of both.

    Scripts take the mean over pairs, or over batches, of which the last is smaller. The nearer mean counts.
    """
    best, both = run.best_epoch - 1, (scores.squared_errors, scores.cosines)
    in_batches = [
        torch.stack([part.mean() for part in torch.split(each, min(config.batch_size, len(each)))]) for each in both
    ]
    distances = []
    for squared_errors, cosines in (both, in_batches):
        cosine = cosines.mean().item()
        loss = losses.combine(config, squared_errors.mean().item(), cosine)
        distances.append(max(abs(cosine - run.cosine[best]), abs(loss - run.val_loss[best])))
    return min(distances)


def _doubt(run: EarlierRun, config: TrialConfig, scores: Mapping[Whom, _Scores], data: FaceData) -> str:
    """Say why the claim does not hold on the study's validation people; "" if it does."""
    distance = {whom: _distance(run, config, each) for whom, each in scores.items()}
    on_validation = distance.pop("validation")
    nearest = min(distance, key=lambda whom: distance[whom], default=None)
    if on_validation <= _SAME and (nearest is None or on_validation * _CLEARLY <= distance[nearest]):
        return ""
    claim, validation = run.cosine[run.best_epoch - 1], scores["validation"].cosine
    says = f"it says {claim:.4f}, and its weights give {validation:.4f} on the {len(data.people['validation'])} people"
    says += " who validate here"
    if nearest is None or min(distance[nearest], on_validation) > _SAME:
        if not _is_of_everyone(claim, scores, data):
            return f"{says}: it was made on other data, with another split, or on other views"
        nearest = "both"
    whose = f"the pairs of those who train {'or validate ' if nearest == 'both' else ''}here"
    on_theirs = f"{scores[nearest].cosine:.4f} on {whose}"
    if on_validation <= _SAME and on_validation < distance[nearest] * _CLEARLY:
        return f"{says}, {on_theirs}: too close to tell which people it was validated on"
    return f"{says}, but {on_theirs}: it was validated on the pairs that it trained on, not on people it had never seen"


def _is_of_everyone(claim: float, scores: Mapping[Whom, _Scores], data: FaceData) -> bool:
    """Tell whether a claim may be everyone's mean, with a plausible cosine of the test people, who are not evaluated
    here.
    """
    both = scores.get("both")
    test = 0 if both is None else sum(map(len, data.parts.values())) - len(both.cosines)
    if both is None or not test:
        return False
    of_test = claim + (claim - both.cosine) * len(both.cosines) / test
    low, high = sorted((scores["train"].cosine, scores["validation"].cosine))
    return low - _LIKELY <= of_test <= high + _LIKELY


def _cut(config: TrialConfig, file: BoundStudyFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a config into Optuna's parameters and the other settings, as for a preset. Raises NotExpressible."""
    values = {name: value for name, value in config.to_dict().items() if name in PARAMETERS}
    if "width" in file.space:
        values["width"] = config.d_model / file.feature_size
    try:
        return space.cut(file.space, values)
    except ConfigError as error:
        raise NotExpressible(error.message) from error


def _trial(
    run: EarlierRun,
    config: TrialConfig,
    params: Mapping[str, Any],
    overrides: Mapping[str, Any],
    file: BoundStudyFile,
    settings: Settings,
    validation: _Scores,
    *,
    confirmed: bool,
) -> FrozenTrial:
    """Make a completed trial, without what no checkpoint stores: seed, times, machine.

    Under another objective than the cosine, its value is what its weights give, and the epochs before have none.
    """
    best, epochs, objective = run.best_epoch - 1, settings.epochs, settings.objective
    train_loss, val_loss, cosine = (curve[:epochs] for curve in (run.train_loss, run.val_loss, run.cosine))
    rates = learning_rates(run, config)[: len(cosine) + 1]
    attrs = {
        TrialAttr.origin.key: IMPORTED,
        TrialAttr.imported_from.key: str(run.path),
        TrialAttr.sha256.key: run.sha256,
        TrialAttr.run_id.key: run.run_id(config),
        TrialAttr.confirmed.key: confirmed,
        TrialAttr.config.key: config.to_dict(),
        TrialAttr.overrides.key: dict(overrides),
        TrialAttr.stop_reason.key: IMPORTED,
        TrialAttr.epochs_run.key: len(cosine),
        TrialAttr.best_epoch.key: run.best_epoch,
        TrialAttr.val_cosine.key: cosine[best],
        TrialAttr.val_loss.key: val_loss[best],
        TrialAttr.val_loss_equal.key: 0.5 * validation.mse + 0.5 * (1 - validation.cosine),
        TrialAttr.train_loss.key: train_loss[best],
        TrialAttr.gap.key: val_loss[best] - train_loss[best],
        TrialAttr.cosine_by_yaw.key: mean_by_yaw(validation.cosines.numpy(), validation.yaw),
        TrialAttr.recognition.key: validation.recognition.to_dict(),
    }
    if rates:
        attrs |= {TrialAttr.lr_decays.key: sum(b < a for a, b in pairwise(rates)), TrialAttr.lr_final.key: rates[-1]}
    curves = {"cosine": cosine, "train_loss": train_loss, "val_loss": val_loss, "lr": rates[:-1]}
    return create_trial(
        state=TrialState.COMPLETE,
        value=objective.of_trial(attrs),
        params=dict(params),
        distributions={name: file.space[name] for name in params},
        user_attrs=attrs,
        system_attrs={history.ATTR: {name: list(curve) for name, curve in curves.items()}},
        # A value that is not comparable must not decide which trials are pruned.
        intermediate_values=dict(enumerate(cosine, 1)) if confirmed and objective == COSINE else {},
    )
