"""What `data check` and `run` warn of in files without errors: odd poses, equal embeddings, a turn in another angle."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from fake_data import write_data

from face3d_tune.data.doubts import narrowest_arc
from face3d_tune.data.face_data import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 people with 6 views each, whose first angle goes from -75 to 75."""
    return write_data(tmp_path / "files")


def write_poses(folder: Path, poses: np.ndarray, unit: str | None = None) -> Path:
    for side in ("front", "video"):
        file = folder / f"{side}_metadata.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        content |= {"pose_unit": unit} if unit else {}
        content |= {"poses": poses.tolist()} if side == "video" else {}
        file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def owners(views: int = 72) -> np.ndarray:
    """Poses as the owners' extraction writes them: in-plane tilt, head turn, and tilt about ±180."""
    random = np.random.default_rng(3)
    tilt = random.uniform(170, 180, views) * np.where(np.arange(views) % 2, 1, -1)
    return np.column_stack((random.uniform(-10, 7, views), np.linspace(-61, 60, views), tilt))


def test_the_sample_and_the_usual_files_give_no_doubt(folder: Path) -> None:
    assert load(None).warnings == load(folder).warnings == ()


@pytest.mark.parametrize(("file", "row"), [("video_keypoints.npy", 7), ("front_feature.npy", 3)])
def test_a_row_of_huge_numbers_is_named(folder: Path, file: str, row: int) -> None:
    array = np.load(folder / file)
    array *= 2 / np.abs(array).reshape(len(array), -1).max(axis=1).reshape(-1, *[1] * (array.ndim - 1))
    array[row] *= 1000  # 2000, which is no more than a thousand times the usual 2
    np.save(folder / file, array)
    assert load(folder).warnings == ()
    array[row] *= 1.5
    np.save(folder / file, array)
    rows = len(array)
    assert load(folder).warnings == (
        f"{file}: row {row}: numbers up to 3e+03 in 1 of {rows} rows, where 2 is usual; expected rows of one scale",
    )


def test_poses_of_the_owners_kind_are_doubted_in_two_ways_and_used(folder: Path) -> None:
    data = load(write_poses(folder, owners()))
    wide, turn = data.warnings
    assert wide == (
        "video_metadata.json: poses: rows 0, 1, 2, 3, 4 and 67 more rows: third angle beyond ±90 degrees in 72 of 72 "
        "views, near ±180 with both signs in 72: a head that moves by 1 degree may jump by 359; expected -90 to 90"
    )
    assert turn.startswith("video_metadata.json: poses: the first angle hardly varies: 90% of the views lie within 1")
    assert turn.endswith(
        "degrees, in the second angle within 109; expected the head turn in the first angle; "
        "if it is the second: --turn-angle second"  # 65 of 72 evenly spaced ones lie within 64 · 121 / 71
    )
    assert sum(map(len, data.parts.values())) == 72


def test_with_the_angle_that_turns_only_the_wide_one_is_doubted(folder: Path) -> None:
    (wide,) = load(write_poses(folder, owners()), turn_angle="second").warnings
    assert "third angle beyond ±90" in wide


def test_poses_in_radians_are_doubted_in_degrees(folder: Path) -> None:
    poses = owners()
    in_degrees = load(write_poses(folder, poses)).warnings
    assert load(write_poses(folder, np.deg2rad(poses), "radians")).warnings == in_degrees


def test_angles_beyond_90_of_one_sign_only_do_not_jump(folder: Path) -> None:
    poses = load(folder).poses.copy()
    poses[[4, 9], 2] = 178, 91
    (said,) = load(write_poses(folder, poses)).warnings
    assert said == (
        "video_metadata.json: poses: rows 4, 9: third angle beyond ±90 degrees in 2 of 72 views; expected -90 to 90"
    )


def test_exactly_90_is_no_doubt(folder: Path) -> None:
    poses = load(folder).poses.copy()
    poses[0, 0], poses[1, 0] = 90, -90
    assert load(write_poses(folder, poses)).warnings == ()


def test_poses_of_exactly_0_are_counted(folder: Path) -> None:
    poses = load(folder).poses.copy()
    poses[[3, 7]] = 0
    poses[8, :2] = 0
    (said,) = load(write_poses(folder, poses)).warnings
    assert said == (
        "video_metadata.json: poses: rows 3, 7: exactly 0, 0, 0 in 2 of 72 views, as if no pose had been found; "
        "expected a pose for each view"
    )


def test_views_without_a_pose_do_not_decide_whether_the_turn_varies(folder: Path) -> None:
    poses = load(folder).poses.copy()
    poses[:66] = 0  # 92 % of the views; the others turn from -75 to 75
    (said,) = load(write_poses(folder, poses)).warnings
    assert "exactly 0, 0, 0 in 66 of 72 views" in said
    (said,) = load(write_poses(folder, np.zeros((72, 3)))).warnings
    assert "exactly 0, 0, 0 in 72 of 72 views" in said


def test_views_that_are_all_nearly_frontal_are_no_turn_in_another_angle(folder: Path) -> None:
    random = np.random.default_rng(1)
    poses = random.uniform(-1, 1, (72, 3)) * (8, 14, 5)
    assert load(write_poses(folder, poses)).warnings == ()


def test_equal_embeddings_are_named_with_where_they_stand_first(folder: Path) -> None:
    views, front = np.load(folder / "video_feature.npy"), np.load(folder / "front_feature.npy")
    views[5] = views[40] = views[4]
    views[30] = front[2]
    front[11] = front[10]
    np.save(folder / "video_feature.npy", views)
    np.save(folder / "front_feature.npy", front)
    assert load(folder).warnings == (
        "front_feature.npy: row 11: the same embedding as an earlier row in 1 of 12 rows; expected each picture once",
        "video_feature.npy: rows 5, 40: the same embedding as an earlier row in 2 of 72 rows; "
        "expected each picture once",
        "video_feature.npy: row 30: the same embedding as a row of front_feature.npy in 1 of 72 rows; "
        "expected each picture once",
    )


@pytest.mark.parametrize(
    ("angles", "width"),
    [
        ([0, 10, 20, 30, 40, 50, 60, 70, 80, 90], 80),  # nine of ten
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 170], 0),  # one odd one does not count
        ([-179, 179], 2),  # across the jump
        ([-179, -178, 178, 179, 177, -177, 176, -176, 180, 0], 8),
        ([7], 0),
        ([359, -1, 719], 0),
    ],
)
def test_the_narrowest_arc_holds_nine_tenths_whatever_way_they_are_written(angles: list[float], width: float) -> None:
    assert narrowest_arc(np.array(angles, dtype=float)) == pytest.approx(width, abs=1e-9)


def test_no_angles_have_no_arc() -> None:
    assert math.isnan(narrowest_arc(np.array([])))


def test_data_check_shows_the_range_of_each_angle_and_every_doubt(folder: Path) -> None:
    write_poses(folder, owners())
    answer = call("data", "check", folder, cwd=folder)
    lines = answer.out.splitlines()
    at = lines.index("angles, degrees      lowest   median  highest   90% within")
    poses = owners()
    for line, name, column in zip(lines[at + 1 :], ("first, yaw", "second", "third"), range(3), strict=False):
        assert line.startswith(f"  {name} ")
        low, middle, high, arc = map(float, line.split()[-4:])
        assert (low, high) == pytest.approx((poses[:, column].min(), poses[:, column].max()), abs=0.051)
        assert middle == pytest.approx(np.median(poses[:, column]), abs=0.051)
        assert arc <= 120
    assert sum(line.startswith("warning: ") for line in lines) == 2
    assert answer.code == 0


def test_data_check_takes_another_angle_for_yaw(folder: Path) -> None:
    write_poses(folder, owners())
    answer = call("data", "check", folder, "--turn-angle", "second", "--max-yaw", "30", cwd=folder)
    lines = answer.out.splitlines()
    inside = int((np.abs(owners()[:, 1]) <= 30).sum())
    assert f"pairs        {inside} ({inside} of 72 views, |yaw| from 0 to 30 degrees)" in lines
    assert any(line.startswith("  second, yaw  ") for line in lines)
    assert any(line.startswith("  -30 to -15 ") for line in lines)  # of the histogram


def test_doctor_passes_the_doubt_on_until_the_angle_is_said(folder: Path) -> None:
    poses = owners()
    poses[:, 2] = 0
    write_poses(folder, poses)
    said = {
        turn: call("doctor", "--data-dir", folder, "--turn-angle", turn, cwd=folder) for turn in ("first", "second")
    }
    assert "--turn-angle second" in said["first"].out
    assert "--turn-angle" not in said["second"].out
