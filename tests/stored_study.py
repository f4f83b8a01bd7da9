"""Studies as face3d-tune stores them, with trials as short as a test needs; nothing is trained."""

from datetime import datetime, timedelta

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from searches import epoch

from face3d_tune.config import TrialConfig
from face3d_tune.history import ATTR, pack

START = datetime(2026, 1, 1)
SPACE = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "pose_unit": CategoricalDistribution(["degrees", "radians"]),
}


def our_study(storage, name, **attrs):
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    people, pairs = {"train": 7, "validation": 3, "test": 2}, {"train": 42, "validation": 18, "test": 12}
    held = {
        "id": "0123456789abcdef",
        "data": {"source": "faces", "feature_size": 16, "pose_unit": "degrees", "split": "person", "min_yaw": 0.0}
        | {"max_yaw": None, "people": people, "pairs": pairs},
        "data_fingerprint": "0011223344556677",
        "no_model_cosine": 0.5,
        "no_model_by_yaw": {"0-15": 0.7, "15-45": 0.5, "45-90": None},
        "versions": {"face3d_tune": "0.1.0", "optuna": "5.0.0", "torch": "2.13.0", "python": "3.11.7"},
        "effort": {"trials": 50, "target": None, "sampler": "tpe", "pruner": "median"},
        "settings": {"study_file": "default", "layout": "keypoint", "epochs": 100, "seed": 42, "fixed": {}}
        | {"space": {parameter: {} for parameter in SPACE}},
    }
    for key, value in (held | attrs).items():
        study.set_user_attr(key, value)
    return study


def add_trial(study, state, cosines, *, preset=None, lr=1e-4, pose_unit="degrees", number=None, **attrs):
    """A trial of a minute, right after the one before it; its kept epoch is the one with the highest cosine."""
    number = len(study.get_trials(deepcopy=False)) if number is None else number
    epochs = [epoch(step, cosine) for step, cosine in enumerate(cosines, 1)]
    config = TrialConfig(d_model=16, dim_feedforward=64, lr=lr, pose_unit=pose_unit)
    known = {"config": config.to_dict(), "preset": preset, "overrides": {}, "seed": number, "stop_reason": "finished"}
    if cosines:
        best = max(cosines)
        known |= {"val_cosine": best, "best_epoch": cosines.index(best) + 1, "epochs_run": len(cosines)}
        known |= {
            "val_loss": 1 - best,
            "val_loss_equal": 1 - best,
            "train_loss": 0.5,
            "gap": 0.5 - best,
            "seconds": 60.0,
        }
        known |= {
            "cosine_by_yaw": {"0-15": best, "15-45": best, "45-90": None},
            "lr_final": lr,
            "lr_decays": 0,
            "seconds": 60.0,
        }
    study.add_trial(
        FrozenTrial(
            number=number,
            trial_id=-1,
            state=TrialState[state],
            value={"COMPLETE": max(cosines, default=None), "PRUNED": cosines[-1] if cosines else None}.get(state),
            datetime_start=START + timedelta(minutes=number),
            datetime_complete=START + timedelta(minutes=number + 1) if TrialState[state].is_finished() else None,
            params={"lr": lr, "pose_unit": pose_unit},
            distributions=SPACE,
            user_attrs=known | attrs,
            system_attrs={ATTR: pack(epochs)},
            intermediate_values={step: cosine for step, cosine in enumerate(cosines, 1)},
        )
    )
