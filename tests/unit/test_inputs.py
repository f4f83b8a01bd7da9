"""A model may get a baseline's output in place of the raw view: fitted to its training people alone, once."""

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from command_line import call
from reference_model import ReferenceModel

from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import FaceData, load
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import CheckpointError, ConfigError, DataError
from face3d_tune.executor.checkpoints import in_users_format
from face3d_tune.executor.slots import BatchedSlots, PlainSlot
from face3d_tune.executor.tasks import Task
from face3d_tune.training import baseline_file, checkpoint_file, kernel_ridge, predictor, ridge
from face3d_tune.training.base import PairTensors
from face3d_tune.training.batched.batch import Batch, Data, alone
from face3d_tune.training.checkpoint_file import checkpoint_args
from face3d_tune.training.inputs import seen, write_copy
from face3d_tune.training.kernel_ridge import Hyperparameters
from face3d_tune.training.plain import Trainer

CPU = torch.device("cpu")
CONFIG = TrialConfig(d_model=16, dim_feedforward=16, nhead=2, num_layers=1, batch_size=8, epochs=2, lr=1e-3)
RIDGE, KERNEL = replace(CONFIG, inputs="ridge"), replace(CONFIG, inputs="kernel")
WITH_LANDMARKS = Hyperparameters("turned back", 0.5, 3.0)


@pytest.fixture(scope="module")
def data(data):
    """An object of its own: what is chosen and fitted here stays with it."""
    return replace(data)


@pytest.fixture(autouse=True)
def quick_choice(monkeypatch):
    """Nobody here asks which kernel people choose, and it takes most of the time."""
    monkeypatch.setattr(kernel_ridge, "choose", lambda data: WITH_LANDMARKS)
    monkeypatch.setattr(ridge, "choose_penalty", lambda data: 10.0)


def history(training):
    while training.stop_reason is None:
        training.train_epoch()
    return [replace(result, seconds=0) for result in training.history]


def alone_on(config, data, seed=1):
    return alone(config, data, seed=seed, device=CPU, precision="off")


def plain(config, data, seed=1, dtype=torch.float32):
    return Trainer(config, data, seed=seed, device=CPU, dtype=dtype)


@pytest.mark.parametrize("kind", ["ridge", "kernel"])
def test_validation_people_give_a_model_what_the_baseline_predicts_for_them(data, kind):
    fitted = ridge.fit(data) if kind == "ridge" else kernel_ridge.fit(data)
    given, pairs = seen(data, kind), data.parts["validation"]
    found = given.video_features[pairs[:, 1]]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, fitted.predict(data, "validation"), atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    same = [field.name for field in fields(FaceData) if field.name != "video_features"]
    assert all(getattr(given, name) is getattr(data, name) for name in same)
    assert seen(data, "view") is data


def spoilt(data, *parts):
    """The same data with other frontal embeddings of the people in these parts."""
    front = data.front_features.copy()
    for part in parts:
        rows = np.unique(data.parts[part][:, 0])
        front[rows] = np.roll(front[rows], 1, axis=1)
    return replace(data, front_features=front)


def from_everyone(data, kind):
    """The leak: a baseline fitted to all people."""
    everyone = np.concatenate(list(data.parts.values()))
    return seen(replace(data, parts={**data.parts, "train": everyone}), kind)


@pytest.mark.parametrize("kind", ["ridge", "kernel"])
@pytest.mark.parametrize("fold", [1, 3])
def test_no_input_depends_on_the_frontal_embedding_of_a_validation_or_test_person(data, kind, fold):
    data = data.fold(fold, of=3)
    before, after = (seen(each, kind).video_features for each in (data, spoilt(data, "validation", "test")))
    np.testing.assert_array_equal(before, after)
    of_training = seen(spoilt(data, "train"), kind).video_features
    assert np.abs(before - of_training).max() > 0.01


@pytest.mark.parametrize("kind", ["ridge", "kernel"])
def test_a_leak_would_be_noticed(data, kind):
    leaky = [from_everyone(each, kind).video_features for each in (data, spoilt(data, "validation", "test"))]
    assert np.abs(np.subtract(*leaky)).max() > 0.01


def test_both_engines_give_the_model_the_same(data):
    for config in (RIDGE, KERNEL):
        train, given = plain(config, data).train, seen(data, config.inputs)
        np.testing.assert_array_equal(train.src.numpy(), given.video_features[data.parts["train"][:, 1]])
        batch = alone_on(config, data).batch
        np.testing.assert_array_equal(batch.data.train.views.src.numpy(), train.src.numpy())
        both = history(plain(config, data)), history(alone_on(config, data))
        for one, other in zip(*both, strict=True):
            assert one.val_cosine == pytest.approx(other.val_cosine, abs=1e-5)
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
        assert abs(both[0][-1].val_cosine - history(plain(CONFIG, data))[-1].val_cosine) > 1e-4


def test_a_batch_takes_no_data_of_other_inputs(data):
    with pytest.raises(ValueError, match="raw views, and inputs = ridge"):
        Batch(RIDGE, Data(data, CPU), "off")
    with pytest.raises(ValueError, match="for inputs = kernel, not ridge"):
        Batch(RIDGE, Data(seen(data, "kernel"), CPU), "off")


@pytest.fixture
def fits(monkeypatch):
    """How often each baseline was fitted."""
    counted = []
    for name, module in (("ridge", ridge), ("kernel", kernel_ridge)):
        fit = module.fit
        monkeypatch.setattr(module, "fit", lambda data, fit=fit, name=name: counted.append(name) or fit(data))
    return counted


@pytest.mark.parametrize("slots", [PlainSlot, lambda data, device: BatchedSlots(data, device, 9)])
def test_trials_of_all_inputs_and_folds_train_side_by_side_each_as_alone_and_every_baseline_is_fitted_once(
    data, slots, fits
):
    data = replace(data)  # no other test has fitted anything to it
    kinds = [(config, fold) for fold in (1, 2) for config in (CONFIG, RIDGE, KERNEL, RIDGE)]
    tasks = [Task(n, config, n, "off", fold=fold, folds=2) for n, (config, fold) in enumerate(kinds)]
    opened, given = slots(data, CPU), {task.number: [] for task in tasks}
    waiting, running = list(tasks), 0
    while waiting or running:
        while waiting and running < opened.count:
            opened.start(waiting.pop(0))
            running += 1
        for event in opened.wait():
            given[event.number].append(replace(event.content, seconds=0))
            running -= event.content.stop_reason is not None
    assert sorted(fits) == ["kernel", "kernel", "ridge", "ridge"]
    begin = plain if opened.engine == "plain" else alone_on
    for task in tasks:
        assert given[task.number] == history(begin(task.config, data.fold(task.fold, of=2), task.number))


@pytest.mark.parametrize(("kind", "unit"), [("ridge", None), ("kernel", "radians")])
def test_a_converted_copy_trains_as_the_trial_did(data_folder, data, tmp_path, kind, unit):
    write_copy(data_folder, tmp_path / "copy", kind, unit=unit)
    copy = load(tmp_path / "copy")
    np.testing.assert_array_equal(copy.video_features, seen(data, kind).video_features)
    assert copy.people == data.people
    assert copy.file_pose_unit == (unit or "degrees")
    config = replace(CONFIG, pose_unit=unit or "degrees")
    ours, theirs = history(plain(replace(config, inputs=kind), data)), history(plain(config, copy))
    assert [result.val_cosine for result in ours] == pytest.approx([result.val_cosine for result in theirs], abs=1e-6)
    baseline, pairs = baseline_file.load(tmp_path / "copy" / "baseline.npz"), data.parts["test"]
    rows = pairs[:, 1]
    found = baseline.predict(data.video_features[rows], data.landmarks[rows], data.poses[rows])
    np.testing.assert_allclose(found, copy.video_features[rows], atol=1e-6)


def test_the_copy_is_of_the_views_and_people_of_a_search_with_these_limits(data_folder, tmp_path):
    limits = {"min_yaw": 20.0, "max_yaw": 60.0, "turn_angle": "first"}
    write_copy(data_folder, tmp_path / "copy", "ridge", **limits)
    wanted = seen(load(data_folder, **limits), "ridge").video_features
    np.testing.assert_array_equal(load(tmp_path / "copy").video_features, wanted)
    assert np.abs(wanted - seen(load(data_folder), "ridge").video_features).max() > 1e-3


def test_a_copy_is_not_converted_again(data_folder, tmp_path):
    write_copy(data_folder, tmp_path / "copy", "ridge")
    with pytest.raises(DataError, match="its embeddings are the outputs of a baseline already"):
        write_copy(tmp_path / "copy", tmp_path / "again", "ridge")
    assert not (tmp_path / "again").exists()


def test_the_command_says_what_it_wrote_and_what_it_needs(data_folder, tmp_path):
    done = call("data", "convert", data_folder, "out", "--inputs", "ridge", "--pose-unit", "radians", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "embeddings of the views are the outputs of ridge, which baseline.npz holds" in done.out
    assert "poses from degrees to radians" in done.out
    assert baseline_file.load(tmp_path / "out" / "baseline.npz").kind == "ridge"
    neither = call("data", "convert", data_folder, "other", cwd=tmp_path)
    assert neither.code == 2
    assert "convert changes nothing without --pose-unit or --inputs" in neither.err
    both = call("data", "convert", data_folder, "other", "--inputs", "ridge", "--from", "degrees", cwd=tmp_path)
    assert both.code == 2
    assert "first record the unit with --from" in both.err


LAYOUTS = [RIDGE, KERNEL, replace(KERNEL, layout="pose", pose_unit="radians")]


@pytest.fixture(params=LAYOUTS, ids=lambda config: f"{config.inputs}, {config.layout}")
def trained(request, data, tmp_path):
    """A training and its checkpoint."""
    config = request.param
    trainer = plain(config, data)
    history(trainer)
    path = tmp_path / "best_model.pth"
    checkpoint_file.save(trainer.checkpoint(checkpoint_args(config, DataUse.of(data))), path)
    return trainer, path


def test_a_checkpoint_carries_the_baseline_and_predicts_from_raw_views(trained, data):
    trainer, path = trained
    trainer.model.eval()
    with torch.no_grad():
        pairs = PairTensors(trainer.data, "test", trainer.config.pose_unit, CPU)
        expected = trainer._predict(pairs, slice(None)).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    model, rows = predictor.read(path, CPU), data.parts["test"][:, 1]
    assert model.inputs == trainer.config.inputs
    assert model.needs_landmarks is (trainer.config.inputs == "kernel" or trainer.config.layout == "keypoint")
    unit = trainer.config.pose_unit
    found = model.predict(data.video_features[rows], data.landmarks[rows], data.poses[rows], unit)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    raw = replace(model, baseline=None).predict(data.video_features[rows], data.landmarks[rows], data.poses[rows], unit)
    assert np.abs(found - raw).max() > 0.01


def test_the_commands_predict_and_judge_with_the_baseline_of_the_checkpoint(trained, data_folder, tmp_path):
    trainer, _ = trained
    shutil.copytree(data_folder, tmp_path / "files")
    (tmp_path / "files" / "front_feature.npy").unlink()
    answer = call("predict", "best_model.pth", "files", "-o", "frontal.npy", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert f'"inputs": "{trainer.config.inputs}"' in (tmp_path / "frontal.json").read_text()
    judged = call("judge", "best_model.pth", "--data-dir", data_folder, "--json", cwd=tmp_path)
    assert judged.code == 0, judged.err
    assert f'"inputs": "{trainer.config.inputs}"' in judged.out
    cosine = trainer.history[-1].val_cosine
    assert f"{cosine:.4f}" in call("judge", "best_model.pth", "--data-dir", data_folder, cwd=tmp_path).out


def test_the_weights_still_load_strictly_and_torch_reads_the_rest_as_plain_values(trained):
    trainer, path = trained
    held = torch.load(path, weights_only=True)
    assert held["baseline"]["kind"] == held["args"]["inputs"] == trainer.config.inputs
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout")
    flags = ("use_spatial_attention", "use_pose_attention")
    model = ReferenceModel(feature_size=16, **{name: getattr(trainer.config, name) for name in (*names, *flags)})
    model.load_state_dict(held["model_state_dict"], strict=True)


def test_a_snapshot_in_a_search_carries_it_into_the_best_weights(data, tmp_path):
    member = alone_on(KERNEL, data)
    history(member)
    whole = checkpoint_file.unseal(checkpoint_file.seal(member.snapshot()))
    checkpoint_file.save(in_users_format(KERNEL, whole, member.model_state(), None), tmp_path / "best.pth")
    assert predictor.read(tmp_path / "best.pth", CPU).inputs == "kernel"
    assert "baseline" not in alone_on(CONFIG, data).snapshot()
    again = alone_on(KERNEL, data)
    again.restore(whole)
    assert [replace(each, seconds=0) for each in again.history] == [replace(e, seconds=0) for e in member.history]


def test_without_its_baseline_a_checkpoint_says_so_and_the_file_of_the_copy_helps(trained, data, data_folder, tmp_path):
    trainer, path = trained
    held = torch.load(path, weights_only=True)
    state = held.pop("baseline")
    checkpoint_file.save(held, path)
    with pytest.raises(CheckpointError, match=f"inputs = {trainer.config.inputs}, and holds no baseline") as caught:
        predictor.read(path, CPU)
    assert "--baseline" in caught.value.hint
    write_copy(data_folder, tmp_path / "copy", trainer.config.inputs)
    answer = call(*("predict", path, data_folder, "-o", "frontal.npy", "--baseline", "copy/baseline.npz"), cwd=tmp_path)
    assert answer.code == 0, answer.err
    checkpoint_file.save({**held, "baseline": {**state, "kind": "tree"}}, path)
    with pytest.raises(CheckpointError, match="holds a damaged baseline: its kind is 'tree'"):
        predictor.read(path, CPU)


def test_it_is_a_parameter_that_older_trainings_had_at_its_default():
    with pytest.raises(ConfigError, match="inputs = 'raw' is unknown; expected one of view, ridge, kernel"):
        replace(CONFIG, inputs="raw")
    assert "inputs" not in CONFIG.identity()
    assert RIDGE.identity()["inputs"] == "ridge"
