"""`export --inference` writes a folder that predicts what our own models and baselines predict."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import call
from fake_data import unit, write_data
from reference_model import ReferenceModel
from stored_study import add_trial, our_study
from trained import trained

from face3d_tune import __version__
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.data.provenance import DataUse
from face3d_tune.refit.inference import predict as script
from face3d_tune.refit.inference.sources import recorded_data
from face3d_tune.storage.artifacts import Artifacts, best_weights, unique_name
from face3d_tune.storage.database import Storage
from face3d_tune.training import baseline_file, kernel_ridge, predictor, ridge
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.checkpoint_file import checkpoint_args
from face3d_tune.training.ensemble import blend, choose_weight
from face3d_tune.training.head_frames import ALIGNED, AS_THEY_ARE, TURNED_BACK
from face3d_tune.training.kernel_ridge import NO_LANDMARKS, Hyperparameters
from face3d_tune.training.recognition import Gallery

CONFIG = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=1, epochs=2, batch_size=8)
RADIANS = replace(CONFIG, layout="pose", pose_unit="radians", lr=1e-2, epochs=6)
SPATIAL = replace(CONFIG, use_spatial_attention=True, pose_unit="radians", lr=3e-3)
CONFIGS = {"one.pth": CONFIG, "two.pth": RADIANS, "three.pth": SPATIAL}


@pytest.fixture
def folder(tmp_path, data):
    """A folder with three checkpoints of trainings on the same data."""
    for name, config in CONFIGS.items():
        save(tmp_path / name, data, config)
    return tmp_path


def save(path, data, config=CONFIG, args=None, **changes):
    args = checkpoint_args(config, DataUse.of(data)) if args is None else args
    torch.save({**trained(data, config, 1).checkpoint(args), **changes}, path)


def export(folder, *words, **environment):
    return call("export", *words, "--inference", "home", cwd=folder, **environment)


def exported(folder, *words, **environment):
    answer = export(folder, *words, **environment)
    assert answer.code == 0, answer.err
    return answer


def config_of(folder):
    return json.loads((folder / "home" / "config.json").read_text(encoding="utf-8"))


def views(data):
    """Of the validation people, one row for each pair."""
    rows = data.parts["validation"][:, 1]
    return data.video_features[rows], data.landmarks[rows], data.poses[rows]


def predicted(folder, data):
    return script.Predictor(folder / "home").predict(*views(data))


def members(data, *configs):
    """Unit predictions of the plain trainer's models for the pairs of the validation people."""
    found = []
    for config in configs:
        model = trained(data, config, 1).model.eval()
        embeddings, landmarks, degrees = views(data)
        poses = np.deg2rad(degrees) if config.pose_unit == "radians" else degrees
        given = (torch.from_numpy(np.asarray(each, np.float32)) for each in (embeddings, landmarks, poses))
        with torch.no_grad():
            found.append(unit(model(*given).double().numpy()))
    return found


def test_a_folder_of_one_checkpoint_predicts_what_its_model_predicts(folder, data):
    answer = exported(folder, "three.pth")
    np.testing.assert_allclose(predicted(folder, data), members(data, SPATIAL)[0], rtol=0, atol=1e-6)
    names = ["README.md", "config.json", "member-1.pth", "predict.py"]
    assert sorted(path.name for path in (folder / "home").iterdir()) == names
    assert answer.out.splitlines()[0] == "wrote home: 1 member, predict.py, config.json and README.md"
    assert answer.out.splitlines()[-1] == "use it: python home/predict.py DATA_DIR -o frontal.npy"
    assert answer.err == ""


def test_several_checkpoints_are_averaged_as_unit_vectors(folder, data):
    exported(folder, *CONFIGS)
    mean = unit(sum(members(data, *CONFIGS.values())))
    np.testing.assert_allclose(predicted(folder, data), mean, rtol=0, atol=1e-6)


def test_a_folder_stands_for_every_best_model_in_it(folder, data):
    for seed, name in enumerate(CONFIGS):
        (folder / "seeds" / str(seed)).mkdir(parents=True)
        (folder / name).rename(folder / "seeds" / str(seed) / "best_model.pth")
    exported(folder, "seeds")
    mean = unit(sum(members(data, *CONFIGS.values())))
    np.testing.assert_allclose(predicted(folder, data), mean, rtol=0, atol=1e-6)
    paths = [member["made_from"]["checkpoint"] for member in config_of(folder)["members"]]
    assert paths == [f"seeds/{seed}/best_model.pth" for seed in range(3)]


@pytest.mark.parametrize(("kind", "fit"), [("ridge", ridge.fit), ("kernel", kernel_ridge.fit)])
def test_a_blend_has_the_weight_that_validation_people_choose(folder, data, kind, fit):
    answer = exported(folder, "one.pth", "two.pth", "--blend", kind)
    simple, each = fit(data).predict(data, "validation"), members(data, CONFIG, RADIANS)
    weight = choose_weight(each, simple, data)
    held = config_of(folder)["blend"]
    assert (held["baseline"], held["weight"]) == (kind, weight)
    assert weight > 0  # or the baseline would not be seen
    np.testing.assert_allclose(predicted(folder, data), blend(each, simple, weight), rtol=0, atol=2e-6)
    assert f"weight {weight:.2f} (as validation people chose)" in answer.out


def test_a_folder_of_an_ensemble_has_its_blend_already(folder, data):
    """Its weight and baseline are used as they are, without the data."""
    known, fitted = [], ridge.fit(data, 10.0)
    for number, config in ((1, CONFIG), (2, RADIANS)):
        path = folder / "both" / f"member-{number}" / "best_model.pth"
        path.parent.mkdir(parents=True)
        save(path, data, config, checkpoint_args(config, DataUse.of(data)) | {"data_dir": "moved"})
        known.append({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    baseline_file.save(folder / "both" / "ridge.npz", fitted)
    held = {"file": "ridge.npz", "weight": 0.35}
    held["sha256"] = hashlib.sha256((folder / "both" / "ridge.npz").read_bytes()).hexdigest()
    about = {"members": known, "baselines": {"ridge": held}, "landmark_scale": 0.25, "data": {}, "people": 3}
    (folder / "both" / "ensemble.json").write_text(json.dumps(about))
    answer = exported(folder, "both", "--blend", "ridge")
    expected = blend(members(data, CONFIG, RADIANS), fitted.predict(data, "validation"), 0.35)
    np.testing.assert_allclose(predicted(folder, data), expected, rtol=0, atol=2e-6)
    assert "note: no validation people measure this export: moved: no such folder" in answer.err
    assert (folder / "home" / "baseline.npz").read_bytes() == (folder / "both" / "ridge.npz").read_bytes()


CHOICES = [Hyperparameters(name, 0.5, 3.0) for name in (NO_LANDMARKS, AS_THEY_ARE, TURNED_BACK, ALIGNED)]


@pytest.mark.parametrize("turn_angle", ["first", "second", "third"])
@pytest.mark.parametrize("choice", [None, *CHOICES], ids=lambda choice: choice.landmarks if choice else "ridge")
def test_the_script_predicts_with_every_baseline_what_we_predict(choice, turn_angle, data_folder):
    data = load(data_folder, turn_angle=turn_angle)
    fitted = ridge.fit(data, 10.0) if choice is None else kernel_ridge.fit(data, choice)
    arrays = Baseline(fitted).arrays()
    found = script.baseline(arrays, *views(data))
    np.testing.assert_allclose(found, fitted.predict(data, "validation"), rtol=0, atol=2e-6)


def test_the_weights_load_strictly_in_the_users_model(folder):
    exported(folder, "three.pth")
    held = torch.load(folder / "home" / "member-1.pth", weights_only=True)
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout", "use_spatial_attention")
    flags = {name: held["args"][name] for name in (*names, "use_pose_attention")}
    ReferenceModel(feature_size=16, **flags).load_state_dict(held["model_state_dict"])
    assert "optimizer_state_dict" not in held  # twice the size of the weights, and only for training


def test_what_was_made_of_what_is_in_the_config(folder, data):
    exported(folder, "three.pth", "--blend", "ridge")
    config = config_of(folder)
    (member,) = config["members"]
    assert config["face3d_tune"] == __version__
    assert config["data"] == {"source": data.source, "fingerprint": data.fingerprint()}
    assert member["made_from"]["checkpoint"] == "three.pth"
    assert (member["pose_unit"], member["inputs"], member["config"]["lr"]) == ("radians", "view", 3e-3)
    assert (config["needs_landmarks"], config["landmark_scale"], config["feature_size"]) == (True, 0.25, 16)
    measured = Gallery(data, "validation").scores(predicted(folder, data)).summary().to_dict()
    assert config["validation"]["people"] == measured["people"] == 3
    assert config["validation"]["all"] == pytest.approx(measured["all"], abs=1e-6)


def contents(folder):
    return {path.name: path.read_bytes() for path in (folder / "home").iterdir()}


def test_twice_the_same_export_is_the_same_bytes(folder):
    exported(folder, "one.pth", "two.pth", "--blend", "kernel")
    first = contents(folder)
    exported(folder, "one.pth", "two.pth", "--blend", "kernel", "--force")
    assert contents(folder) == first


# Of a study.


@pytest.fixture(scope="module")
def searched(tmp_path_factory, data):
    """A study whose best trial is 1, with the weights that a search would have kept of it."""
    folder = tmp_path_factory.mktemp("searched")
    own = {"source": data.source, "feature_size": 16, "pose_unit": "degrees", "split": "person"}
    with Storage.parse(f"sqlite:///{(folder / 'face3d_tune.db').as_posix()}").opened(create=True) as opened:
        study = our_study(opened, "faces", data=own, data_fingerprint=data.fingerprint())
        add_trial(study, "COMPLETE", [0.5])
        add_trial(study, "COMPLETE", [0.6])
        name = best_weights(unique_name("faces", study.user_attrs["id"]), "trial-1")
    save(folder / "kept.pth", data, SPATIAL)
    Artifacts.parse(str(folder / "kept")).write(name, (folder / "kept.pth").read_bytes())
    return folder


@pytest.fixture
def studied(tmp_path, searched):
    """A copy of it."""
    return shutil.copytree(searched, tmp_path, dirs_exist_ok=True)


def test_without_a_checkpoint_the_kept_weights_of_the_best_trial_are_exported(studied, data):
    exported(studied, "--artifacts", "kept")
    np.testing.assert_allclose(predicted(studied, data), members(data, SPATIAL)[0], rtol=0, atol=1e-6)
    (member,) = config_of(studied)["members"]
    assert {"study": "faces", "trial": 1, "cosine": 0.6}.items() <= member["made_from"].items()


# What cannot be used is one line that says what to do.


def refused(answer):
    assert answer.code == 2
    assert answer.out == ""
    *_, error, hint = answer.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return f"{error} {hint}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--artifacts", "kept", "--trial", "0"), "--artifacts kept has no weights of trial 0 of study 'faces'"),
        ((), "--artifacts none has no weights of trial 1 of study 'faces'"),
        (("--artifacts", "elsewhere"), "--artifacts elsewhere has no weights of trial 1 of study 'faces'"),
    ],
)
def test_a_trial_without_kept_weights(studied, words, said):
    answer = refused(export(studied, *words))
    assert said in answer
    assert "train it again with `face3d-tune train`, and give its best_model.pth" in answer
    assert not (studied / "home").exists()


def test_damaged_weights_in_the_artifacts_are_named_by_their_place(studied):
    next((studied / "kept").rglob("*.pth")).write_bytes(b"no checkpoint")
    answer = refused(export(studied, "--artifacts", "kept"))
    assert "error: kept: " in answer
    assert "best/trial-1.pth is not a readable checkpoint" in answer


def test_members_of_different_feature_sizes(folder, tmp_path_factory):
    other = load(write_data(tmp_path_factory.mktemp("other") / "files", feature_size=8))
    save(folder / "small.pth", other, replace(CONFIG, d_model=8))
    answer = refused(export(folder, "one.pth", "small.pth"))
    assert "one.pth takes 16 numbers per embedding, small.pth takes 8" in answer


def test_members_of_different_scales_of_landmarks(folder, data):
    save(folder / "far.pth", data, CONFIG, checkpoint_args(CONFIG, DataUse.of(data)) | {"landmark_scale": 0.5})
    answer = refused(export(folder, "one.pth", "far.pth"))
    assert "one.pth was trained with landmarks times 0.25, far.pth with landmarks times 0.5" in answer


def test_data_of_another_feature_size(folder, tmp_path):
    write_data(tmp_path / "small", feature_size=8)
    answer = refused(export(folder, "one.pth", "--data-dir", "small", "--blend", "ridge"))
    assert "one.pth takes 16 numbers per embedding, small has 8" in answer


def test_people_of_other_data_choose_no_weight(folder, data):
    save(folder / "far.pth", data, CONFIG, checkpoint_args(CONFIG, DataUse.of(data)) | {"data_fingerprint": "0123"})
    answer = exported(folder, "far.pth")
    assert "far.pth: it records other data, or another split or limits (0123; " in answer.err
    answer = refused(export(folder, "far.pth", "--blend", "ridge", "--force"))
    assert "far.pth was trained on other data, or another split or limits (0123), than " in answer
    assert "whose people cannot choose the weight hint: give the training data with --data-dir" in answer


@pytest.mark.parametrize("turn_angle", ["first", "second", "third"])
def test_people_of_the_same_limits_of_whichever_head_turn_choose_the_weight(tmp_path, data_folder, turn_angle):
    limited = load(data_folder, min_yaw=2, max_yaw=15, turn_angle=turn_angle)
    save(tmp_path / "limited.pth", limited)
    again = recorded_data([predictor.read(tmp_path / "limited.pth", torch.device("cpu"))], None)
    assert again.fingerprint() == limited.fingerprint() != load(data_folder, turn_angle=turn_angle).fingerprint()
    exported(tmp_path, "limited.pth", "--blend", "ridge")


def test_a_damaged_checkpoint(folder):
    (folder / "one.pth").write_bytes((folder / "one.pth").read_bytes()[:1000])
    assert "one.pth is not a readable checkpoint" in refused(export(folder, "one.pth"))


def test_a_folder_that_cannot_be_written(folder):
    (folder / "home").write_text("a file")
    assert "--inference home cannot be used: " in refused(export(folder, "one.pth"))


def test_a_folder_that_cannot_be_put_in_its_place_leaves_nothing_behind(folder):
    (folder / "home").symlink_to("nowhere")
    before = {path.name for path in folder.iterdir()}
    assert "--inference home cannot be written: Not a directory" in refused(export(folder, "one.pth"))
    assert {path.name for path in folder.iterdir()} == before


def test_a_checkpoint_that_does_not_say_its_data_asks_for_them(folder, data):
    save(folder / "silent.pth", data, CONFIG, {"lr": 1e-2})
    said = refused(export(folder, "silent.pth", "--blend", "ridge"))
    assert "silent.pth does not record its data" in said


def test_a_folder_with_other_files_stays_as_it_is_with_force_too(folder):
    (folder / "home").mkdir()
    (folder / "home" / "thesis.txt").write_text("years of work")
    for words in ((), ("--force",)):
        assert "--inference home holds other files, such as thesis.txt" in refused(export(folder, "one.pth", *words))
    assert contents(folder) == {"thesis.txt": b"years of work"}


def test_an_earlier_export_is_replaced_with_force_only(folder):
    exported(folder, "one.pth", "two.pth", "--blend", "ridge")
    first = contents(folder)
    assert "holds an earlier export" in refused(export(folder, "one.pth"))
    assert contents(folder) == first
    exported(folder, "one.pth", "--force")
    assert sorted(contents(folder)) == ["README.md", "config.json", "member-1.pth", "predict.py"]


def test_an_empty_folder_is_as_good_as_none(folder):
    (folder / "home").mkdir()
    exported(folder, "one.pth")


def test_data_that_cannot_be_read_are_missed_only_where_they_are_needed(folder, data):
    moved = checkpoint_args(CONFIG, DataUse.of(data)) | {"data_dir": "moved"}
    save(folder / "moved.pth", data, CONFIG, moved)
    answer = exported(folder, "moved.pth")
    assert "note: no validation people measure this export: moved: no such folder" in answer.err
    assert config_of(folder)["validation"] is None
    for words in (("--blend", "ridge"), ("--data-dir", "nowhere")):
        assert "with --data-dir" in refused(export(folder, "moved.pth", *words, "--force"))


def test_a_script_records_no_unit_and_gets_the_better_one(folder, data):
    save(folder / "script.pth", data, RADIANS, {"data_dir": data.source, "lr": 1e-2})
    answer = exported(folder, "script.pth")
    assert answer.err.splitlines()[:2] == [  # in the words of `judge`
        "note: script.pth: it does not record its data, so people measured here may be among those it was trained on",
        "note: script.pth: it does not record the unit of its poses; it gets radians",
    ]
    np.testing.assert_allclose(predicted(folder, data), members(data, RADIANS)[0], rtol=0, atol=1e-6)
    save(folder / "moved.pth", data, RADIANS, {"data_dir": "moved", "lr": 1e-2})
    assert "give the training data with --data-dir" in refused(export(folder, "moved.pth", "--force"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "one.pth"), "CHECKPOINT needs --inference DIR"),
        (("export", "--blend", "ridge"), "--blend needs --inference DIR"),
        (("export", "--force"), "--force needs --inference DIR"),
        (
            ("export", "--inference", "home", "--format", "json"),
            "--format shapes a command: it goes without --inference",
        ),
        (
            ("export", "--inference", "home", "--script", "x.py"),
            "--script shapes a command: it goes without --inference",
        ),
        (("export", "--inference", "home", "--check"), "--check tries a command: it goes without --inference"),
        (("export", "--inference", "home", "--baseline", "ridge"), "--baseline goes with a CHECKPOINT only"),
        (("export", "--inference", "home", "one.pth", "--trial", "1"), "goes without --study-name and --trial"),
    ],
)
def test_options_that_do_not_go_together(folder, words, said):
    assert said in refused(call(*words, cwd=folder))


@pytest.mark.parametrize("inputs", ["ridge", "kernel"])
def test_a_member_trained_on_the_outputs_of_a_baseline_gets_them_from_its_checkpoint(folder, data, inputs):
    config = replace(CONFIG, inputs=inputs)
    save(folder / "inputs.pth", data, config)
    exported(folder, "inputs.pth", "one.pth")
    ours = [predictor.read(folder / name, torch.device("cpu")) for name in ("inputs.pth", "one.pth")]
    expected = unit(sum(each.predict(*views(data), "degrees").astype(np.float64) for each in ours))
    np.testing.assert_allclose(predicted(folder, data), expected, rtol=0, atol=2e-6)
    assert [each["inputs"] for each in config_of(folder)["members"]] == [inputs, "view"]
    again = predictor.read(folder / "home" / "member-1.pth", torch.device("cpu"))  # whole for this program too
    np.testing.assert_array_equal(again.predict(*views(data), "degrees"), ours[0].predict(*views(data), "degrees"))


def test_a_script_trained_on_a_converted_copy_needs_the_copys_baseline(folder, data):
    assert call("data", "convert", data.source, "copy", "--inputs", "ridge", cwd=folder).code == 0
    save(folder / "script.pth", data, replace(CONFIG, inputs="ridge"), {"data_dir": "copy", "pose_unit": "degrees"})
    held = torch.load(folder / "script.pth", weights_only=True)
    del held["baseline"]  # a script writes none
    torch.save(held, folder / "script.pth")
    answer = refused(export(folder, "script.pth"))
    assert "copy holds the outputs of a baseline: the exported folder gets raw views" in answer
    assert "give copy/baseline.npz with --baseline" in answer
    exported(folder, "script.pth", "--baseline", "copy/baseline.npz", "--data-dir", data.source)
    save(folder / "ours.pth", data, replace(CONFIG, inputs="ridge"))
    expected = predictor.read(folder / "ours.pth", torch.device("cpu")).predict(*views(data), "degrees")
    np.testing.assert_allclose(predicted(folder, data), expected, rtol=0, atol=2e-6)
