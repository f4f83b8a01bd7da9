"""The script of an exported folder: numpy and torch alone, and the numbers of our own models."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import unit, write_data
from reference_model import STRUCTURES, ReferenceModel

from face3d_tune.config import TrialConfig
from face3d_tune.data.convert import convert
from face3d_tune.data.views import read_views
from face3d_tune.refit.inference import predict as script
from face3d_tune.training import kernel_ridge, ridge
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.model import Model

SOURCE = Path(script.__file__)
CONFIG = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=2)
SIZES = [{"nhead": 1, "num_layers": 1}, {"nhead": 4, "num_layers": 3}]


def model(seed=0, config=CONFIG, feature_size=16):
    """A model whose every number counts, biases and statistics included."""
    made = Model(config, feature_size, torch.Generator().manual_seed(seed))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point():
                value += 0.2 * torch.rand(value.shape, generator=random)  # a variance stays positive
    return made.eval()


def views(rows, feature_size=16):
    random = np.random.default_rng(1)
    embeddings = unit(random.normal(size=(rows, feature_size))).astype(np.float32)
    return embeddings, random.normal(size=(rows, 5, 3)).astype(np.float32), random.uniform(-75, 75, (rows, 3))


def write_folder(
    folder, *members, unit="degrees", needs_landmarks=True, landmark_scale=0.25, inputs=None, script=SOURCE, **about
):
    """A folder as `export --inference` writes it."""
    folder.mkdir()
    content = {"feature_size": 16, "needs_landmarks": needs_landmarks, "landmark_scale": landmark_scale}
    content |= {"members": [], "blend": None, **about}
    for number, each in enumerate(members, 1):
        held = {"model_state_dict": each.state_dict()} | ({"baseline": inputs} if inputs else {})
        torch.save(held, path := folder / f"member-{number}.pth")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        content["members"].append({"file": path.name, "sha256": sha256, "pose_unit": unit})
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "predict.py").write_bytes(script.read_bytes())
    return folder


def expected(made, embeddings, landmarks, poses):
    """The prediction of our model, at unit length."""
    given = (torch.from_numpy(np.asarray(each, np.float32)) for each in (embeddings, landmarks, poses))
    with torch.no_grad():
        return unit(made(*given).double().numpy())


@pytest.mark.parametrize("pose_unit", ["degrees", "radians"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_a_member_predicts_what_our_model_predicts(tmp_path, structure, sizes, pose_unit):
    made = model(config=replace(CONFIG, pose_unit=pose_unit, **structure, **sizes))
    embeddings, landmarks, degrees = views(9)
    predictor = script.Predictor(write_folder(tmp_path / "out", made, unit=pose_unit))
    poses = degrees if pose_unit == "degrees" else np.deg2rad(degrees)
    rows = predictor.predict(embeddings, landmarks, degrees)
    np.testing.assert_allclose(rows, expected(made, embeddings, landmarks, poses), rtol=0, atol=1e-6)
    assert rows.dtype == np.float32


@pytest.mark.parametrize("name", ["input_projection.bias", "keypoint_encoder.1.running_mean", "fusion_weights"])
def test_another_weight_would_be_noticed(name):
    made = model()
    embeddings, landmarks, degrees = views(9)
    given = [torch.from_numpy(np.asarray(each, np.float32)) for each in (embeddings, landmarks, degrees)]
    weights = made.state_dict()
    changed = {**weights, name: weights[name] + 0.1 * torch.arange(len(weights[name]))}
    difference = (script.member(changed, *given) - script.member(weights, *given)).abs().max()
    assert difference > 1e-4


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_a_checkpoint_of_the_users_own_model_predicts_what_that_model_predicts(tmp_path, structure):
    torch.manual_seed(3)
    theirs = ReferenceModel(
        feature_size=16, d_model=16, nhead=4, num_layers=2, dim_feedforward=32, dropout=0.1, **structure
    ).eval()
    embeddings, landmarks, degrees = views(9)
    rows = script.Predictor(write_folder(tmp_path / "out", theirs)).predict(embeddings, landmarks, degrees)
    np.testing.assert_allclose(rows, expected(theirs, embeddings, landmarks, degrees), rtol=0, atol=1e-6)


@pytest.mark.parametrize("fit", [ridge.fit, kernel_ridge.fit], ids=["ridge", "kernel"])
def test_a_member_gets_the_output_of_the_baseline_in_its_checkpoint(tmp_path, data, fit):
    baseline, made = Baseline(fit(data)), model()
    held = {name: torch.from_numpy(each) if each.ndim else each.item() for name, each in baseline.arrays().items()}
    embeddings, landmarks, degrees = views(9)
    source = baseline.predict(embeddings, landmarks, degrees)
    rows = script.Predictor(write_folder(tmp_path / "out", made, inputs=held)).predict(embeddings, landmarks, degrees)
    np.testing.assert_allclose(rows, expected(made, source, landmarks, degrees), rtol=0, atol=2e-6)
    assert not np.allclose(rows, expected(made, embeddings, landmarks, degrees), atol=1e-3)


def test_members_are_averaged_as_unit_vectors(tmp_path):
    members = [model(seed) for seed in range(3)]
    embeddings, landmarks, degrees = views(5)
    rows = script.Predictor(write_folder(tmp_path / "out", *members)).predict(embeddings, landmarks, degrees)
    mean = sum(expected(each, embeddings, landmarks, degrees) for each in members)
    np.testing.assert_allclose(rows, unit(mean), rtol=0, atol=1e-6)


def test_more_rows_than_a_batch_come_out_as_the_same_numbers(tmp_path, monkeypatch):
    predictor = script.Predictor(write_folder(tmp_path / "out", model()))
    given = views(23)
    whole = predictor.predict(*given)
    monkeypatch.setattr(script, "ROWS", 4)
    np.testing.assert_allclose(predictor.predict(*given), whole, rtol=0, atol=1e-6)


def test_embeddings_given_are_not_changed(tmp_path):
    embeddings, landmarks, degrees = views(4)
    before = embeddings.copy()
    script.Predictor(write_folder(tmp_path / "out", model())).predict(embeddings, landmarks, degrees)
    assert np.array_equal(embeddings, before)


# The command line, in this process.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with `files` and an exported folder `out`."""
    write_data(tmp_path / "files")
    write_folder(tmp_path / "out", model())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "HERE", tmp_path / "out")
    monkeypatch.setattr(script.Predictor.__init__, "__defaults__", (tmp_path / "out", "cpu"))
    return tmp_path


def run(monkeypatch, capsys, *words):
    """The exit status and what the script printed."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
    try:
        script.main()
    except SystemExit as ending:
        return ending.code, capsys.readouterr()
    return 0, capsys.readouterr()


def rewritten(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def of_the_package(folder):
    """What the package reads of the data: embeddings, landmarks and poses, and the prediction from them."""
    read = read_views(folder / "files", with_landmarks=True)
    return expected(model(), read.rows(slice(None)), read.landmarks, read.poses)


def test_a_data_folder_becomes_a_row_for_each_row_of_its_video_file(folder, monkeypatch, capsys):
    assert run(monkeypatch, capsys, "files", "-o", "frontal.npy") == (
        0,
        ("wrote frontal.npy: 72 rows of 16 numbers, each row of length 1\n", ""),
    )
    rows = np.load("frontal.npy")
    assert (rows.dtype, rows.shape) == (np.float32, (72, 16))
    np.testing.assert_allclose(rows, of_the_package(folder), rtol=0, atol=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == ["files", "frontal.npy", "out"]


def test_poses_recorded_in_radians_are_the_same_poses(folder, monkeypatch, capsys):
    whole = of_the_package(folder)
    convert(folder / "files", folder / "copy", unit="radians")
    assert run(monkeypatch, capsys, "copy", "-o", "frontal.npy")[0] == 0
    np.testing.assert_allclose(np.load("frontal.npy"), whole, rtol=0, atol=1e-6)


def test_without_a_front_file_landmarks_have_the_scale_of_the_training(folder, monkeypatch, capsys):
    whole = of_the_package(folder)
    for path in (folder / "files").glob("front_*"):
        path.unlink()
    assert run(monkeypatch, capsys, "files", "-o", "frontal.npy")[0] == 0  # 0.25, as in the front file
    np.testing.assert_allclose(np.load("frontal.npy"), whole, rtol=0, atol=1e-6)


def test_a_row_without_its_own_landmarks_makes_all_rows_read_the_keypoints(folder, monkeypatch, capsys):
    rewritten(folder / "files/video_metadata.json", lambda it: it["landmarks_3d_original"].__setitem__(3, None))
    assert run(monkeypatch, capsys, "files", "-o", "frontal.npy")[0] == 0
    np.testing.assert_allclose(np.load("frontal.npy"), of_the_package(folder), rtol=0, atol=1e-6)


def test_a_folder_of_the_pose_layout_reads_no_landmarks(tmp_path, folder, monkeypatch, capsys):
    pose = write_folder(tmp_path / "pose", model(config=replace(CONFIG, layout="pose")), needs_landmarks=False)
    monkeypatch.setattr(script.Predictor.__init__, "__defaults__", (pose, "cpu"))
    rewritten(folder / "files/video_metadata.json", lambda it: it.pop("landmarks_3d_original"))
    (folder / "files/video_keypoints.npy").unlink()
    assert run(monkeypatch, capsys, "files", "-o", "frontal.npy")[0] == 0


def spoiled(file, change):
    """Change an array of the data folder."""

    def spoil(folder):
        path = folder / "files" / file
        np.save(path, change(np.load(path)))

    return spoil


def said(change):
    return lambda folder: rewritten(folder / "files/video_metadata.json", change)


def row_of(number, value):
    def change(array):
        array[number] = value
        return array

    return change


DAMAGED = [
    (
        lambda folder: (folder / "files/video_feature.npy").unlink(),
        "video_feature.npy cannot be used: No such file",
    ),
    (lambda folder: (folder / "files/video_feature.npy").write_bytes(b"no"), "holds no array of numbers; write it ag"),
    (
        spoiled("video_feature.npy", lambda array: array[:, :8]),
        "has rows of float32 (8,), expected floating-point (16,)",
    ),
    (spoiled("video_feature.npy", row_of(5, np.nan)), "row 5: no direction can be predicted; check its numbers"),
    (spoiled("video_feature.npy", row_of(70, 0)), "row 70: no direction can be predicted; check its numbers"),
    (lambda folder: (folder / "files/video_metadata.json").write_text("{"), "video_metadata.json holds no JSON object"),
    (said(lambda it: it.pop("poses")), "poses: expected 3 finite numbers in every row; correct them"),
    (said(lambda it: it["poses"].pop()), "71 poses for 72 embeddings; give one for each"),
    (said(lambda it: it["poses"].__setitem__(2, [1, 2])), "poses: expected 3 finite numbers in every row"),
    (said(lambda it: it["poses"].__setitem__(2, [1, 2, "a"])), "poses: expected 3 finite numbers in every row"),
    (said(lambda it: it.update(poses=(np.array(it["poses"]) / 57.3).tolist())), 'look like radians; add "pose_unit"'),
    (said(lambda it: it["landmarks_3d_original"].__setitem__(1, [[0, 0, 0]])), "landmarks_3d_original: expected 5 x 3"),
    (lambda folder: (folder / "out/member-1.pth").write_bytes(b"no"), "member-1.pth is damaged; copy or export the fo"),
    (
        lambda folder: (folder / "out/config.json").unlink(),
        "config.json cannot be used: No such file or directory",
    ),
    (lambda folder: (folder / "frontal.npy").touch(), "frontal.npy exists already; name another file with -o, or over"),
]


@pytest.mark.parametrize(("spoil", "message"), DAMAGED, ids=[message for _, message in DAMAGED])
def test_what_cannot_be_used_is_one_line_that_says_what_to_do(folder, monkeypatch, capsys, spoil, message):
    spoil(folder)
    code, printed = run(monkeypatch, capsys, "files", "-o", "frontal.npy")
    assert code == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (folder / "frontal.npy.partial").exists()


def test_a_device_that_is_not_there_is_one_line(folder, monkeypatch, capsys):
    code, printed = run(monkeypatch, capsys, "files", "-o", "frontal.npy", "--device", "teapot")
    assert code == 2
    (line,) = printed.err.splitlines()
    assert line.startswith("error: --device teapot cannot be used (")
    assert line.endswith("; try --device cpu")


def test_a_missing_scale_is_named_if_neither_the_data_nor_the_training_has_one(tmp_path, folder, monkeypatch, capsys):
    unscaled = write_folder(tmp_path / "unscaled", model(), landmark_scale=None)
    monkeypatch.setattr(script.Predictor.__init__, "__defaults__", (unscaled, "cpu"))
    assert run(monkeypatch, capsys, "files", "-o", "frontal.npy")[0] == 0
    (folder / "files/front_metadata.json").unlink()
    code, printed = run(monkeypatch, capsys, "files", "-o", "frontal.npy", "--force")
    assert (code, printed.out) == (2, "")
    assert "front_metadata.json is missing; add it: its standard_scale" in printed.err


# Alone: a Python that finds no other package than numpy and torch, with what torch requires.

ALONE = """
import runpy, sys

allowed = set(sys.argv[2].split(",")) | set(sys.stdlib_module_names)

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is refused")

sys.meta_path.insert(0, Refusal())
sys.path += sys.argv[3].split(",")
for other in ("face3d_tune", "click", "optuna", "rich"):
    try:
        __import__(other)
    except ModuleNotFoundError as error:
        assert "refused" in str(error)
    else:
        raise SystemExit(f"{other} was found")
sys.argv = sys.argv[1:2] + sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def required(name):
    """A distribution's name and those of all that it requires, as pip installs it."""
    found, waiting = set(), [name]
    while waiting:
        each = waiting.pop().lower().replace("_", "-")
        try:
            requires = importlib.metadata.requires(each) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        if each not in found:
            found.add(each)
            plain = [line for line in requires if "extra ==" not in line]
            waiting += [line.split(";")[0].split("[")[0].rstrip("<>=!~.0123456789, ()") for line in plain]
    return found


def alone(folder, *words):
    """Run the script of an exported folder by such a Python."""
    distributions = required("numpy") | required("torch")
    modules = {
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if distributions & {name.lower().replace("_", "-") for name in names}
    }
    paths = dict.fromkeys(str(Path(package.__file__).parent.parent) for package in (np, torch))
    given = [folder / "predict.py", ",".join(modules), ",".join(paths), *words]
    command = [sys.executable, "-I", "-S", "-c", ALONE, *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_numpy_and_torch_are_enough(folder):
    answer = alone(folder / "out", "files", "-o", "frontal.npy")
    assert answer.returncode == 0, answer.stderr
    np.testing.assert_allclose(np.load("frontal.npy"), of_the_package(folder), rtol=0, atol=1e-6)


def test_a_script_that_needs_more_would_be_noticed(folder):
    path = folder / "out" / "predict.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace("import numpy as np\n", "import click\nimport numpy as np\n")
    )
    answer = alone(folder / "out", "files", "-o", "frontal.npy")
    assert answer.returncode == 1
    assert "click is refused" in answer.stderr
