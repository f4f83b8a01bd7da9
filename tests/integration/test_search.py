"""Whole searches on small data: what is tried, stored, refused, and what an interruption leaves behind."""

import math
import shutil
import sqlite3
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from command_line import start
from conftest import QUICK_STUDY
from fake_data import write_data
from optuna.trial import TrialState
from searches import CPU, DISTINCT, SAMPLED_ONLY, Scripted, Watch, file_of, search_in, states
from sqlalchemy import text
from trained import trained

import face3d_tune
from face3d_tune.cli.main import main
from face3d_tune.config import TrialConfig, resolve
from face3d_tune.data import face_data
from face3d_tune.device import device_name
from face3d_tune.errors import StudyError, StudyFileError, TrainingError
from face3d_tune.search import search as search_module
from face3d_tune.search import trainer_search
from face3d_tune.search.trial_run import Outcome
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.history import History
from face3d_tune.study.presets import PRESETS
from face3d_tune.study.trials import REQUEUED, preset_rows, repeatable_config
from face3d_tune.training import kernel_ridge, losses, ridge
from face3d_tune.training.plain import Trainer
from face3d_tune.training.recognition import Gallery

WHOLE = 6  # trials of a search that is only read: four presets, one random trial, one of the sampler
TRIALS = 4  # of the searches that are interrupted: two presets, one random trial, one of the sampler
SHORT = QUICK_STUDY.replace(', "aggressive", "conservative", "quickstart"', "").replace("trials = 5", "trials = 3")

# For many trials of which only how they end is asked.
RANDOM = """
[sampler]
name = "random"
[fixed]
batch_size = 20
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 3e-3, scale = "log" }
"""

# Two presets that nobody can confuse: one learns, one stands still.
PRUNED = """
[pruner]
name = "median"
n_startup_trials = 1
n_warmup_steps = 0
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-9, high = 1e-2, scale = "log" }
[presets.learns]
lr = 3e-3
[presets.stands_still]
lr = 1e-9
"""


@pytest.fixture(scope="module")
def module_quick(tmp_path_factory):
    return file_of(tmp_path_factory.mktemp("quick"), QUICK_STUDY)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A study of two presets: the storage takes longer over each that is queued than over an epoch."""
    return file_of(tmp_path_factory.mktemp("short"), SHORT)


@pytest.fixture(scope="module")
def sqlite_run(tmp_path_factory, module_quick, data, sqlite_without_studies):
    file = shutil.copy(sqlite_without_studies, tmp_path_factory.mktemp("finished"))
    with Storage.parse(f"sqlite:///{Path(file).as_posix()}").opened() as opened:
        yield watched_run(opened, module_quick, data)


@pytest.fixture(scope="module")
def postgres_run(postgres_server, module_quick, data, postgres_without_studies):
    with Storage.parse(postgres_server.new_database(like=postgres_without_studies)).opened() as opened:
        yield watched_run(opened, module_quick, data)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def finished_run(request):
    """A whole search that nothing interrupts and what its watcher saw, on each kind of storage. Only to read."""
    return request.getfixturevalue(f"{request.param}_run")


@pytest.fixture(scope="module")
def finished(finished_run):
    return finished_run[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, short, data, sqlite_without_studies):
    """What a search finds that nothing interrupts."""
    file = shutil.copy(sqlite_without_studies, tmp_path_factory.mktemp("undisturbed"))
    with Storage.parse(f"sqlite:///{Path(file).as_posix()}").opened() as opened:
        study = searched(opened, short, data, TRIALS).study
        assert states(study) == ["COMPLETE"] * TRIALS
        return found(study)


def watched_run(storage, file, data):
    watch = Watch()
    return searched(storage, file, data, WHOLE, watch).study, watch


def searched(storage, file, data, trials, watch=None, **settings):
    """A search that has run."""
    search = search_in(storage, file, data, **settings)
    search.enqueue_presets()
    search.run(trials, watch or Watch())
    return search


def found(study):
    """Parameters, seed and value of every finished trial, in an order of their own."""
    finished = [trial for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return sorted((str(sorted(t.params.items())), t.user_attrs["seed"], t.value) for t in finished)


def everything(study):
    return study.user_attrs, study.metric_names, [(t.state, t.params, t.user_attrs, t.value) for t in study.trials]


@contextmanager
def unchanged(study):
    """Whatever is refused in the block has changed nothing."""
    before = everything(study)
    yield
    assert everything(optuna.load_study(study_name=study.study_name, storage=study._storage)) == before


# What is tried


def test_presets_come_first_in_order_and_marked_and_then_the_sampler(finished_run):
    study, watch = finished_run
    assert [trial.user_attrs["preset"] for trial in study.trials] == [*DISTINCT, None, None]
    assert [(number, preset) for number, preset, _ in watch.started] == [
        *enumerate(DISTINCT),
        *((number, None) for number in (4, 5)),
    ]
    assert states(study) == ["COMPLETE"] * WHOLE
    assert [trial.number for trial in watch.ended] == list(range(WHOLE))


def test_a_preset_that_equals_another_is_not_trained_twice_but_has_its_row(finished):
    assert finished.user_attrs["preset_aliases"] == {"quickstart": "recommended"}
    rows = {row.name: (row.trial.number, row.same_as) for row in preset_rows(finished)}
    assert rows == {
        "baseline": (0, None),
        "recommended": (1, None),
        "aggressive": (2, None),
        "conservative": (3, None),
        "quickstart": (1, "recommended"),
    }


def test_a_preset_trains_with_its_own_values_not_with_those_the_study_fixes(finished, quick):
    for trial in finished.trials[:4]:
        wanted = resolve(PRESETS[trial.user_attrs["preset"]], feature_size=16, epochs=2, layout="keypoint")
        assert TrialConfig(**trial.user_attrs["config"]) == wanted
    assert finished.trials[0].user_attrs["config"]["scheduler_min_lr"] == 0.0
    assert "scheduler_min_lr" not in finished.trials[0].params
    assert quick.fixed["batch_size"] == 8  # which a preset's own 32 beats
    assert finished.trials[0].user_attrs["config"]["batch_size"] == 32


def test_a_sampled_trial_trains_with_its_parameters_and_what_the_study_fixes(finished, quick):
    for trial in finished.trials[4:]:
        config = trial.user_attrs["config"]
        assert trial.params.keys() == quick.space.keys()
        assert {name: config[name] for name in trial.params} == trial.params
        assert {name: config[name] for name in quick.fixed} == quick.fixed
        assert config["mse_weight"] == 1 - trial.params["cosine_weight"]
        assert (config["d_model"], config["dim_feedforward"], config["epochs"]) == (16, 64, 2)


def test_parameters_and_overrides_rebuild_every_config(finished, quick):
    for trial in finished.trials:
        bound = quick.bind("keypoint", 16, 2)
        rebuilt = bound.config(trial.params, trial.user_attrs.get("overrides", {}))
        assert rebuilt.to_dict() == trial.user_attrs["config"]


def test_without_mixed_precision_as_a_setting_of_the_run_no_preset_has_it(sqlite, short, data):
    study = searched(sqlite, short, data, 2, use_amp=False, epochs=1).study
    assert [trial.user_attrs["config"]["use_mixed_precision"] for trial in study.trials[:2]] == [False, False]


def test_the_pose_layout_searches_without_the_landmark_gate(sqlite, tmp_path, data):
    text = SHORT.replace("use_pose_attention = [", "use_spatial_attention = [false, true]\nuse_pose_attention = [")
    study = searched(sqlite, file_of(tmp_path, text), data, 3, layout="pose", epochs=1).study
    assert all("use_spatial_attention" not in trial.params for trial in study.trials)
    assert [trial.user_attrs["config"]["layout"] for trial in study.trials] == ["pose"] * 3


def test_one_seed_is_one_search_and_another_seed_another(sqlite, tmp_path, data):
    file = file_of(tmp_path, SAMPLED_ONLY)
    results = []
    for name, seed, trials in (("a", 1, 3), ("b", 1, 3), ("c", 2, 1)):
        search = searched(sqlite, file, data, trials, name=name, seed=seed, epochs=1)
        assert search.seed == seed
        results.append([(trial.params, trial.value) for trial in search.study.trials])
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert len({str(params) for params, _ in results[0]}) == 3  # no suggestion is repeated


def test_without_a_seed_a_new_study_has_42_and_an_old_one_keeps_its_own(sqlite, quick, data):
    assert search_in(sqlite, quick, data, name="new").seed == 42
    search_in(sqlite, quick, data, name="old", seed=7)
    assert search_in(sqlite, quick, data, name="old").seed == 7


# What is stored


def test_a_study_knows_its_metric_data_versions_and_what_no_model_reaches(finished, quick, data):
    attrs = finished.user_attrs
    assert finished.metric_names == ["val_cosine"]
    assert finished.direction == optuna.study.StudyDirection.MAXIMIZE
    assert attrs["data_fingerprint"] == data.fingerprint()
    assert attrs["versions"] == {
        "face3d_tune": face3d_tune.__version__,
        "optuna": optuna.__version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    front, video = data.parts["validation"].T
    a, b = data.front_features[front].astype(float), data.video_features[video].astype(float)
    cosines = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert attrs["no_model_cosine"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert attrs["data"]["people"] == {"train": 7, "validation": 3, "test": 2}
    assert attrs["data"]["pairs"] == {"train": 42, "validation": 18, "test": 12}
    assert {name: attrs["settings"][name] for name in ("layout", "epochs", "seed", "fixed")} == {
        "layout": "keypoint",
        "epochs": 2,
        "seed": 42,
        "fixed": quick.fixed,
    }
    assert attrs["effort"] == {"trials": WHOLE, "target": None, "sampler": "tpe", "pruner": "none"}


def test_every_trial_keeps_what_is_promised_about_it(finished):
    for trial in finished.trials:
        attrs = trial.user_attrs
        assert attrs["best_epoch"] in (1, 2)
        assert (attrs["epochs_run"], attrs["stop_reason"]) == (2, "finished")
        assert attrs["val_cosine"] == trial.value
        assert attrs["gap"] == attrs["val_loss"] - attrs["train_loss"]
        assert attrs["val_loss"] > 0
        assert attrs["val_loss_equal"] > 0
        assert attrs["lr_decays"] == 0
        assert attrs["lr_final"] == attrs["config"]["lr"]
        assert set(attrs["cosine_by_yaw"]) == {"0-15", "15-45", "45-90"}
        bands = attrs["cosine_by_yaw"]  # the yaws of the data are 15, 45 and 75, a third of the pairs each
        assert bands["0-15"] is None
        found, history = attrs["recognition"], History.of(trial)
        assert (found["judged"], found["enrolled"], found["views"]) == (3, 12, 18)
        for curve in ("identity", "rank1_enrolled"):
            assert len(getattr(history, curve)) == 2
            kept = getattr(history, curve)[attrs["best_epoch"] - 1]
            assert found["all"][curve] == pytest.approx(kept, rel=1e-5)
        assert found["by_yaw"]["0-15"]["rank1_judged"] is None
        assert found["all"]["cosine"] == pytest.approx(trial.value, abs=1e-6)
        assert (bands["15-45"] + 2 * bands["45-90"]) / 3 == pytest.approx(trial.value, abs=1e-6)
        assert isinstance(attrs["seed"], int)
        assert attrs["seconds"] > 0
        assert attrs["device"] == device_name(torch.device("cpu"))
    assert len({trial.user_attrs["seed"] for trial in finished.trials}) == WHOLE


def test_the_reported_curve_is_every_epochs_cosine_and_the_value_that_of_the_kept_checkpoint(finished_run):
    study, watch = finished_run
    for trial in study.trials:
        history = watch.epochs[trial.number]
        assert trial.intermediate_values == {result.epoch: result.val_cosine for result in history}
        kept = min(history, key=lambda result: result.val_loss)
        assert (trial.user_attrs["best_epoch"], trial.value) == (kept.epoch, kept.val_cosine)
        held = History.of(trial)
        assert held.lr == pytest.approx([result.lr for result in history], rel=1e-5)
        assert held.train_loss == pytest.approx([result.train_loss for result in history], rel=1e-5)
        assert trial.user_attrs["val_loss"] == kept.val_loss


def test_the_value_of_a_trial_that_got_worse_again_is_what_it_had_when_it_was_best(sqlite, tmp_path, data):
    text = SAMPLED_ONLY.replace("high = 3e-3", "high = 1.0") + "".join(
        f"[presets.wild{number}]\nlr = {lr}\n" for number, lr in enumerate((0.03, 0.1, 0.3))
    )
    watch = Watch()
    study = searched(sqlite, file_of(tmp_path, text), data, 3, watch, epochs=5).study
    for trial in study.trials:
        kept = min(watch.epochs[trial.number], key=lambda result: result.val_loss)
        assert (trial.user_attrs["best_epoch"], trial.value) == (kept.epoch, kept.val_cosine)
    assert any(trial.value != trial.intermediate_values[5] for trial in study.trials)


def test_training_a_stored_config_with_its_seed_gives_the_same_value_bit_for_bit(finished, data):
    for trial in finished.trials:
        config, seed = TrialConfig(**trial.user_attrs["config"]), trial.user_attrs["seed"]
        trainer = trained(data, config, seed)  # once for both storages
        assert trainer.best.val_cosine == trial.value
        assert {result.epoch: result.val_cosine for result in trainer.history} == trial.intermediate_values
    other = Trainer(config, data, seed=seed + 1, device=CPU)
    assert other.train_epoch().val_cosine != trial.intermediate_values[1]  # the seed matters


# How much is tried


def test_trials_is_how_many_finished_trials_the_study_holds_in_the_end(sqlite, short, data, undisturbed):
    assert searched(sqlite, short, data, 3).finished() == 3
    continued = searched(sqlite, short, data, TRIALS)
    assert (continued.finished(), len(continued.study.trials)) == (TRIALS, TRIALS)
    assert found(continued.study) == undisturbed  # in two pieces or in one
    for fewer in (TRIALS, 2):
        assert len(searched(sqlite, short, data, fewer).study.trials) == TRIALS


def test_a_search_ends_when_a_trial_reaches_the_target(sqlite, short, data):
    search = searched(sqlite, short, data, 6, target=-1.0)
    assert search.target_reached()
    (trial, *waiting) = search.study.trials
    assert (trial.state, trial.user_attrs["stop_reason"], trial.user_attrs["epochs_run"]) == (
        TrialState.COMPLETE,
        "target",
        1,
    )
    assert {other.state for other in waiting} == {TrialState.WAITING}
    search.run(6, Watch())
    assert search.finished() == 1


def test_a_target_that_must_hold_is_asked_of_stored_trials_too(sqlite, short, data):
    study = searched(sqlite, short, data, 1, epochs=3).study
    lowest = min(study.trials[0].intermediate_values.values())

    def continued(target, epochs):
        return search_in(sqlite, short, data, epochs=3, target=target, target_epochs=epochs)

    assert continued(lowest - 1e-4, 3).target_reached()
    assert not continued(lowest + 1e-4, 3).target_reached()  # one of its three epochs is below
    assert not continued(lowest - 1e-4, 4).target_reached()  # it has only three
    again = continued(lowest - 1e-4, 3)
    again.run(6, Watch())
    assert again.finished() == 1
    assert again.study.user_attrs["effort"]["target_epochs"] == 3


def test_a_trial_that_reached_a_target_that_must_hold_is_repeated_with_the_epochs_it_ran(sqlite, short, data):
    search = searched(sqlite, short, data, 6, epochs=9, target=-1.0, target_epochs=3)
    trial = search.study.trials[0]
    assert (trial.user_attrs["stop_reason"], trial.user_attrs["epochs_run"]) == ("target", 3)
    assert repeatable_config(trial).epochs == 3
    trainer = Trainer(repeatable_config(trial), data, seed=trial.user_attrs["seed"], device=CPU)
    while trainer.stop_reason is None:
        trainer.train_epoch()
    assert trainer.best.val_cosine == trial.value
    assert search.finished() == 1


def test_a_target_that_nothing_reaches_changes_nothing(sqlite, short, data, undisturbed):
    search = searched(sqlite, short, data, 2, target=1.0)
    assert not search.target_reached()
    assert search.finished() == 2
    assert set(found(search.study)) <= set(undisturbed)


def test_after_the_deadline_no_trial_starts(sqlite, short, data):
    search = search_in(sqlite, short, data)
    search.enqueue_presets()
    search.run(6, Watch(), deadline=time.monotonic() - 1)
    assert states(search.study) == ["WAITING"] * 2


def test_a_trial_that_runs_at_the_deadline_is_finished(sqlite, short, data):
    watch = Watch()
    search = search_in(sqlite, short, data)
    search.enqueue_presets()
    watch.trial_started = lambda *_: time.sleep(0.5)
    search.run(6, watch, deadline=time.monotonic() + 0.4)
    assert states(search.study) == ["COMPLETE", "WAITING"]


def test_a_pruned_trial_counts_as_finished_and_says_so(storage, tmp_path, data):
    search = searched(storage, file_of(tmp_path, PRUNED), data, 2, epochs=5)
    learns, stands_still = search.study.trials
    assert (learns.state, learns.user_attrs["stop_reason"]) == (TrialState.COMPLETE, "finished")
    assert (stands_still.state, stands_still.user_attrs["stop_reason"]) == (TrialState.PRUNED, "pruned")
    epochs = stands_still.user_attrs["epochs_run"]
    assert epochs < 5
    assert list(stands_still.intermediate_values) == list(range(1, epochs + 1))
    best = stands_still.user_attrs["best_epoch"]
    assert stands_still.user_attrs["val_cosine"] == stands_still.intermediate_values[best]
    assert search.finished() == 2
    assert search.study.best_trial.number == 0


# Trials that fail


@contextmanager
def broken_losses(monkeypatch):
    """Every loss is NaN until the block ends."""
    combine = losses.combine
    with monkeypatch.context() as patch:
        patch.setattr(losses, "combine", lambda config, mse, cosine: combine(config, mse, cosine) * math.nan)
        yield


def test_a_trial_without_a_finite_loss_fails_with_that_reason_and_does_not_count(sqlite, short, data, monkeypatch):
    search = search_in(sqlite, short, data)
    search.enqueue_presets()
    watch = Watch()
    began, combine = [], losses.combine

    def broken_for_the_first(config, mse, cosine):
        began.append(config)
        return combine(config, mse, cosine) * (math.nan if config == began[0] else 1)

    with monkeypatch.context() as patch:
        patch.setattr(losses, "combine", broken_for_the_first)
        search.run(1, watch)
    failed, finished = search.study.trials
    assert (failed.state, failed.user_attrs["stop_reason"]) == (TrialState.FAIL, "non_finite")
    assert "is nan" in failed.user_attrs["error"]
    assert failed.user_attrs["preset"] == "baseline"
    assert finished.state == TrialState.COMPLETE
    assert [trial.number for trial in watch.ended] == [0, 1]


def test_five_failures_in_a_row_end_the_search_and_keep_what_there_is(sqlite, tmp_path, data, monkeypatch):
    search = searched(sqlite, file_of(tmp_path, RANDOM), data, 1)

    def no_space(*_):
        raise RuntimeError("no space left on device")

    monkeypatch.setattr(losses, "combine", no_space)
    with pytest.raises(TrainingError) as caught:
        search.run(6, Watch())
    assert caught.value.message == "5 trials in a row failed; the last: RuntimeError: no space left on device"
    assert "finished trials are kept" in caught.value.hint
    assert states(search.study) == ["COMPLETE"] + ["FAIL"] * 5
    assert {trial.user_attrs["cause"] for trial in search.study.trials[1:]} == {"error"}


def test_a_space_in_which_everything_diverges_ends_the_search_after_twenty_trials_and_says_so(
    sqlite, tmp_path, data, monkeypatch
):
    search = searched(sqlite, file_of(tmp_path, RANDOM), data, 1)
    with broken_losses(monkeypatch), pytest.raises(TrainingError) as caught:
        search.run(6, Watch())
    assert caught.value.message.startswith("20 trials in a row failed (20 diverged); the last: training loss is nan")
    assert caught.value.hint.startswith("narrow [space] in a copy of the study file")
    assert states(search.study) == ["COMPLETE"] + ["FAIL"] * 20
    assert {trial.user_attrs["cause"] for trial in search.study.trials[1:]} == {"diverged"}


def test_data_with_which_no_preset_gets_through_its_first_epoch_are_named_as_the_cause(
    sqlite, tmp_path, data, monkeypatch
):
    presets = 'presets = ["baseline", "recommended"]\n'
    search = search_in(sqlite, file_of(tmp_path, f"[study]\n{presets}{RANDOM}"), data)
    search.enqueue_presets()
    with broken_losses(monkeypatch), pytest.raises(TrainingError) as caught:
        search.run(6, Watch())
    assert caught.value.message.startswith("20 trials in a row failed (20 diverged); the last: training loss is nan")
    assert caught.value.hint.startswith(
        "not even a preset got through its first epoch, so the cause is the data, not lr"
    )
    assert caught.value.hint.endswith("`face3d-tune data check` names rows of huge numbers")


def scripted_outcomes(monkeypatch, outcomes):
    """Slots that train nothing, and these outcomes of whatever they give."""
    outcomes = iter(outcomes)
    monkeypatch.setattr(trainer_search.TrialRun, "take", lambda *_: next(outcomes))
    return Scripted(1, lambda task, number: (0.5, "finished"))


def test_trials_that_diverge_between_errors_neither_count_as_one_nor_hide_them(sqlite, tmp_path, data, monkeypatch):
    search = search_in(sqlite, file_of(tmp_path, RANDOM), data)
    error = Outcome("error", None, {"stop_reason": "error", "cause": "error", "error": "the disk is full"})
    diverged = Outcome("non_finite", None, {"stop_reason": "non_finite", "cause": "diverged"})
    slots = scripted_outcomes(monkeypatch, [error, *[diverged] * 6] * 5)
    with pytest.raises(TrainingError, match=r"^24 trials in a row failed \(20 diverged, 4 by an error\)"):
        search.run(2, Watch(), slots=slots)
    slots = scripted_outcomes(monkeypatch, [error, *[diverged] * 2] * 5)
    with pytest.raises(TrainingError, match=r"^5 trials in a row failed; the last: the disk is full$"):
        search.run(2, Watch(), slots=slots)
    assert [trial.user_attrs["cause"] for trial in search.study.trials[-13:]].count("error") == 5


def test_failures_with_a_success_between_them_do_not_end_the_search(sqlite, tmp_path, data, monkeypatch):
    search = search_in(sqlite, file_of(tmp_path, RANDOM), data)
    failed = Outcome("error", None, {"stop_reason": "error"})
    finished = Outcome("finished", 0.5, {"stop_reason": "finished"})
    slots = scripted_outcomes(monkeypatch, [failed] * 4 + [finished] + [failed] * 4 + [finished])
    search.run(2, Watch(), slots=slots)
    assert states(search.study) == ["FAIL"] * 4 + ["COMPLETE"] + ["FAIL"] * 4 + ["COMPLETE"]


def test_a_combination_that_no_model_can_have_fails_alone_and_is_not_tried_again(sqlite, tmp_path, data):
    text = """
    fixed = { batch_size = 8, num_layers = 1 }
    space = { nhead = [2, 4, 1], d_model = [16, 18, 8] }
    """
    search = search_in(sqlite, file_of(tmp_path, text), data, epochs=1)
    search.study.enqueue_trial({"nhead": 4, "d_model": 18})
    search.study.enqueue_trial({"nhead": 2, "d_model": 18})
    search.run(1, Watch())
    failed, finished = search.study.trials
    assert (failed.state, failed.user_attrs["stop_reason"]) == (TrialState.FAIL, "error")
    assert failed.user_attrs["error"] == "nhead = 4 does not divide d_model = 18"
    assert finished.state == TrialState.COMPLETE


# Studies that may not go on


def continued_otherwise(tmp_path, data):
    """What one may change by accident, and the words that say so."""
    other_data = face_data.load(write_data(tmp_path / "other", seed=1))
    text = QUICK_STUDY
    return {
        "data": ({"data": other_data}, text, f"made on other data: .*{data.fingerprint()}.*; now .*12 people"),
        "epochs": ({"epochs": 3}, text, "made with epochs = 2, now it is 3"),
        "layout": ({"layout": "pose"}, text, "made with layout = keypoint, now it is pose"),
        "seed": ({"seed": 5}, text, "made with seed = 42, now it is 5"),
        "fixed": ({}, text.replace("batch_size = 8", "batch_size = 9"), "made with fixed.batch_size = 8, now it is 9"),
        "more fixed": (
            {},
            text.replace("[fixed]", "[fixed]\nweight_decay = 0.1"),
            "made without fixed.weight_decay, now it is 0.1",
        ),
        "space": ({}, text.replace("high = 0.5", "high = 0.6"), "made with space.dropout = .*0.5.*, now it is .*0.6"),
        "smaller space": (
            {},
            text.replace('pose_unit = ["degrees", "radians"]', ""),
            "made with space.pose_unit = .*radians.*, now without it",
        ),
    }


CHANGES = ["data", "epochs", "layout", "seed", "fixed", "more fixed", "space", "smaller space"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_study_is_refused_to_go_on_under_other_conditions_and_is_not_changed(sqlite, quick, tmp_path, data, change):
    study = searched(sqlite, quick, data, 1, epochs=2).study
    settings, text, message = continued_otherwise(tmp_path, data)[change]
    arguments = {"data": data, **settings}
    with unchanged(study), pytest.raises(StudyError, match=f"study 'quick' was {message}") as caught:
        search_in(sqlite, file_of(tmp_path, text), **arguments)
    assert "--study-name NEW" in caught.value.hint


def test_every_change_that_is_refused_is_tested(tmp_path, data):
    assert list(continued_otherwise(tmp_path, data)) == CHANGES


def test_a_study_of_another_major_version_of_optuna_is_refused(storage, quick, data, monkeypatch):
    study = search_in(storage, quick, data).study
    held = optuna.__version__
    monkeypatch.setattr(optuna, "__version__", "6.1.0")
    with unchanged(study), pytest.raises(StudyError) as caught:
        search_in(storage, quick, data)
    assert caught.value.message == f"study 'quick' was made with Optuna {held}, this is 6.1.0"
    monkeypatch.setattr(optuna, "__version__", f"{held.split('.')[0]}.99.0")
    search_in(storage, quick, data)  # a minor version is fine


@pytest.mark.parametrize(("direction", "trials"), [("maximize", 1), ("minimize", 0)])
def test_a_study_that_something_else_made_is_refused_and_not_changed(storage, quick, data, direction, trials):
    study = optuna.create_study(storage=storage, study_name="quick", direction=direction)
    for _ in range(trials):
        study.enqueue_trial({"x": 1})
    with unchanged(study), pytest.raises(StudyError) as caught:
        search_in(storage, quick, data)
    assert caught.value.message == "study 'quick' was not made by face3d-tune"


@pytest.mark.parametrize("told", [0, 1, 6])
def test_a_study_whose_maker_died_before_it_had_said_everything_about_it_goes_on(
    sqlite, quick, data, monkeypatch, told
):
    set_attr, calls = optuna.Study.set_user_attr, []

    def set_some(study, key, value):
        calls.append(key)
        if len(calls) > told:
            raise SystemExit("killed")
        set_attr(study, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", set_some)
        with pytest.raises(SystemExit):
            search_in(sqlite, quick, data)
    study = search_in(sqlite, quick, data).study
    assert study.metric_names == ["val_cosine"]
    assert set(study.user_attrs) == {
        "data",
        "data_fingerprint",
        "id",
        "kernel_ridge_by_yaw",
        "kernel_ridge_choice",
        "kernel_ridge_cosine",
        "kernel_ridge_recognition",
        "no_model_by_yaw",
        "no_model_cosine",
        "no_model_recognition",
        "preset_aliases",
        "ridge_by_yaw",
        "ridge_cosine",
        "ridge_penalty",
        "ridge_recognition",
        "settings",
        "versions",
    }


def test_what_a_study_lacks_of_the_lines_to_pass_is_measured_once_when_it_is_searched_again(
    sqlite, quick, data, monkeypatch
):
    study = search_in(sqlite, quick, data).study
    expected = study.user_attrs
    study.set_user_attr("ridge_cosine", 0.123)  # as measured before
    with sqlite.engine.begin() as connection:  # as a study of version 0.1.0
        connection.execute(text("DELETE FROM study_user_attributes WHERE key LIKE 'kernel_ridge%'"))
        connection.execute(text("DELETE FROM study_user_attributes WHERE key LIKE '%_recognition'"))
    study = search_in(sqlite, quick, data).study
    assert study.user_attrs == expected | {"ridge_cosine": 0.123}
    fitted = kernel_ridge.fit(data)
    assert study.user_attrs["kernel_ridge_cosine"] == pytest.approx(fitted.cosines(data, "validation").mean())
    stored = study.user_attrs["kernel_ridge_choice"]
    assert stored == asdict(fitted.choice) | {"views": len(data.parts["train"]), "centres": len(fitted.weights)}
    predictions = {
        "no_model": data.no_model_predictions("validation"),
        "ridge": ridge.fit(data).predict(data, "validation"),
        "kernel_ridge": fitted.predict(data, "validation"),
    }
    for name, given in predictions.items():
        found = Gallery(data, "validation").scores(given).summary()
        assert study.user_attrs[f"{name}_recognition"] == found.to_dict()
    monkeypatch.setattr(kernel_ridge, "fit", None)  # nobody computes it a second time
    search_in(sqlite, quick, data)


def test_what_does_not_change_a_trials_value_may_change_between_two_runs(sqlite, quick, tmp_path, data):
    searched(sqlite, quick, data, 1)
    text = QUICK_STUDY.replace("trials = 6", "trials = 60").replace("A search of", "Another text about")
    text += "\n[presets.mine]\nlr = 1e-3\ndropout = 0\n"
    path = tmp_path / "renamed.toml"
    path.write_text(text, encoding="utf-8")
    study = searched(sqlite, study_file.read(str(path)), data, 1).study
    assert [trial.user_attrs["preset"] for trial in study.trials if "preset" in trial.user_attrs] == [*DISTINCT, "mine"]


def test_several_studies_share_a_storage(sqlite, short, data):
    first = searched(sqlite, short, data, 1, name="first")
    second = searched(sqlite, short, data, 2, name="second")
    assert (first.finished(), second.finished()) == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SAMPLED_ONLY.replace('"tpe"', '"tp"'), r"sampler\.name = 'tp' is unknown"),
        (SAMPLED_ONLY + "[pruner]\nname = 'x'", r"pruner\.name = 'x' is unknown"),
        (SAMPLED_ONLY.replace("batch_size = 8", "batch_size = 43"), r"batch_size = 43 is more than the 42 training"),
        (SAMPLED_ONLY.replace("nhead = 2", "nhead = 3"), r"fixed\.nhead = 3 does not divide d_model = 16"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_stored(sqlite, tmp_path, data, text, message):
    with pytest.raises(StudyFileError, match=message):
        search_in(sqlite, file_of(tmp_path, text), data)
    assert optuna.get_all_study_names(sqlite) == []


# Interruptions


@pytest.mark.parametrize("interrupt", [(1, 1), (3, 2)])
def test_an_interrupted_trial_goes_back_to_the_queue_and_the_search_ends_as_if_nothing_had_been(
    sqlite, short, data, undisturbed, interrupt
):
    number, epoch = interrupt
    search = search_in(sqlite, short, data)
    search.enqueue_presets()
    with pytest.raises(KeyboardInterrupt):
        search.run(TRIALS, Watch(interrupt))
    interrupted = search.study.trials[number]
    assert (interrupted.state, interrupted.user_attrs["error"]) == (TrialState.FAIL, "interrupted")
    assert len(interrupted.intermediate_values) == epoch
    assert "RUNNING" not in states(search.study)
    successor = next(trial for trial in search.study.trials if trial.user_attrs.get("retry_of") == number)
    assert successor.state == TrialState.WAITING
    assert successor.user_attrs["seed"] == interrupted.user_attrs["seed"]
    assert successor.user_attrs.get("preset") == interrupted.user_attrs["preset"]
    assert successor.system_attrs["fixed_params"] == interrupted.params

    continued = searched(sqlite, short, data, TRIALS)
    assert found(continued.study) == undisturbed
    assert states(continued.study).count("COMPLETE") == TRIALS
    assert {row.trial.state for row in preset_rows(continued.study)} == {TrialState.COMPLETE}


def test_a_search_interrupted_again_and_again_still_ends_as_if_nothing_had_been(sqlite, short, data, undisturbed):
    interrupted = 0
    for number in range(TRIALS + 2):
        try:
            searched(sqlite, short, data, TRIALS, Watch((number, 1)))
        except KeyboardInterrupt:
            interrupted += 1
    study = searched(sqlite, short, data, TRIALS).study
    assert interrupted > TRIALS
    assert found(study) == undisturbed
    assert set(states(study)) == {"COMPLETE", "FAIL"}


def test_an_interrupt_while_parameters_are_chosen_changes_nothing_either(sqlite, short, data, undisturbed, monkeypatch):
    for number, asked in ((1, 3), (4, 3)):  # a preset and a sampled trial, with three of their parameters chosen
        with monkeypatch.context() as patch:
            patch.setattr(search_module, "suggest", interrupted_suggest(number, asked))
            with pytest.raises(KeyboardInterrupt):
                searched(sqlite, short, data, TRIALS)
    study = searched(sqlite, short, data, TRIALS).study
    assert found(study) == undisturbed
    assert "RUNNING" not in states(study)


def interrupted_suggest(number, asked):
    suggest, calls = search_module.suggest, []

    def suggest_or_interrupt(trial, name, row):
        if trial.number == number:
            calls.append(name)
            if len(calls) > asked:
                raise KeyboardInterrupt
        return suggest(trial, name, row)

    return suggest_or_interrupt


def test_an_error_of_the_program_puts_the_trial_back_and_is_not_hidden(sqlite, short, data, undisturbed):
    with pytest.raises(ValueError, match="no space left"):
        searched(sqlite, short, data, TRIALS, Watch((1, 1), ValueError("no space left")))
    study = search_in(sqlite, short, data).study
    assert study.trials[1].user_attrs["error"] == "ValueError: no space left"
    assert "RUNNING" not in states(study)
    continued = searched(sqlite, short, data, 2)
    assert continued.finished() == 2
    assert set(found(continued.study)) <= set(undisturbed)


def test_trials_whose_process_died_are_taken_back(sqlite, short, data, undisturbed):
    dead = search_in(sqlite, short, data)
    dead.enqueue_presets()
    dead.study.ask()  # a preset, dead before it chose anything
    search = search_in(sqlite, short, data)
    assert search.requeue_abandoned() == 1
    assert search.requeue_abandoned() == 0
    search.run(3, Watch())
    dead.study.ask()  # a sampled one, dead before it chose anything: there is nothing to put back
    assert search.requeue_abandoned() == 1
    search.run(TRIALS, Watch())
    assert found(search.study) == undisturbed
    assert [REQUEUED in trial.user_attrs for trial in search.study.trials].count(True) == 2
    assert states(search.study).count("FAIL") == 2


def test_a_crash_between_the_two_steps_of_putting_back_does_not_double_the_trial(
    sqlite, short, data, undisturbed, monkeypatch
):
    with monkeypatch.context() as patch:
        storage = optuna.storages._CachedStorage
        set_state = storage.set_trial_state_values

        def killed_as_it_fails(self, trial_id, state, values=None):
            return sys.exit("killed") if state == TrialState.FAIL else set_state(self, trial_id, state, values)

        patch.setattr(storage, "set_trial_state_values", killed_as_it_fails)
        with pytest.raises(SystemExit):
            searched(sqlite, short, data, 2, Watch((0, 1)))
    search = search_in(sqlite, short, data)
    assert states(search.study)[0] == "RUNNING"
    assert search.requeue_abandoned() == 1
    search.run(2, Watch())
    assert search.finished() == 2
    assert set(found(search.study)) <= set(undisturbed)
    assert len([trial for trial in search.study.trials if "retry_of" in trial.user_attrs]) == 1


def test_a_run_that_is_killed_is_completed_by_the_next_one(sqlite_url, quick_study, data_folder, tmp_path, capsys):
    words = ["run", "--data-dir", str(data_folder), "--study", str(quick_study), "--storage", sqlite_url]
    words += ["--study-name", "killed", "--trials", "4", "--epochs", "12", "--device", "cpu"]
    with start(*words, cwd=tmp_path) as process:
        try:
            killed = kill_in_a_trial(Storage.parse(sqlite_url).sqlite_file, process)
        finally:
            process.kill()
    with Storage.parse(sqlite_url).opened() as opened:
        assert "RUNNING" in states(optuna.load_study(study_name="killed", storage=opened))

    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "1 trial(s) without a living worker: queued again" in capsys.readouterr().err
    with Storage.parse(sqlite_url).opened() as opened:
        study = optuna.load_study(study_name="killed", storage=opened)
        held = states(study)
        assert (held.count("COMPLETE"), held.count("FAIL"), len(held)) == (4, 1, 5)
        (retry,) = [trial for trial in study.trials if "retry_of" in trial.user_attrs]
        first = study.trials[retry.user_attrs["retry_of"]]
        assert first.number >= killed
        assert first.state == TrialState.FAIL
        assert first.user_attrs["error"].startswith("its process ended without notice (")
        assert (retry.params, retry.user_attrs["seed"]) == (first.params, first.user_attrs["seed"])
        assert {row.trial.state for row in preset_rows(study)} == {TrialState.COMPLETE}


def kill_in_a_trial(file, process):
    """Kill a searching process in the middle of a trial, and return the trial's number."""
    query = "select number from trials natural join trial_intermediate_values where state = 'RUNNING'"
    while process.poll() is None:
        time.sleep(0.02)
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
                row = connection.execute(query).fetchone()
        except sqlite3.OperationalError:  # not there yet
            continue
        if row:
            process.kill()
            return row[0]
    raise AssertionError("the search ended before it could be killed")
