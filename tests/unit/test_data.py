"""Pairs, yaw limits, the split by person, landmarks and the fingerprint; and the bundled sample."""

import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_data import NAMES, write_data

from face3d_tune.data.face_data import SAMPLE_NAME, inspect, load, yaw_band
from face3d_tune.data.pairs import PARTS, fold_people, split_people
from face3d_tune.data.yaw_bands import YAW_BANDS
from face3d_tune.errors import ConfigError, DataError


def edit(folder: Path, side: str, **changes: Any) -> None:
    """Replace keys of a metadata file; None removes one."""
    file = folder / f"{side}_metadata.json"
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")


def read(folder: Path, side: str, key: str) -> Any:
    return json.loads((folder / f"{side}_metadata.json").read_text(encoding="utf-8"))[key]


def write_rows(folder: Path, front: str, video: str, yaw: list[float]) -> Path:
    """Files with one front row per letter of `front`, one video row per letter of `video`."""
    random = np.random.default_rng(1)
    write_data(folder)
    for side, letters in (("front", front), ("video", video)):
        rows = len(letters)
        np.save(folder / f"{side}_feature.npy", random.normal(size=(rows, 4)))
        np.save(folder / f"{side}_keypoints.npy", random.normal(size=(rows, 5, 3)))
        angles = yaw if side == "video" else [0.0] * rows
        edit(
            folder,
            side,
            metadata=[{"person_name": letter} for letter in letters],
            poses=[[angle, 10, 20] for angle in angles],
            landmarks_3d_original=random.normal(size=(rows, 5, 3)).tolist(),
        )
    return folder


def test_every_front_row_is_paired_with_every_view_of_the_person_in_file_order(tmp_path: Path) -> None:
    data = load(write_rows(tmp_path, "abac", "cabba", [5, 10, 15, 20, 25]), split="none")
    assert data.parts["train"].tolist() == [[0, 1], [0, 4], [1, 2], [1, 3], [2, 1], [2, 4], [3, 0]]
    assert data.parts["train"].dtype == np.int64


def test_yaw_limits_keep_views_on_both_sides_and_on_the_limits(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, "a", "aaaaaa", [-30, -29.9, 0, 30, 45, 45.1])
    data = load(folder, split="none", min_yaw=30, max_yaw=45)
    assert data.parts["train"][:, 1].tolist() == [0, 3, 4]
    assert load(folder, split="none", min_yaw=30).parts["train"][:, 1].tolist() == [0, 3, 4, 5]


def test_yaw_limits_act_on_degrees_when_the_file_holds_radians(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, "a", "aaa", [math.radians(30), math.radians(31), -math.radians(30)])
    for side in ("front", "video"):
        edit(folder, side, pose_unit="radians")
    data = load(folder, split="none", max_yaw=30)
    assert data.parts["train"][:, 1].tolist() == [0, 2]
    assert data.poses[:, 0].tolist() == [30, 31, -30]


def test_limits_that_leave_no_view_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"video_metadata.json: poses: no view is left with \|yaw\| from 76 to 80 deg"):
        load(write_data(tmp_path), min_yaw=76, max_yaw=80)


def test_the_split_shuffles_with_seed_42_and_cuts_at_60_and_90_percent() -> None:
    # What Python's random.Random(42).shuffle makes of range(10), and of range(4).
    assert split_people(list("abcdefghij")) == {
        "train": tuple("hdcifg"),
        "validation": tuple("jea"),
        "test": tuple("b"),
    }
    assert split_people(list("abcd")) == {"train": ("c", "b"), "validation": ("d",), "test": ("a",)}


@pytest.mark.parametrize(("people", "sizes"), [(36, (21, 10, 5)), (160, (96, 48, 16)), (5, (3, 1, 1)), (7, (4, 2, 1))])
def test_shares_are_truncated_and_the_rest_is_test(people: int, sizes: tuple[int, ...]) -> None:
    split = split_people([str(person) for person in range(people)])
    assert tuple(len(split[part]) for part in PARTS) == sizes


def test_no_person_is_in_two_parts_and_pairs_follow_their_person(tmp_path: Path) -> None:
    data = load(write_data(tmp_path))
    names = [item["person_name"] for item in read(tmp_path, "front", "metadata")]
    members = [name for part in PARTS for name in data.people[part]]
    assert sorted(members) == sorted(names)
    assert set(NAMES) < set(members)
    for part in PARTS:
        assert {names[row] for row in data.parts[part][:, 0]} == set(data.people[part])
        assert len(data.parts[part]) == 6 * len(data.people[part])
        assert data.parts[part].tolist() == sorted(data.parts[part].tolist())


def test_people_without_pairs_do_not_take_part_in_the_shuffle(tmp_path: Path) -> None:
    # b has no view at all and e none within the limits: the split is that of the ten others.
    data = load(write_rows(tmp_path, "abcdefghijkl", "acdefghijkl", [0, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0]), max_yaw=50)
    assert data.people == split_people(list("acdfghijkl"))
    assert data.people["train"] == tuple("jfdkhi")  # places 7, 3, 2, 8, 5, 6 of those ten


def test_split_none_validates_on_the_training_pairs_and_says_so(tmp_path: Path) -> None:
    data = load(write_data(tmp_path, people=2), split="none")
    assert data.parts["train"].tolist() == data.parts["validation"].tolist()
    assert (len(data.parts["train"]), len(data.parts["test"]), data.people["test"]) == (12, 0, ())
    assert math.isnan(data.no_model_cosine("test"))
    assert "say nothing about people never seen" in data.warnings[-1]
    assert load(None).warnings == ()


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="split = 'picture' is unknown; expected one of person, none"):
        load(None, split="picture")  # type: ignore[arg-type]


def test_landmarks_are_centred_by_row_and_scaled_by_the_front_file(tmp_path: Path) -> None:
    write_data(tmp_path)
    points = read(tmp_path, "video", "landmarks_3d_original")[7]
    expected = [
        [0.25 * (value - sum(point[axis] for point in points) / 5) for axis, value in enumerate(point)]
        for point in points
    ]
    data = load(tmp_path)
    np.testing.assert_allclose(data.landmarks[7], expected, atol=1e-6)
    assert data.landmark_source == "landmarks_3d_original, centred, times 0.25"
    edit(tmp_path, "front", standard_info=None)
    unscaled = load(tmp_path)
    np.testing.assert_allclose(unscaled.landmarks[7], 4 * np.array(expected), atol=1e-6)
    assert unscaled.landmark_source == "landmarks_3d_original, centred, times 1 (no standard_scale)"
    edit(tmp_path, "front", standard_info={"standard_center": [0, 0, 0]})
    assert load(tmp_path).landmark_source == unscaled.landmark_source


@pytest.mark.parametrize(
    ("gaps", "why"),
    [
        (None, "missing)"),
        ([3], "missing from 1 of 72 rows)"),
        ([0, 70], "missing from 2 of 72 rows)"),
        (range(72), "72 of 72 rows)"),
    ],
)
def test_one_row_without_landmarks_makes_all_rows_use_the_keypoints(
    tmp_path: Path, gaps: Sequence[int] | None, why: str
) -> None:
    write_data(tmp_path)
    landmarks = read(tmp_path, "video", "landmarks_3d_original")
    for row in gaps or []:
        landmarks[row] = None if row else []
    edit(tmp_path, "video", landmarks_3d_original=None if gaps is None else landmarks)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.landmarks, np.load(tmp_path / "video_keypoints.npy"))
    assert data.landmark_source.startswith("video_keypoints.npy (landmarks_3d_original is missing")
    assert data.landmark_source.endswith(why)
    assert data.warnings == ()


def test_the_fingerprint_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    first, second = load(write_data(tmp_path / "a")), load(write_data(tmp_path / "b"))
    assert first.source != second.source
    assert first.fingerprint() == second.fingerprint()
    assert len(first.fingerprint()) == 16
    int(first.fingerprint(), 16)


def test_the_fingerprint_changes_with_everything_that_a_training_sees(tmp_path: Path) -> None:
    def changed(name: str, **changes: Any) -> str:
        folder = write_data(tmp_path / name)
        for side, content in changes.items():
            edit(folder, side, **content(folder))
        return load(folder).fingerprint()

    folder = write_data(tmp_path / "original")
    nudged = write_data(tmp_path / "nudged")
    features = np.load(nudged / "video_feature.npy")
    features[-1, -1] = np.nextafter(features[-1, -1], np.float32(1))
    np.save(nudged / "video_feature.npy", features)
    poses = read(folder, "video", "poses")
    renamed = {
        side: [{"person_name": item["person_name"].replace("伟", "玮")} for item in read(folder, side, "metadata")]
        for side in ("front", "video")
    }
    prints = [
        load(folder).fingerprint(),
        load(folder, split="none").fingerprint(),
        load(folder, max_yaw=80).fingerprint(),
        load(folder, max_yaw=20).fingerprint(),
        load(nudged).fingerprint(),
        changed("pose", video=lambda _: {"poses": [*poses[:-1], [poses[-1][0], poses[-1][1] + 1e-9, 0.0]]}),
        changed("scale", front=lambda _: {"standard_info": {"standard_scale": 0.26}}),
        changed(
            "names", front=lambda _: {"metadata": renamed["front"]}, video=lambda _: {"metadata": renamed["video"]}
        ),
    ]
    assert len(set(prints)) == len(prints)
    assert changed("unread", front=lambda _: {"note": "not read by anything"}) == prints[0]
    assert load(folder, min_yaw=0, max_yaw=80).fingerprint() == load(folder, min_yaw=0.0, max_yaw=80.0).fingerprint()


def test_the_no_model_cosine_is_the_mean_over_pairs_of_any_length(tmp_path: Path) -> None:
    write_rows(tmp_path, "ab", "aab", [0, 0, 0])
    np.save(tmp_path / "front_feature.npy", np.array([[2.0, 0], [0, 5]]))
    np.save(tmp_path / "video_feature.npy", np.array([[3.0, 0], [3, 4], [-7, 0]]))
    data = load(tmp_path, split="none")
    np.testing.assert_allclose(data.no_model_cosines("train"), [1, 0.6, 0], atol=1e-7)
    assert data.no_model_cosine("train") == pytest.approx(1.6 / 3, abs=1e-7)


def test_yaw_bands_are_closed_below_and_open_above() -> None:
    yaw = [0, 14.999, -14.999, 15, -15, 44.999, 45, -45, 90, 170]
    bands = yaw_band(np.array(yaw))
    assert bands.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert bands.dtype == np.int64
    assert list(YAW_BANDS) == ["0-15", "15-45", "45-90"]


def test_the_sample_has_the_documented_split_and_cosines() -> None:
    data = load(None)
    assert data.source == SAMPLE_NAME
    assert [len(data.people[part]) for part in PARTS] == [96, 48, 16]
    assert [len(data.parts[part]) for part in PARTS] == [1920, 960, 320]
    assert data.no_model_cosine("validation") == pytest.approx(0.555, abs=0.0005)
    assert data.no_model_cosine("test") == pytest.approx(0.579, abs=0.0005)
    cosines, bands = data.no_model_cosines("validation"), yaw_band(data.poses[:, 0])[data.parts["validation"][:, 1]]
    assert [cosines[bands == band].mean() for band in range(3)] == pytest.approx([0.79, 0.65, 0.36], abs=0.005)
    assert (data.feature_size, data.file_pose_unit, data.pose_unit_recorded) == (128, "degrees", False)
    assert data.landmarks.shape == (3200, 5, 3)
    assert data.poses.dtype == np.float64


def test_the_sample_pairs_each_view_with_its_own_person() -> None:
    """Different people have a cosine of about 0, so shifting the pairs by one person must lose it."""
    data = load(None)
    front, video = data.parts["validation"].T
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (data.front_features, data.video_features)]
    assert abs((unit[0][np.roll(front, 20)] * unit[1][video]).sum(axis=1).mean()) < 0.05


def test_data_survive_the_way_to_another_process(tmp_path: Path) -> None:
    data = load(write_data(tmp_path))
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()


def test_an_inspection_holds_the_data_or_the_errors(tmp_path: Path) -> None:
    write_data(tmp_path)
    found = inspect(tmp_path)
    assert found.data is not None
    assert found.data.fingerprint() == load(tmp_path).fingerprint()
    assert (found.errors, found.source) == ((), str(tmp_path))
    (tmp_path / "front_keypoints.npy").unlink()
    broken = inspect(tmp_path)
    assert broken.data is None
    assert [problem.file for problem in broken.errors] == ["front_keypoints.npy"]


# Folds of people


def test_of_three_folds_the_first_is_the_ordinary_split(tmp_path: Path) -> None:
    for data in (load(write_data(tmp_path / "twelve", people=12)), load(None)):
        first = data.fold(1, of=3)
        assert first.people == data.people
        assert all(np.array_equal(first.parts[part], data.parts[part]) for part in PARTS)
        assert first.fingerprint() == data.fingerprint() != data.fold(2, of=3).fingerprint()


@pytest.mark.parametrize("people", range(4, 200))
def test_that_holds_for_any_number_of_people(people: int) -> None:
    split = split_people([str(person) for person in range(people)])
    assert fold_people(split, "person", 1, 3) == split


def test_over_all_folds_everybody_but_the_test_people_validates_once(tmp_path: Path) -> None:
    data = load(write_data(tmp_path / "data", people=20))  # 12 train, 6 validate, 2 test
    order = data.people["train"] + data.people["validation"]
    for of, sizes in ((2, (9, 9)), (4, (4, 4, 5, 5)), (5, (3, 3, 4, 4, 4)), (18, (1,) * 18)):
        folds = data.folds(of)
        assert tuple(len(fold.people["validation"]) for fold in folds) == sizes
        assert sum((fold.people["validation"] for fold in reversed(folds)), ()) == order  # blocks from the last one on
        for fold in folds:
            assert fold.people["test"] == data.people["test"]
            assert sorted(fold.people["train"] + fold.people["validation"]) == sorted(order)
            assert np.array_equal(fold.parts["test"], data.parts["test"])


def test_the_pairs_of_a_fold_follow_their_people_in_file_order(tmp_path: Path) -> None:
    data = load(write_data(tmp_path / "data", people=20, views=3))
    for fold in data.folds(4):
        for part in PARTS:
            pairs = fold.parts[part]
            assert {data.front_names[row] for row in pairs[:, 0]} == set(fold.people[part])
            assert pairs.tolist() == sorted(pairs.tolist())
        assert sum(map(len, fold.parts.values())) == 60


def test_the_only_fold_of_one_is_the_data_themselves(tmp_path: Path) -> None:
    for split in ("person", "none"):
        data = load(write_data(tmp_path / split), split=split)
        assert data.fold(1, of=1) is data


@pytest.mark.parametrize(
    ("split", "of", "said", "hint"),
    [
        ("none", 3, "3 folds need split = person; with split = none everyone", "omit --folds or --split"),
        ("person", 11, "11 folds need 11 people who do not test; here are 10", "--folds 10 at most"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path: Path, split: str, of: int, said: str, hint: str) -> None:
    data = load(write_data(tmp_path / "data", people=12), split=split)
    with pytest.raises(ConfigError) as refused:
        data.fold(1, of=of)
    assert refused.value.message.startswith(said)
    assert refused.value.hint == hint
