"""Studies of a script of the user's own, stored as a search would have stored them; nothing is trained."""

import json
from datetime import timedelta

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from stored_study import START

from face3d_tune.study.history import ATTR

SPACE = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "margin": FloatDistribution(0.1, 1.0),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
}
METRIC = {"maximize": "Val/CosineSimilarity", "minimize": "val_loss"}
EPOCHS = 5


def script_attrs(direction="maximize", **changed):
    """What a study of a script says of itself."""
    script = {
        "path": "train_3d_triplet.py",
        "sources": {"train_3d_triplet.py": "a1b2c3d4" + "0" * 56, "models/net.py": "ffee0011" + "0" * 56},
        "metric": METRIC[direction],
        "source": "tensorboard",
        "direction": direction,
        "keep": None,
        "keep_direction": "minimize",
        "command": ["python", "train_3d_triplet.py"],
        "seed_flag": "seed",
        "epochs_flag": "epochs",
    }
    return {
        "id": "fedcba9876543210",
        "script": script | changed.pop("script", {}),
        "versions": {"face3d_tune": "0.1.0", "optuna": "5.0.0", "torch": "2.13.0", "python": "3.11.7"},
        "effort": {"trials": 20, "target": None, "sampler": "tpe", "pruner": "median"},
        "settings": {
            "study_file": "triplet",
            "epochs": EPOCHS,
            "objective": METRIC[direction],
            "seed": 42,
            "fixed": {"batch_size": 16},
            "space": {name: json.loads(distribution_to_json(row)) for name, row in SPACE.items()},
        },
    } | changed


def study_of_script(*trials, direction="maximize", name="triplet", storage=None, **attrs):
    """A study of a script with these trials."""
    study = optuna.create_study(direction=direction, study_name=name, storage=storage)
    for key, value in script_attrs(direction, **attrs).items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return study


def script_trial(
    state, curve=(), *, direction="maximize", preset=None, lr=1e-3, margin=0.2, optimizer="adam", minute=0, **attrs
):
    """A trial that took a minute; `curve` has the metric of each epoch, and the epoch with the best is kept.

    Beside it the script gives `Train/Loss`, which falls by 0.1 an epoch from 1.
    """
    state, metric = TrialState[state], METRIC[direction]
    begin, waits = START + timedelta(minutes=minute), state == TrialState.WAITING
    params = {} if waits else {"lr": lr, "margin": margin, "optimizer": optimizer}
    stored = {}
    if not waits:
        stored = {
            "config": {**params, "batch_size": 16, "epochs": EPOCHS},
            "preset": preset,
            "overrides": {},
            "seed": 7,
        }
        stored |= {"device": "cpu (1 threads)", "engine": "script"}
    if state.is_finished():
        stored["stop_reason"] = "error" if state == TrialState.FAIL else "finished"
        stored["seconds"] = 60.0
    curves = {metric: list(curve), "Train/Loss": [round(1 - 0.1 * epoch, 6) for epoch in range(len(curve))]}
    if curve:
        best = (max if direction == "maximize" else min)(range(len(curve)), key=lambda place: curve[place])
        stored |= {"best_epoch": best + 1, "epochs_run": len(curve)}
        stored["numbers"] = {name: values[best] for name, values in curves.items()}
    return FrozenTrial(
        number=0,  # the storage counts
        trial_id=-1,
        state=state,
        value={
            TrialState.COMPLETE: stored.get("numbers", {}).get(metric),
            TrialState.PRUNED: curve[-1:] and curve[-1],
        }.get(state),
        datetime_start=None if waits else begin,
        datetime_complete=begin + timedelta(minutes=1) if state.is_finished() else None,
        params=params,
        distributions={name: SPACE[name] for name in params},
        user_attrs=stored | attrs,
        system_attrs={ATTR: {"numbers": curves}} if curve and state.is_finished() else {},
        intermediate_values=dict(enumerate(curve, 1)),
    )


def searched_script(direction="maximize"):
    """Defaults, a preset of the guide, ten others, the best (trial 12), two pruned, two that failed.

    Higher is better: 0.60, 0.55, 0.61 to 0.655, 0.70; pruned at 0.30. Lower is better: one less each of these.
    """

    def curve(*values):
        return [round(value if direction == "maximize" else 1 - value, 6) for value in values]

    def trial(state, *values, **more):
        return script_trial(state, curve(*values), direction=direction, **more)

    others = [
        trial("COMPLETE", 0.4, 0.61 + 0.005 * place, lr=2e-3, margin=0.3 + 0.01 * place, minute=2 + place)
        for place in range(10)
    ]
    failed = {"error": "torch.OutOfMemoryError: CUDA out of memory", "cause": "out_of_memory"}
    return [
        trial("COMPLETE", 0.4, 0.5, 0.6, 0.58, minute=0, preset="defaults"),
        trial("COMPLETE", 0.4, 0.5, 0.55, lr=5e-5, minute=1, preset="recommended"),
        *others,
        trial("COMPLETE", 0.5, 0.6, 0.70, 0.65, lr=3e-3, margin=0.5, optimizer="sgd", minute=12, seed=11),
        *(trial("PRUNED", 0.2, 0.3, minute=13 + place, seconds=10.0, lr=1e-5) for place in range(2)),
        trial("FAIL", minute=15, **failed),
        trial("FAIL", minute=16, error="ValueError: margin must be below 1", cause="error"),
    ]
