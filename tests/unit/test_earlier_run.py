"""What follows from an earlier run's file beyond what it says."""

import copy
import datetime
import math
import random
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import QUICK_STUDY

from face3d_tune.config import resolve
from face3d_tune.data.face_data import load
from face3d_tune.errors import EarlierRunError
from face3d_tune.script import import_runs
from face3d_tune.script.earlier_run import EarlierRun, NotExpressible, learning_rates, read
from face3d_tune.script.import_runs import examine
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings
from face3d_tune.training.base import PairTensors
from face3d_tune.training.inputs import seen
from face3d_tune.training.losses import combine
from face3d_tune.training.model import Model
from face3d_tune.training.plain import Trainer

SETTINGS = Settings("keypoint", 9, None)
CPU = torch.device("cpu")
ARGS = {"lr": 1e-3, "scheduler_factor": 0.5, "scheduler_patience": 1, "scheduler_min_lr": 2e-4, "epochs": 9}
ARGS |= {"batch_size": 8, "nhead": 2, "num_layers": 1}


def run_of(losses, weights=None, **changes):
    held = {"val_loss": tuple(losses), "train_loss": tuple(losses), "cosine": tuple(losses)}
    held |= {"args": ARGS, "weights": weights or {}, "epoch": None, "lr": None}
    return EarlierRun(path=Path("best_model.pth"), sha256="0", **{**held, **changes})


def config_of(**changes):
    values = {name: value for name, value in {**ARGS, **changes}.items() if name != "epochs"}
    return resolve(values, feature_size=16, epochs=9, layout="keypoint")


def test_learning_rates_follow_from_the_validation_losses():
    # Patience 1: the second epoch in a row without a new best halves the rate, down to the floor.
    run = run_of([0.5, 0.6, 0.6, 0.4, 0.5, 0.5, 0.5, 0.5], epoch=3, lr=5e-4)
    rates = [1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 2e-4]
    assert learning_rates(run, config_of()) == pytest.approx(rates)


@pytest.mark.parametrize("lr", [None, 1e-3])
def test_they_are_unknown_if_the_file_does_not_say_the_same(lr):
    run = run_of([0.5, 0.6, 0.6, 0.4], epoch=3, lr=lr)  # at its end the rate is 5e-4
    assert learning_rates(run, config_of()) == ()


def test_those_of_a_cosine_after_a_warm_up_do_too():
    config = config_of(scheduler_type="cosine", warmup_epochs=1, scheduler_min_lr=0.0)  # of 9 epochs 8 anneal
    run = run_of([0.5] * 5, epoch=4, lr=1e-3 * (1 + math.cos(math.pi * 4 / 8)) / 2)  # the rate of epoch 6
    rates = [5e-4, *(1e-3 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(5))]
    assert learning_rates(run, config) == pytest.approx(rates)


def test_only_a_run_of_this_program_may_have_had_another_schedule():
    weights = Model(config_of(), 16, torch.Generator()).state_dict()
    args = {**ARGS, "scheduler_type": "cosine", "warmup_epochs": 2}
    with pytest.raises(NotExpressible, match=r"scheduler_type = cosine; of a script only .*; warmup_epochs = 2; how"):
        replace(run_of([0.5], weights), args=args).config("degrees")
    ours = replace(run_of([0.5], weights), args={**args, "pose_unit": "radians", "view_mixing": 0.5}).config("radians")
    assert (ours.scheduler_type, ours.warmup_epochs, ours.view_mixing) == ("cosine", 2, 0.5)


@pytest.mark.parametrize(("epoch", "holds"), [(None, True), (1, True), (2, True), (0, False), (3, False)])
def test_weights_are_of_the_best_epoch_counted_from_0_or_from_1(epoch, holds):
    assert run_of([0.5, 0.4, 0.6, 0.6], epoch=epoch).holds_best is holds
    assert run_of([0.5, 0.4], epoch=epoch).holds_best  # it was stored when this was the last epoch


def test_a_claim_between_two_kinds_of_people_is_no_proof_of_either(data_folder, quick, monkeypatch):
    data = load(data_folder)
    model = Trainer(config_of(), data, seed=1, device=CPU)
    train, validation = (model.evaluate(PairTensors(data, part, "degrees", CPU)) for part in ("train", "validation"))
    middle = {name: 0.3 * getattr(train, name) + 0.7 * getattr(validation, name) for name in ("mse", "cosine")}
    claimed = {"val_loss": (combine(config_of(), **middle),), "cosine": (middle["cosine"],)}
    run = replace(run_of([0.5], dict(model.model.state_dict())), args={**ARGS, "scheduler_min_lr": 0.0}, **claimed)
    assert "with another split" in examine(run, quick, SETTINGS, data, unconfirmed=False).reason
    monkeypatch.setattr(import_runs, "_SAME", 1.0)
    examined = examine(run, quick, SETTINGS, data, unconfirmed=False)
    assert "too close to tell" in examined.reason
    assert examined.trial is None


@pytest.mark.parametrize("inputs", ["ridge", "kernel"])
def test_a_run_on_a_baselines_outputs_is_tested_on_these(data_folder, quick, inputs):
    data, config = load(data_folder), config_of(inputs=inputs)
    model = Trainer(config, data, seed=1, device=CPU)
    reached = model.evaluate(PairTensors(seen(data, inputs), "validation", "degrees", CPU))
    claimed = {"val_loss": (combine(config, reached.mse, reached.cosine),), "cosine": (reached.cosine,)}
    args = {**ARGS, "scheduler_min_lr": 0.0, "pose_unit": "degrees"}
    run = replace(run_of([0.5], dict(model.model.state_dict())), args={**args, "inputs": inputs}, **claimed)
    assert examine(run, quick, SETTINGS, data, unconfirmed=False).confirmed
    of_raw_views = replace(run, args=args)  # so that it would be noticed
    assert not examine(of_raw_views, quick, SETTINGS, data, unconfirmed=False).confirmed


def test_a_claim_of_everyone_is_refused_although_the_test_people_are_not_evaluated(data_folder, quick):
    data = load(data_folder)
    model = Trainer(config_of(), data, seed=1, device=CPU)
    parts = {part: PairTensors(data, part, "degrees", CPU) for part in ("train", "validation", "test")}
    results = [(len(pairs), model.evaluate(pairs)) for pairs in parts.values()]
    mean = {
        name: sum(count * getattr(result, name) for count, result in results) / sum(count for count, _ in results)
        for name in ("mse", "cosine")
    }
    claimed = {"val_loss": (combine(config_of(), **mean),), "cosine": (mean["cosine"],)}
    run = replace(run_of([0.5], dict(model.model.state_dict())), args={**ARGS, "scheduler_min_lr": 0.0}, **claimed)
    examined = examine(run, quick, SETTINGS, data, unconfirmed=False)
    assert "on the pairs of those who train or validate here: it was validated on the pairs that it" in examined.reason


def test_a_run_on_embeddings_of_another_size_is_refused(data_folder, quick):
    weights = Model(resolve({"nhead": 2}, feature_size=24, epochs=9, layout="keypoint"), 24, torch.Generator())
    examined = examine(run_of([0.5], weights.state_dict()), quick, SETTINGS, load(data_folder), unconfirmed=True)
    assert (examined.trial, examined.measured) == (None, {})
    assert examined.reason == "its embeddings have 24 numbers, the study's 16"


def test_a_study_that_searches_the_width_gets_the_runs_as_a_share_of_the_embedding(path, data_folder, tmp_path):
    text = QUICK_STUDY.replace("[space]", "[space]\nwidth = [0.5, 1.0]")
    (tmp_path / "width.toml").write_text(text, encoding="utf-8")
    file = study_file.read(str(tmp_path / "width.toml")).bind("keypoint", 16, 9)
    examined = examine(reading(path), file, SETTINGS, load(data_folder), unconfirmed=True)
    assert (examined.trial.params["width"], examined.trial.user_attrs["config"]["d_model"]) == (1.0, 16)


@pytest.mark.parametrize(("of_test", "is_everyones"), [(0.60, True), (0.77, True), (0.84, False), (0.52, False)])
def test_a_claim_is_everyones_if_the_test_people_need_not_be_odd_ones_for_it(data_folder, of_test, is_everyones):
    data = load(data_folder)
    train, validation, test = (len(data.parts[part]) for part in ("train", "validation", "test"))

    def given(*cosines):
        return import_runs._Scores(torch.zeros(1), torch.cat(cosines), np.zeros((1, 3)), None)  # no recognition

    on_train, on_validation = torch.full((train,), 0.8), torch.full((validation,), 0.6)
    scores = {
        "train": given(on_train),
        "validation": given(on_validation),
        "both": given(on_train, on_validation),
    }
    claim = (0.8 * train + 0.6 * validation + of_test * test) / (train + validation + test)
    assert import_runs._is_of_everyone(claim, scores, data) is is_everyones


# What a file may hold

HISTORY = [0.5, 0.4]


def contents():
    """A whole checkpoint of two epochs."""
    config = config_of(scheduler_min_lr=0.0)
    return {
        "epoch": 1,
        "model_state_dict": dict(Model(config, 16, torch.Generator().manual_seed(0)).state_dict()),
        "optimizer_state_dict": {"param_groups": [{"lr": 1e-3}]},
        "best_val_loss": 0.4,
        "args": {
            **ARGS,
            "scheduler_min_lr": 0.0,
            "d_model": 16,
            "dropout": 0.2,
            "resume": None,
            "use_pose_attention": False,
        },
        **{f"{name}_history": list(HISTORY) for name in ("train_loss", "val_loss", "val_cosine_sim")},
    }


def reading(path, **changes):
    torch.save({**contents(), **changes}, path)
    return read(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "best_model.pth"


@pytest.mark.parametrize("kind", [Namespace, SimpleNamespace])
def test_flags_may_be_in_a_namespace_and_beside_objects_that_no_trial_needs(path, kind):
    others = {"save_dir": Path("runs"), "started": datetime.date(2026, 11, 29), "extra": SimpleNamespace(a=1)}
    flags = {**contents()["args"], "batch_size": np.int64(8), "lr": np.float64(1e-3), "dropout": torch.tensor(0.25)}
    run = reading(path, args=kind(**flags, **others))
    config = run.config("degrees")
    assert (config.batch_size, config.lr, config.dropout) == (8, 1e-3, 0.25)
    assert run.args["extra"] == "types.SimpleNamespace()"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_a_wrapped_model_are_those_of_the_model(path, prefix, data_folder, quick):
    wrapped = {prefix + name: weight for name, weight in contents()["model_state_dict"].items()}
    run = reading(path, model_state_dict=wrapped)
    assert run.weights.keys() == contents()["model_state_dict"].keys()
    assert examine(run, quick, SETTINGS, load(data_folder), unconfirmed=True).trial is not None


SAYS = {
    "None in a history": (
        {"val_loss_history": [0.5, None]},
        "val_loss_history holds None for epoch 2; expected a finite number",
    ),
    "text in a history": (
        {"val_cosine_sim_history": ["n/a", 0.4]},
        "val_cosine_sim_history holds 'n/a' for epoch 1; expected a finite number",
    ),
    "no history": ({"train_loss_history": None}, "train_loss_history is None; expected a list with a number"),
    "a dict for a history": ({"train_loss_history": {"a": 1}}, "train_loss_history is {'a': 1}; expected a list"),
    "an array of numpy": ({"train_loss_history": np.zeros(2)}, "train_loss_history is a numpy.ndarray; expected a"),
    "a NaN": ({"val_loss_history": [0.5, math.nan]}, "val_loss_history holds nan for epoch 2; expected a finite"),
    "too few epochs": (
        {"val_loss_history": [0.5]},
        "its histories do not have one number for each epoch: train_loss_history 2, val_loss_history 1, "
        "val_cosine_sim_history 2",
    ),
    "no flags": ({"args": None}, "args is None; expected the script's flags, a dict or a namespace"),
    "flags of another kind": ({"args": Path("args.json")}, "Path; expected the script's flags, a dict or a namespace"),
    "no weights": ({"model_state_dict": None}, "model_state_dict is None; expected names and tensors"),
    "text among the weights": (
        {"model_state_dict": {"a": torch.zeros(1), "b": "n/a"}},
        "model_state_dict holds 'n/a' for b; expected names and tensors",
    ),
    "another model": (
        {"model_state_dict": torch.nn.Linear(2, 2).state_dict()},
        "holds another model: its weights have other names, such as weight, bias",
    ),
    "weights that are not finite": (
        {"model_state_dict": {**contents()["model_state_dict"], "output_projection.bias": torch.full((16,), math.nan)}},
        "its weights hold values that are not finite",
    ),
}


@pytest.mark.parametrize("what", SAYS)
def test_what_is_in_a_file_that_is_refused_is_said(path, what):
    changes, message = SAYS[what]
    with pytest.raises(EarlierRunError) as caught:
        reading(path, **changes)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_of_another_file_of_torch_its_names_are_said(path):
    torch.save({"state_dict": {}, "optimizer": {}, "step": 3}, path)
    with pytest.raises(EarlierRunError, match=r"it lacks args, .*; it holds state_dict, optimizer, step$"):
        read(path)
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(EarlierRunError, match=r"it holds weights without a training: weight, bias$"):
        read(path)


def test_a_flag_that_is_no_number_is_named(path):
    run = reading(path, args={**contents()["args"], "dropout": "low"})
    with pytest.raises(NotExpressible, match="dropout = 'low' in its args; expected a number"):
        run.config("degrees")


def test_a_copy_that_builds_the_pose_layout_ignores_the_flag_of_a_part_that_it_lacks(path):
    config = config_of(scheduler_min_lr=0.0)
    pose = Model(replace(config, layout="pose"), 16, torch.Generator()).state_dict()
    run = reading(path, model_state_dict=pose, args={**contents()["args"], "use_spatial_attention": True})
    assert (run.config("degrees").layout, run.config("degrees").use_spatial_attention) == ("pose", False)


def test_a_run_whose_weights_are_of_another_model_is_refused_by_what_differs(path, data_folder, quick):
    run = reading(path, args={**contents()["args"], "num_layers": 3, "use_pose_attention": True})
    examined = examine(run, quick, SETTINGS, load(data_folder), unconfirmed=True)
    assert examined.trial is None
    assert examined.reason == (
        "it is another model than its args say: num_layers = 1, not 3; use_pose_attention = false, not true"
    )


ODD = (
    *(None, "n/a", "", "0.5", -1, 0, math.nan, math.inf, [], {}, [None], (1, 2), b"x", True, 10**400, 1j, "x" * 100),
    *(torch.zeros(3), torch.tensor(0.5), torch.zeros(2, 2), torch.zeros(0), np.float64(0.5), np.int64(3), np.zeros(2)),
    *(Path("/a/b"), datetime.date(2026, 1, 2), SimpleNamespace(a=1), Namespace(), object, print, range(3)),
)


def places(held, before=()):
    """The way to everything in dicts and lists."""
    for key in held if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ():
        yield (*before, key)
        yield from places(held[key], (*before, key))


def test_whatever_stands_anywhere_in_a_file_is_taken_or_refused_in_one_line(path, data_folder, quick):
    whole, draw, data = contents(), random.Random(0), load(data_folder)
    outside = [place for place in places(whole) if place[0] != "model_state_dict" or len(place) == 1]
    weights = [place for place in places(whole) if place not in outside]
    cases = [(place, value) for place in outside for value in draw.sample(ODD, 4)]
    cases += [(place, draw.choice(ODD)) for place in weights]
    tried = 0
    for number, (place, value) in enumerate(cases):
        held = inner = dict(whole)
        for key in place[:-1]:
            inner[key] = copy.copy(inner[key])
            inner = inner[key]
        inner[place[-1]] = value
        torch.save(held, path)
        try:
            run = read(path)
            run.config("degrees")
        except (EarlierRunError, NotExpressible) as error:
            said = str(error)
        else:
            said = ""
        assert "\n" not in said
        if not said and number % 6 == 0:  # which costs more than all the rest
            assert "\n" not in examine(run, quick, SETTINGS, data, unconfirmed=True).reason
            tried += 1
    assert tried > 5
