"""A baseline's file predicts what the baseline predicts, and says in one line why it cannot be used."""

import io

import numpy as np
import pytest
from fake_data import write_data

from face3d_tune.data import face_data
from face3d_tune.data.face_data import load
from face3d_tune.errors import CheckpointError
from face3d_tune.training import baseline_file, kernel_ridge, ridge
from face3d_tune.training.baseline_file import Baseline
from face3d_tune.training.head_frames import ALIGNED, AS_THEY_ARE, TURNED_BACK
from face3d_tune.training.kernel_ridge import NO_LANDMARKS, Hyperparameters

CHOICES = [Hyperparameters(name, 0.5, 3.0) for name in (NO_LANDMARKS, AS_THEY_ARE, TURNED_BACK, ALIGNED)]


def fits():
    yield pytest.param(lambda data: ridge.fit(data, 10.0), id="ridge")
    for choice in CHOICES:
        yield pytest.param(lambda data, choice=choice: kernel_ridge.fit(data, choice), id=f"kernel, {choice.landmarks}")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp("small") / "files", people=10, views=3, feature_size=6)
    return load(folder, turn_angle="second")


def validation(data):
    rows = data.parts["validation"][:, 1]
    return data.video_features[rows], data.landmarks[rows], data.poses[rows]


@pytest.mark.parametrize("fit", [*fits()])
def test_a_file_predicts_what_was_fitted(small, fit, tmp_path):
    fitted = fit(small)
    baseline_file.save(tmp_path / "baseline.npz", fitted)
    loaded = baseline_file.load(tmp_path / "baseline.npz")
    found = loaded.predict(*validation(small))
    np.testing.assert_allclose(found, fitted.predict(small, "validation"), rtol=0, atol=baseline_file.LOSS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    assert loaded.kind == Baseline(fitted).kind == ("ridge" if isinstance(fitted, ridge.Ridge) else "kernel")
    assert loaded.feature_size == 6


def test_only_a_kernel_of_landmarks_needs_them(small):
    views, _, poses = validation(small)
    for fitted in (ridge.fit(small, 10.0), *(kernel_ridge.fit(small, choice) for choice in CHOICES)):
        baseline = Baseline(fitted)
        if baseline.needs_landmarks:
            assert fitted.choice.landmarks != NO_LANDMARKS
        else:
            np.testing.assert_array_equal(baseline.predict(views, None, poses), baseline.predict(*validation(small)))


def test_on_the_sample_float32_is_enough_and_the_file_small(tmp_path):
    """Both files hold their tables in half the bytes, and no number moves by a millionth."""
    sample = face_data.load(None)
    for fitted, least in ((ridge.fit(sample, 10.0), 4 * 6 * 128 * 128), (kernel_ridge.fit(sample, CHOICES[2]), 10**6)):
        path = tmp_path / "baseline.npz"
        baseline_file.save(path, fitted)
        assert least < path.stat().st_size < 2_400_000
        with np.load(path) as content:
            assert content["weights"].dtype == np.float32
        moved = baseline_file.load(path).predict(*validation(sample)) - fitted.predict(sample, "validation")
        assert 0 < np.abs(moved).max() < 1e-6


def test_what_float32_would_spoil_stays_in_float64(small):
    """Two columns of weights of 1e9 that cancel leave a number of which float32 keeps nothing."""
    fitted = ridge.fit(small, 10.0)
    huge = ridge.Ridge(10.0, fitted.weights * 1e9, fitted.turn_column)
    assert Baseline(huge).arrays()["weights"].dtype == np.float64


def damaged(content):
    def without(name):
        return {key: value for key, value in content.items() if key != name}

    yield "format", content | {"format": np.asarray("a later one")}, "expected 'face3d-tune baseline 1'"
    yield "kind", content | {"kind": np.asarray("tree")}, "its kind is 'tree'"
    yield "no format", without("format"), "it has no 'format"
    yield "no weights", without("weights"), "it has no 'weights"
    yield "shape", content | {"weights": content["weights"][1:]}, "does not fit"
    yield "words", content | {"gamma": np.asarray("half")}, "gamma does not fit"
    yield "not finite", content | {"mean": content["mean"] * np.nan}, "mean holds values that are not finite"
    yield "turns", content | {"turns": content["turns"] + 5}, "are no turns"
    yield "objects", content | {"weights": np.asarray([{}], dtype=object)}, "allow_pickle=False"
    yield "landmarks", content | {"landmarks": np.asarray("mirrored")}, "this version does not know"


def test_a_damaged_or_foreign_file_is_answered_with_one_line(small, tmp_path):
    path = tmp_path / "baseline.npz"
    for name, arrays, said in damaged(Baseline(kernel_ridge.fit(small, CHOICES[2])).arrays()):
        np.savez(path, **arrays)
        with pytest.raises(CheckpointError, match=said) as caught:
            baseline_file.load(path)
        assert caught.value.message.startswith(f"{path} holds no baseline: "), name
        assert "\n" not in caught.value.message, name
        assert "data convert --inputs" in caught.value.hint


def test_neither_half_a_file_nor_a_flipped_byte_nor_another_file_is_a_baseline(small, tmp_path):
    path = tmp_path / "baseline.npz"
    baseline_file.save(path, ridge.fit(small, 10.0))
    whole = path.read_bytes()
    one = io.BytesIO()
    np.save(one, np.zeros(3))
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (whole[:middle], flipped, one.getvalue(), b"", b"\x80\x04not a pickle either"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="holds no baseline: ") as caught:
            baseline_file.load(path)
        assert "\n" not in caught.value.message
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        baseline_file.load(path)
