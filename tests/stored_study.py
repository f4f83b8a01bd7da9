"""Studies of every kind, stored as a search would have stored them; nothing is trained."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from searches import epoch
from sqlalchemy import func, insert, select

from face3d_tune.config import TrialConfig
from face3d_tune.storage.optuna_internals import TABLES
from face3d_tune.study.history import ATTR, pack

START = datetime(2026, 1, 1)
SPACE = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "pose_unit": CategoricalDistribution(["degrees", "radians"])}
BANDS = ("0-15", "15-45", "45-90")
EPOCHS = 20  # that a trial may train


def attrs_of(**changed):
    """What a study says of itself."""
    people, pairs = {"train": 7, "validation": 3, "test": 2}, {"train": 42, "validation": 18, "test": 12}
    data = {"source": "faces", "feature_size": 16, "pose_unit": "degrees", "split": "person", "min_yaw": 0.0}
    return {
        "id": "0123456789abcdef",
        "data": {**data, "max_yaw": None, "people": people, "pairs": pairs} | changed.pop("data", {}),
        "data_fingerprint": "0011223344556677",
        "no_model_cosine": 0.5,
        "no_model_by_yaw": dict(zip(BANDS, (0.8, 0.5, 0.2), strict=True)),
        "versions": {"face3d_tune": "0.1.0", "optuna": "5.0.0", "torch": "2.13.0", "python": "3.11.7"},
        "effort": {"trials": 50, "target": None, "sampler": "tpe", "pruner": "median"},
        "settings": {
            "study_file": "default",
            "layout": "keypoint",
            "epochs": EPOCHS,
            "seed": 42,
            "fixed": {},
            "space": {name: json.loads(distribution_to_json(row)) for name, row in SPACE.items()},
        },
    } | changed


def recognition_of(rank1, cosine=0.6, *, judged=3, enrolled=12, tar=0.5):
    """Stored recognition with this rank-1 among all enrolled; among those judged it is 0.1 higher."""
    rates = {"rank1_judged": rank1 + 0.1, "rank1_enrolled": rank1, "tar_judged": tar, "tar_enrolled": tar - 0.1}
    rates |= {"identity": -0.2, "cosine": cosine}
    sizes = {"judged": judged, "enrolled": enrolled, "people": judged, "views": 18}
    pooled = rates | {"rank1_enrolled": rank1 + 0.2}
    return {**sizes, "all": rates, "by_yaw": {band: rates for band in BANDS}, "pooled": pooled}


def recognised(*, best=0.5, no_model=0.6, ridge=0.7, kernel_ridge=0.8, **attrs):
    """The trials of `searched` and the baselines, with the rank-1 that they reach; cosine alone would call 12 best."""
    trials = searched()
    for place, trial in enumerate(trials):
        if "val_cosine" in trial.user_attrs:
            rank1 = best if place == 12 else 0.4 + 0.01 * place
            trial.set_user_attr("recognition", recognition_of(rank1, trial.user_attrs["val_cosine"]))
    simple = {"no_model": (0.5, no_model), "ridge": (0.6, ridge), "kernel_ridge": (0.65, kernel_ridge)}
    for name, (cosine, rank1) in simple.items():
        attrs |= {f"{name}_cosine": cosine, f"{name}_by_yaw": dict(zip(BANDS, (0.8, 0.5, 0.2), strict=True))}
        attrs |= {f"{name}_recognition": recognition_of(rank1, cosine)}
    choice = {"landmarks": "turned", "gamma": 0.5, "penalty": 3.0, "views": 42, "centres": 42}
    return study_of(*trials, kernel_ridge_choice=choice, **attrs)


def study_of(*trials, name="faces", storage=None, **attrs):
    """A study with these trials."""
    study = optuna.create_study(direction="maximize", study_name=name, storage=storage)
    for key, value in attrs_of(**attrs).items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return study


def our_study(storage, name, **attrs):
    """An empty study, which `add_trial` fills."""
    return study_of(storage=storage, name=name, **attrs)


def trial_of(
    state,
    value=None,
    *,
    curve=None,
    preset=None,
    lr=1e-3,
    pose_unit="degrees",
    inputs="view",
    epochs=EPOCHS,
    minute=0,
    history=True,
    **attrs,
):
    """A trial that took a minute.

    Its cosine rises to `value` while its validation loss falls; or `curve` has the cosine of each epoch, and the epoch
    with the highest is kept.
    """
    if curve is None:
        rising = np.arange(1, epochs + 1) / epochs if value is not None else ()
        trained = [
            replace(epoch(step, value * part), lr=lr, train_loss=1.1 - 0.5 * part, val_loss=1 - 0.5 * part)
            for step, part in enumerate(map(float, rising), 1)
        ]
    else:
        trained = [replace(epoch(step, cosine), lr=lr) for step, cosine in enumerate(curve, 1)]
    state = TrialState[state]
    last = trained[-1].val_cosine if trained else None
    begin = START + timedelta(minutes=minute)
    waits = state == TrialState.WAITING
    params = {} if waits else {"lr": lr, "pose_unit": pose_unit}
    held = {}
    if not waits:
        searched = {"lr": lr, "pose_unit": pose_unit, "inputs": inputs}
        config = TrialConfig(d_model=16, dim_feedforward=64, epochs=EPOCHS, **searched)
        held = {"config": config.to_dict(), "preset": preset, "overrides": {}, "seed": 7}
        held |= {"device": "cpu (1 threads)", "engine": "batched"}
    if state.is_finished():
        held["stop_reason"] = "error" if state == TrialState.FAIL else "finished"
    if trained:
        kept = max(trained, key=lambda each: each.val_cosine)
        held |= {
            "val_cosine": kept.val_cosine,
            "val_loss": kept.val_loss,
            "val_loss_equal": kept.val_loss_equal,
            "train_loss": kept.train_loss,
            "gap": kept.train_loss - kept.val_loss,
            "best_epoch": kept.epoch,
            "epochs_run": len(trained),
            "lr_final": lr,
            "lr_decays": 0,
            "seconds": 60.0,
            "cosine_by_yaw": {band: kept.val_cosine + more for band, more in zip(BANDS, (0.2, 0.0, -0.2), strict=True)},
        }
    return FrozenTrial(
        number=0,  # the storage counts
        trial_id=-1,
        state=state,
        value={TrialState.COMPLETE: held.get("val_cosine"), TrialState.PRUNED: last}.get(state),
        datetime_start=None if waits else begin,
        datetime_complete=begin + timedelta(minutes=1) if state.is_finished() else None,
        params=params,
        distributions={name: SPACE[name] for name in params},
        user_attrs=held | attrs,
        system_attrs={ATTR: pack(trained)} if trained and history else {},
        intermediate_values={each.epoch: each.val_cosine for each in trained},
    )


def add_trial(study, state, curve, **more):
    """A trial right after the one before it."""
    study.add_trial(
        trial_of(state, curve=curve, **{"lr": 1e-4, "minute": len(study.get_trials(deepcopy=False))} | more)
    )


def add_many(study, storage, trials):
    """Finished trials in one go: the storage itself takes a hundredth of a second for each."""
    tables = {table.name: table for table in TABLES}
    rows = {name: [] for name in tables}
    with storage.engine.begin() as database:
        (first,) = database.execute(select(func.coalesce(func.max(tables["trials"].c.trial_id), 0) + 1)).one()
        for number, trial in enumerate(trials):
            of = {"trial_id": first + number}
            times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
            rows["trials"].append(of | {"number": number, "study_id": study._study_id, "state": trial.state} | times)
            for kind, attrs in (("user", trial.user_attrs), ("system", trial.system_attrs)):
                held = ({"key": key, "value_json": json.dumps(value)} for key, value in attrs.items())
                rows[f"trial_{kind}_attributes"] += [of | row for row in held]
            for name, row in trial.distributions.items():
                value = row.to_internal_repr(trial.params[name])
                held = {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(row)}
                rows["trial_params"].append(of | held)
            for step, value in trial.intermediate_values.items():
                held = {"step": step, "intermediate_value": value, "intermediate_value_type": "FINITE"}
                rows["trial_intermediate_values"].append(of | held)
            rows["trial_values"].append(of | {"objective": 0, "value": trial.value, "value_type": "FINITE"})
        for name, table in tables.items():
            if rows[name]:
                database.execute(insert(table), rows[name])


def searched(*, history=True):
    """Two presets, eleven others of which one is best, two pruned, one failed: 15 finished trials, 16 in all."""
    presets = [
        trial_of("COMPLETE", 0.55, minute=0, preset="baseline", history=history),
        trial_of("COMPLETE", 0.52, lr=5e-4, minute=1, preset="recommended", history=history),
    ]
    others = [
        trial_of("COMPLETE", 0.60 + 0.005 * place, lr=2e-3, pose_unit="radians", minute=2 + place, history=history)
        for place in range(10)
    ]
    best = trial_of("COMPLETE", 0.70, lr=3e-3, pose_unit="radians", minute=12, seed=11, history=history)
    pruned = [trial_of("PRUNED", 0.3, epochs=5, minute=13 + place, seconds=10.0, history=history) for place in range(2)]
    return [*presets, *others, best, *pruned, trial_of("FAIL", minute=15, stop_reason="error")]


def over_folds():
    """Trials of three folds each: the best of three, and one that lost the race after its first."""

    def folds_of(*values):
        held = {"best_epoch": 4, "epochs_run": 5, "stop_reason": "finished"}
        return [{"fold": fold, "value": value, **held} for fold, value in enumerate(values, 1)]

    trials = [
        trial_of("COMPLETE", 0.55, epochs=5, preset="baseline", folds=folds_of(0.5, 0.55, 0.6), epochs_run=15),
        trial_of("COMPLETE", 0.6, epochs=5, minute=1, lr=2e-3, folds=folds_of(0.5, 0.6, 0.7), epochs_run=15),
        trial_of("PRUNED", 0.1, epochs=5, minute=2, folds=folds_of(0.1), raced_out_after_fold=1, seconds=20.0),
    ]
    return study_of(*trials, settings=attrs_of()["settings"] | {"folds": 3})


def many_trials(count):
    """So many, drawn at random: two of five pruned early, the others of 60 epochs."""
    random = np.random.default_rng(0)
    return [
        trial_of(
            "PRUNED" if pruned else "COMPLETE",
            float(random.uniform(0.2, 0.4) if pruned else random.uniform(0.5, 0.7)),
            lr=float(10 ** random.uniform(-5, -1)),
            pose_unit=str(random.choice(["degrees", "radians"])),
            epochs=int(random.integers(10, 20) if pruned else 60),
            minute=place,
        )
        for place, pruned in enumerate(random.random(count) < 0.4)
    ]


def compared(name, kind, verdict, difference, *, people=6, bands=BANDS):
    """One comparison of a confirmation, its interval 0.01 to each side."""
    entry = {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "people": people}
    entry |= {"method": "t", "half_width": 0.01, "people_needed": 7}
    nobody = {"difference": None, "low": None, "high": None, "people": 0, "verdict": "uncertain"}
    nobody |= {"method": "t", "half_width": None, "people_needed": None}
    by_yaw = {band: entry | {"verdict": verdict} if band in bands else nobody for band in BANDS}
    return {"name": name, "kind": kind, **entry, "verdict": verdict, "by_yaw": by_yaw}


def without_method(confirmation):
    """The same as version 0.1.0 stored it: its intervals are percentile bootstraps, and say no method."""

    def stripped(entry):
        return {key: value for key, value in entry.items() if key not in ("method", "half_width", "people_needed")}

    against = [
        stripped(entry) | {"by_yaw": {band: stripped(each) for band, each in entry["by_yaw"].items()}}
        for entry in confirmation["against"]
    ]
    earlier = confirmation | {"against": against}
    del earlier["wanted_difference"]
    return earlier


def of_one_person(confirmation):
    """The same with a single test person: differences without intervals."""
    few = {"low": None, "high": None, "people": 1, "verdict": "uncertain", "half_width": None, "people_needed": None}
    against = [
        entry | few | {"by_yaw": {band: each | few for band, each in entry["by_yaw"].items()}}
        for entry in confirmation["against"]
    ]
    return confirmation | {"against": against, "people": 1, "better_than_every_preset": False}


def recognising_people(confirmation, *, preset=None, **verdicts):
    """The same with rank-1 and TAR of the winner, and these verdicts against methods without training.

    With a verdict against the preset baseline, rank-1 of every row too; without one as it was stored at first.
    """
    entries = [
        {**compared(name.replace("_", " "), "simple", verdict, 0.02), "rate": 0.6} for name, verdict in verdicts.items()
    ]
    if preset is not None:
        entries.insert(0, {**compared("baseline", "preset", preset, 0.02), "rate": 0.6})
        rows = [row | {"test_rank1_enrolled": 0.61} for row in confirmation["candidates"]]
        simple = {name: confirmation[name] | {"test_rank1_enrolled": 0.6} for name in verdicts}
        confirmation = confirmation | simple | {"candidates": rows, "winner": rows[0]}
    left_out = {"by_yaw"} if preset is not None else {"by_yaw", "kind"}
    against = [{key: value for key, value in entry.items() if key not in left_out} for entry in entries]
    rates = {"winner": 0.62, "against": against}
    return confirmation | {"recognition": {"enrolled": 12, "rank1_enrolled": rates, "tar_enrolled": rates}}


def confirmation_of(verdict="better", difference=0.05, *, ridge="better", kernel_ridge=None, looks=1, **changed):
    """What `confirm` stores: trial 12, then 11, two presets; test people give `verdict` against the best preset.

    Without a verdict against kernel ridge it is of a version that had none.
    """

    def row(name, trial, preset, value, again, test, **more):
        means = {"validation": again, "validation_sd": 0.003, "test": test, "test_sd": 0.002, "epochs": [20, 20]}
        by_yaw = dict(zip(BANDS, (0.8, 0.6, None), strict=True))
        held = {"name": name, "trial": trial, "preset": preset, "value": value, "aliases": [], "error": None}
        return held | means | {"test_by_yaw": by_yaw} | more

    simple = {"test_by_yaw": dict(zip(BANDS, (0.8, 0.6, None), strict=True))}
    rows = [
        row("trial 12", 12, False, 0.70, 0.68, 0.69),
        row("trial 11", 11, False, 0.645, 0.64, 0.70),
        row("baseline", 0, True, 0.55, 0.54, 0.64, aliases=["quickstart"]),
        row("recommended", 1, True, 0.52, 0.53, 0.63),
    ]
    passed = () if kernel_ridge is None else (compared("kernel ridge", "simple", kernel_ridge, -0.02),)
    line = {"kernel_ridge": {"validation": 0.67, "test": 0.70, **simple}} if passed else {}
    return {
        "version": 1,
        "time": "2026-01-02T00:00:00+00:00",
        "seeds": [1, 2],
        "people": 6,
        "pairs": {"all": 36, "0-15": 12, "15-45": 12, "45-90": 12},
        "candidates": rows,
        **line,
        "ridge": {"validation": 0.65, "test": 0.66, **simple},
        "no_model": {"validation": 0.5, "test": 0.51, **simple},
        "winner": rows[0],
        "against": [
            compared("baseline", "preset", verdict, difference, bands=BANDS[:2]),
            compared("recommended", "preset", "better", 0.06),
            *passed,
            compared("ridge", "simple", ridge, 0.03 if ridge == "better" else -0.03),
            compared("no model", "simple", "better", 0.18),
        ],
        "wanted_difference": 0.01,
        "headline": "baseline",
        "headline_is_best": True,
        "better_than_every_preset": verdict == "better",
        "looks": [{"time": "2026-01-02T00:00:00+00:00", "command": "face3d-tune confirm", "compared": []}] * looks,
    } | changed


def rotation_of(verdict="better", difference=0.05, **changed):
    """What `confirm --rotate` stores: as `confirmation_of`, but twelve people judge in five rotations."""
    found = confirmation_of(verdict, difference, **{"kernel_ridge": "better"} | changed)
    against = [
        {**entry, "method": "t-blocks", "people": 12}
        | {"by_yaw": {band: each | {"method": "t-blocks"} for band, each in entry["by_yaw"].items()}}
        for entry in found["against"]
    ]
    return found | {"people": 12, "rotations": 5, "seeds": [[1, 2, 3, 4, 5]], "against": against}
