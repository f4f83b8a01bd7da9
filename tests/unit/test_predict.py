"""Frontal embeddings for a folder of side views: the plain trainer's, row by row, from the video files alone."""

import hashlib
import json
import shutil
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import call
from fake_data import unit, write_data
from reference_model import ReferenceModel
from trained import trained

from face3d_tune import __version__
from face3d_tune.config import TrialConfig
from face3d_tune.data.convert import convert
from face3d_tune.data.face_data import load
from face3d_tune.data.provenance import DataUse
from face3d_tune.data.views import read_views
from face3d_tune.executor.child import Share
from face3d_tune.executor.plan import Plan
from face3d_tune.refit.ensemble_folder import Members, seeds_of
from face3d_tune.training import kernel_ridge, predictor, ridge
from face3d_tune.training.base import PairTensors
from face3d_tune.training.checkpoint_file import checkpoint_args

CPU = torch.device("cpu")
CONFIG = TrialConfig(
    d_model=16, dim_feedforward=32, nhead=2, num_layers=1, epochs=2, batch_size=8, use_spatial_attention=True
)
POSE = replace(CONFIG, layout="pose", use_spatial_attention=False, pose_unit="radians")
ROWS = 72  # of video_feature.npy
VIDEO = ("video_feature.npy", "video_metadata.json")


@pytest.fixture
def folder(tmp_path, data_folder):
    """A folder to write to, with the data in `files`."""
    shutil.copytree(data_folder, tmp_path / "files")
    return tmp_path


def checkpoint(folder, data, config=CONFIG, name="best_model.pth", **changes):
    """Write the checkpoint of a training, as `train` does, with other content if told so."""
    held = trained(data, config, 1).checkpoint(checkpoint_args(config, DataUse.of(data)))
    torch.save({**held, **changes}, folder / name)
    return folder / name


def expected(data, config=CONFIG):
    """The plain trainer's own predictions, in the order of the video file, each divided by its length."""
    trainer, rows = trained(data, config, 1), np.zeros((ROWS, 16))
    trainer.model.eval()
    for part, pairs in data.parts.items():
        with torch.no_grad():
            rows[pairs[:, 1]] = trainer._predict(PairTensors(data, part, config.pose_unit, CPU), slice(None)).numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def predict(folder, *words, model="best_model.pth", data="files", out="frontal.npy"):
    return call("predict", model, data, "-o", out, *words, cwd=folder)


def predicted(folder, *words, **more):
    answer = predict(folder, *words, **more)
    assert answer.code == 0, answer.err
    return np.load(folder / "frontal.npy")


def changed(folder, change, file="video_metadata.json"):
    """Change the content of a metadata file in place."""
    path = folder / "files" / file
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("config", [CONFIG, POSE], ids=lambda config: config.layout)
def test_rows_are_the_plain_trainers_predictions_in_the_order_of_the_file_with_unit_length(folder, data, config):
    checkpoint(folder, data, config)
    rows = predicted(folder)
    assert (rows.dtype, rows.shape) == (np.float32, (ROWS, 16))
    np.testing.assert_allclose(rows, expected(data, config), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, rtol=0, atol=1e-6)
    assert not np.allclose(rows[0], rows[1], atol=1e-3)  # another order would be noticed


def test_more_rows_than_a_batch_come_out_as_the_same_numbers(folder, data, monkeypatch):
    checkpoint(folder, data)
    whole = predicted(folder)
    monkeypatch.setattr("face3d_tune.training.prediction_file.EVALUATION_BATCH", 7)
    np.testing.assert_allclose(predicted(folder, "--force"), whole, rtol=0, atol=1e-6)


def test_frontal_files_and_names_may_be_missing(folder, data):
    checkpoint(folder, data)
    whole = predicted(folder)
    for path in (folder / "files").iterdir():
        if path.name not in VIDEO:
            path.unlink()
    changed(folder, lambda content: content.pop("metadata"))
    assert np.array_equal(predicted(folder, "--force"), whole)  # the checkpoint records the scale of the landmarks


def test_the_pose_layout_reads_no_landmarks(folder, data):
    checkpoint(folder, data, POSE)
    whole = predicted(folder)
    changed(folder, lambda content: content.pop("landmarks_3d_original"))
    (folder / "files" / "video_keypoints.npy").unlink()
    assert np.array_equal(predicted(folder, "--force"), whole)


def test_without_landmarks_in_the_metadata_the_keypoint_layout_reads_the_keypoints(folder, data):
    checkpoint(folder, data)
    changed(folder, lambda content: content["landmarks_3d_original"].__setitem__(3, None))
    predicted(folder)
    about = json.loads((folder / "frontal.json").read_text(encoding="utf-8"))
    assert about["input"]["landmarks"].startswith("video_keypoints.npy (landmarks_3d_original is missing from 1 of 72")
    assert set(about["input"]["sha256"]) == {*VIDEO, "video_keypoints.npy"}
    assert about["model_input"]["landmark_scale"] is None


def test_the_same_views_in_another_unit_give_the_same_rows(folder, data):
    checkpoint(folder, data)
    convert(folder / "files", folder / "other", unit="radians")
    np.testing.assert_allclose(predicted(folder, data="other"), expected(data), rtol=0, atol=1e-6)


def args_of_a_script(**more):
    """The flags that the users' script stores: it knows neither unit nor scale."""
    return {"data_dir": "x", "batch_size": 8, "lr": 1e-4, "epochs": 2, "d_model": 16, "nhead": 2, **more}


@pytest.mark.parametrize("kind", [dict, Namespace, SimpleNamespace])
def test_a_checkpoint_of_the_users_script_predicts_in_the_unit_of_the_folder(folder, data, kind):
    checkpoint(folder, data, args=kind(**args_of_a_script()))
    answer = predict(folder)
    assert answer.code == 0, answer.err
    assert answer.err == (
        "note: the checkpoint does not record the unit of its poses; it gets degrees, as in files; "
        "--pose-unit sets another\n"
    )
    np.testing.assert_allclose(np.load(folder / "frontal.npy"), expected(data), rtol=0, atol=1e-6)


def test_the_unit_and_the_scale_at_the_models_input_can_be_set(folder, data):
    in_radians = replace(CONFIG, pose_unit="radians")
    checkpoint(folder, data, in_radians, args=args_of_a_script())
    (folder / "files" / "front_metadata.json").unlink()
    rows = predicted(folder, "--pose-unit", "radians", "--landmark-scale", "0.25")  # of fake_data
    np.testing.assert_allclose(rows, expected(data, in_radians), rtol=0, atol=1e-6)


def test_weights_alone_and_a_model_written_independently_predict(folder, data):
    torch.manual_seed(1)
    names = ("d_model", "nhead", "num_layers", "dim_feedforward", "dropout", "layout")
    kinds = ("use_spatial_attention", "use_pose_attention")
    theirs = ReferenceModel(feature_size=16, **{name: getattr(CONFIG, name) for name in (*names, *kinds)}).eval()
    torch.save(theirs.state_dict(), folder / "best_model.pth")
    with torch.no_grad():
        made = theirs(
            torch.from_numpy(data.video_features),
            torch.from_numpy(data.landmarks),
            torch.from_numpy(data.poses).float(),
        )
    np.testing.assert_allclose(
        predicted(folder), torch.nn.functional.normalize(made, dim=-1).numpy(), rtol=0, atol=1e-5
    )


def test_the_json_says_what_was_made_of_what(folder, data):
    path = checkpoint(folder, data, POSE)
    predicted(folder)
    about = json.loads((folder / "frontal.json").read_text(encoding="utf-8"))

    def sha256(file):
        return hashlib.sha256((folder / file).read_bytes()).hexdigest()

    assert (about["version"], about["face3d_tune"]) == (1, __version__)
    assert about["device"].startswith("cpu (")
    assert about["checkpoint"]["path"] == path.name
    assert about["checkpoint"]["sha256"] == sha256(path.name)
    assert about["checkpoint"]["epoch"] == 1  # of two, counted from 0 as scripts do
    assert (about["checkpoint"]["layout"], about["checkpoint"]["pose_unit"]) == ("pose", "radians")
    assert TrialConfig(**about["checkpoint"]["config"]) == POSE
    assert about["input"]["folder"] == "files"
    assert about["input"]["sha256"] == {file: sha256(f"files/{file}") for file in VIDEO}
    assert about["input"]["pose_unit"] is None  # not recorded, so degrees
    assert about["model_input"] == {"pose_unit": "radians", "landmark_scale": None}
    output = {"rows": ROWS, "feature_size": 16, "dtype": "float32", "length": 1}
    assert about["output"] == output | {"file": "frontal.npy", "sha256": sha256("frontal.npy")}


def bad_row(folder, row, value):
    features = np.load(folder / "files" / "video_feature.npy")
    features[row] = value
    np.save(folder / "files" / "video_feature.npy", features)


def remove(*files):
    return lambda folder: [(folder / "files" / file).unlink() for file in files]


def other_weights(folder):
    torch.save({"model_state_dict": {"layer.weight": torch.ones(2)}}, folder / "best_model.pth")


def two_layouts(folder):
    held = torch.load(folder / "best_model.pth", weights_only=True)
    del held["model_state_dict"]["fusion_weights"]
    torch.save(held, folder / "best_model.pth")


def infinite_weights(folder):
    held = torch.load(folder / "best_model.pth", weights_only=True)
    held["model_state_dict"]["output_projection.bias"][0] = torch.inf
    torch.save(held, folder / "best_model.pth")


def huge_weights(folder):
    held = torch.load(folder / "best_model.pth", weights_only=True)
    held["model_state_dict"]["output_projection.weight"].fill_(1e38)
    torch.save(held, folder / "best_model.pth")


MISTAKES = {
    "no folder": (lambda folder: shutil.rmtree(folder / "files"), "files: no such folder; expected a folder with"),
    "no embeddings": (remove("video_feature.npy"), "files: video_feature.npy: missing"),
    "embeddings that are a folder": (
        lambda folder: (remove("video_feature.npy")(folder), (folder / "files" / "video_feature.npy").mkdir()),
        "files: video_feature.npy: Is a directory; expected a readable file",
    ),
    "no metadata": (remove("video_metadata.json"), "files: video_metadata.json: missing"),
    "no JSON where the scale of the landmarks is": (
        lambda folder: (folder / "files" / "front_metadata.json").write_text("{"),
        "files: front_metadata.json: line 1, column 2: Expecting property name",
    ),
    "no poses": (
        lambda folder: changed(folder, lambda content: content.pop("poses")),
        "files: video_metadata.json: poses: missing",
    ),
    "too few poses": (
        lambda folder: changed(folder, lambda content: content["poses"].pop()),
        "files: video_metadata.json: poses: 71 rows; expected 72, as many as in video_feature.npy",
    ),
    "poses that look like radians": (
        lambda folder: changed(folder, lambda content: content.update(poses=[[0.5, 0.1, 0.2]] * ROWS)),
        "files: video_metadata.json: pose_unit: not recorded, and no angle exceeds 0.5",
    ),
    "NaN": (
        lambda folder: bad_row(folder, 70, np.nan),
        "files: video_feature.npy: row 70: NaN or infinity; expected finite numbers",
    ),
    "a zero row": (
        lambda folder: bad_row(folder, [5, 6], 0),
        "files: video_feature.npy: rows 5, 6: a zero vector; expected an embedding with a direction",
    ),
    "embeddings of another size": (
        lambda folder: shutil.copy(
            write_data(folder / "wide", feature_size=24) / "video_feature.npy", folder / "files"
        ),
        "files/video_feature.npy has 24 numbers per embedding, the model of best_model.pth takes 16",
    ),
    "a cut array": (
        lambda folder: (folder / "files" / "video_feature.npy").write_bytes(
            (folder / "files" / "video_feature.npy").read_bytes()[:-5]
        ),
        "files: video_feature.npy: damaged",
    ),
    "no array": (
        lambda folder: (folder / "files" / "video_feature.npy").write_text("1, 2, 3"),
        "files: video_feature.npy: not a .npy file",
    ),
    "no checkpoint": (lambda folder: (folder / "best_model.pth").unlink(), "best_model.pth is not a readable"),
    "a torn checkpoint": (
        lambda folder: (folder / "best_model.pth").write_bytes((folder / "best_model.pth").read_bytes()[:500]),
        "best_model.pth is not a readable checkpoint",
    ),
    "no weights": (
        lambda folder: torch.save({"epoch": 3}, folder / "best_model.pth"),
        "best_model.pth holds no weights of a model; it holds epoch",
    ),
    "weights of another program": (
        other_weights,
        "best_model.pth holds another model: its weights are named layer.weight",
    ),
    "half a layout": (two_layouts, "best_model.pth holds another model: it also has spatial_fusion."),
    "weights that are not finite": (infinite_weights, "best_model.pth: its weights hold values that are not finite"),
    "predictions that are not finite": (
        huge_weights,
        "best_model.pth predicts no finite embedding for row ",
    ),
    "no scale of the landmarks": (
        lambda folder: (
            remove("front_metadata.json")(folder),
            torch.save(
                torch.load(folder / "best_model.pth", weights_only=True) | {"args": {}}, folder / "best_model.pth"
            ),
        ),
        "files has no front_metadata.json, and the checkpoint does not record the scale of the landmarks",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_predicted_is_one_line_and_a_hint_and_writes_nothing(folder, data, mistake):
    make, said = MISTAKES[mistake]
    checkpoint(folder, data)
    make(folder)
    answer = predict(folder)
    assert answer.code == 2
    assert answer.out == ""
    error, hint = answer.err.splitlines()
    assert error.startswith(f"error: {said}")
    assert hint.startswith("hint: ")
    assert not list(folder.glob("frontal*"))


def test_an_output_that_exists_is_kept_without_force(folder, data):
    checkpoint(folder, data)
    (folder / "frontal.npy").write_bytes(b"mine")
    (folder / "frontal.json").write_bytes(b"mine")
    answer = predict(folder)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "error: frontal.npy and frontal.json exist already",
        "hint: name another file with -o, or overwrite with --force",
    ]
    assert (folder / "frontal.npy").read_bytes() == b"mine"
    assert predicted(folder, "--force").shape == (ROWS, 16)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("frontal", "error: -o frontal does not end in .npy"),
        ("folder.npy", "error: -o folder.npy cannot be used: folder.npy is a folder"),
        ("nowhere/frontal.npy", "error: -o nowhere/frontal.npy cannot be used: there is no folder nowhere"),
        ("files/video_metadata.npy", "error: -o files/video_metadata.npy would overwrite files/video_metadata.json"),
        ("files/video_feature.npy", "error: -o files/video_feature.npy would overwrite files/video_feature.npy"),
    ],
)
def test_an_output_that_cannot_be_or_is_an_input_is_refused_with_force_too(folder, data, out, said):
    checkpoint(folder, data)
    (folder / "folder.npy").mkdir()
    before = {path: path.read_bytes() for path in (folder / "files").iterdir()}
    answer = predict(folder, "--force", out=out)
    assert answer.code == 2
    assert answer.err.startswith(said)
    assert {path: path.read_bytes() for path in (folder / "files").iterdir()} == before


def test_a_failure_in_the_middle_leaves_the_old_files(folder, data, monkeypatch):
    checkpoint(folder, data)
    before = predicted(folder), (folder / "frontal.json").read_bytes()
    monkeypatch.setattr("face3d_tune.training.prediction_file.EVALUATION_BATCH", 7)
    whole = predictor.Predictor.predict

    def failing(self, src, *others):
        if len(src) < 7:  # the last batch
            raise KeyboardInterrupt
        return whole(self, src, *others)

    monkeypatch.setattr(predictor.Predictor, "predict", failing)
    assert predict(folder, "--force").code == 130
    assert np.array_equal(np.load(folder / "frontal.npy"), before[0])
    assert (folder / "frontal.json").read_bytes() == before[1]
    assert not list(folder.glob("*.partial"))


def test_embeddings_stay_on_the_disk_until_their_rows_are_used(folder, data):
    views = read_views(folder / "files", with_landmarks=True)
    assert isinstance(views.features, np.memmap)
    assert np.array_equal(views.rows(slice(3, 5)), data.video_features[3:5])


# Ensembles and blends


def together(rows, others=(), weight=0.0, simple=None):
    mean = sum([rows, *others]) / (1 + len(others))
    return unit((1 - weight) * mean + weight * simple) if simple is not None else unit(mean)


def test_several_checkpoints_predict_the_mean_of_their_unit_predictions(folder, data):
    paths = checkpoint(folder, data), checkpoint(folder, data, POSE, "other.pth")  # another layout, another unit
    answer = call("predict", *paths, "files", "-o", "frontal.npy", cwd=folder)
    assert answer.code == 0, answer.err
    wanted = together(expected(data), [expected(data, POSE)])
    np.testing.assert_allclose(np.load(folder / "frontal.npy"), wanted, rtol=0, atol=1e-6)
    about = json.loads((folder / "frontal.json").read_text(encoding="utf-8"))
    assert [each["path"] for each in about["checkpoints"]] == [str(path) for path in paths]
    assert [each["model_input"]["pose_unit"] for each in about["checkpoints"]] == ["degrees", "radians"]
    assert {"checkpoint", "model_input", "blend"}.isdisjoint(about)


@pytest.mark.parametrize(("kind", "method"), [("ridge", ridge), ("kernel", kernel_ridge)])
def test_a_blend_takes_a_baseline_fitted_on_training_people_with_the_weight_that_judge_chooses(
    folder, data, kind, method
):
    checkpoint(folder, data)
    checkpoint(folder, data, POSE, "other.pth")
    models, data_dir = ("best_model.pth", "other.pth"), ("--data-dir", data.source)
    judged = call("judge", *models, *data_dir, "--blend", kind, "--json", cwd=folder)
    weight = json.loads(judged.out)["rows"][-1]["weight"]
    answer = call("predict", *models, "files", "-o", "frontal.npy", "--blend", kind, *data_dir, cwd=folder)
    assert answer.code == 0, answer.err
    name = "kernel ridge" if kind == "kernel" else kind
    assert answer.out.startswith(f"blended with {name}, weight {weight:.2f} (as validation people chose)\n")
    of_all = replace(data, parts={"train": data.parts["train"], "test": all_pairs(data)})
    wanted = together(expected(data), [expected(data, POSE)], weight, method.fit(of_all).predict(of_all, "test"))
    np.testing.assert_allclose(np.load(folder / "frontal.npy"), wanted, rtol=0, atol=1e-6)
    held = json.loads((folder / "frontal.json").read_text(encoding="utf-8"))["blend"]
    source = {"source": data.source, "fingerprint": data.fingerprint()}
    assert held == {
        "baseline": name,
        "weight": weight,
        "fitted": {"data": source},
        "weight_chosen": {"data": source, "people": 3},
    }


def all_pairs(data):
    """A pair for each row of the video file, in its order."""
    pairs = np.concatenate([*data.parts.values()])
    return pairs[np.argsort(pairs[:, 1])]


def test_a_given_weight_needs_no_validation_people_of_the_same_data(folder, data, tmp_path):
    checkpoint(folder, data)
    write_data(tmp_path / "elsewhere", seed=1)
    words = ("--blend", "ridge", "--data-dir", "elsewhere")
    refused = predict(folder, *words)
    assert refused.code == 2
    error, hint = refused.err.splitlines()
    assert error.startswith("error: best_model.pth was trained on other data, or another split or limits")
    assert hint == ("hint: give those of its training with --data-dir, --split, --min-yaw and --max-yaw, or a --weight")
    answer = predict(folder, *words, "--weight", "0.5")
    assert answer.out.startswith("blended with ridge, weight 0.50 (as given)\n")
    assert json.loads((folder / "frontal.json").read_text(encoding="utf-8"))["blend"]["weight_chosen"] is None


def test_what_is_odd_in_the_data_of_a_blend_is_a_warning(folder, data):
    checkpoint(folder, data)
    changed(folder, lambda content: content["metadata"][71].update(person_name="nobody"))
    answer = predict(folder, "--blend", "ridge", "--data-dir", "files", "--weight", "0.5")
    assert answer.code == 0, answer.err
    assert "warning: video_metadata.json: metadata: row 71: unknown person: 'nobody'" in answer.err


def test_a_blend_of_the_baseline_alone_says_so(folder, data):
    checkpoint(folder, data)
    answer = predict(folder, "--blend", "ridge", "--data-dir", data.source, "--weight", "1")
    assert answer.err == ("note: this weight leaves the checkpoints no share: the rows are those of ridge alone\n")
    of_all = replace(data, parts={"train": data.parts["train"], "test": all_pairs(data)})
    wanted = unit(ridge.fit(of_all).predict(of_all, "test"))
    np.testing.assert_allclose(np.load(folder / "frontal.npy"), wanted, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, data_folder):
    """The folder of an ensemble of two. Do not change it."""
    made = Members(tmp_path_factory.mktemp("kept"), POSE, seeds_of(1, 2), load(data_folder))
    plan = Plan("plain", (Share(CPU, 1),), "")
    made.train(plan, "off", lambda number, trained: None, lambda job, result: None)
    made.judge(plan, {})
    return made.folder


def test_the_folder_of_an_ensemble_needs_no_training_data_for_a_blend(folder, kept, data):
    both = {}
    for words in ((), ("--data-dir", data.source)):
        answer = call("predict", kept, "files", "-o", "f.npy", "--force", "--blend", "kernel", *words, cwd=folder)
        assert answer.code == 0, answer.err
        both[words] = np.load(folder / "f.npy"), json.loads((folder / "f.json").read_text(encoding="utf-8"))["blend"]
    (stored, about), (fitted, again) = both.values()
    np.testing.assert_allclose(stored, fitted, rtol=0, atol=1e-5)
    assert about["weight"] == again["weight"]
    assert about["weight_chosen"] == again["weight_chosen"]
    assert about["fitted"]["sha256"] == hashlib.sha256((kept / "kernel.npz").read_bytes()).hexdigest()


def test_a_folder_that_changed_since_its_weights_were_chosen_is_refused(folder, kept):
    words = ("-o", "f.npy", "--blend", "ridge")
    for change, said in (
        (
            lambda place: (place / "member-2" / "best_model.pth").unlink(),
            "has other members than its ensemble.json names",
        ),
        (lambda place: shutil.copy(place / "kernel.npz", place / "ridge.npz"), "ridge.npz is not the file that"),
        (lambda place: (place / "ensemble.json").write_text("{}"), "ensemble.json has no 'baselines'"),
        (lambda place: (place / "ensemble.json").write_text("["), "ensemble.json cannot be read: "),
    ):
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(kept, folder / "copy")
        change(folder / "copy")
        answer = call("predict", "copy", "files", *words, cwd=folder)
        assert answer.code == 2
        error, hint = answer.err.splitlines()
        assert said in error
        assert hint.endswith("give the training data with --data-dir")
        assert not (folder / "f.npy").exists()


@pytest.mark.parametrize("words", [("--weight", "0.5"), ("--data-dir", "files"), ("--min-yaw", "3")])
def test_what_belongs_to_a_blend_is_refused_without_one(folder, data, words):
    checkpoint(folder, data)
    answer = predict(folder, *words)
    assert answer.code == 2
    assert f"{words[0]} goes with --blend only" in answer.err
