"""Copies of the six files: the sample, and other pose units."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_data import write_data

from face3d_tune.data.convert import convert, excerpt, write_sample
from face3d_tune.data.face_data import load
from face3d_tune.data.files import FILES
from face3d_tune.errors import DataError


def content(folder: Path, side: str) -> Any:
    return json.loads((folder / f"{side}_metadata.json").read_text(encoding="utf-8"))


def with_poses(folder: Path, change: Any) -> Path:
    write_data(folder)
    for side in ("front", "video"):
        old = content(folder, side)
        new = old | {"poses": change(np.array(old["poses"])).tolist(), "note": {"π": 3.14}}
        (folder / f"{side}_metadata.json").write_text(json.dumps(new, ensure_ascii=False), encoding="utf-8")
    return folder


def test_the_written_sample_is_the_bundled_one(tmp_path: Path) -> None:
    write_sample(tmp_path / "new" / "folder")
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(FILES)
    assert load(tmp_path / "new" / "folder").fingerprint() == load(None).fingerprint()


def test_the_sample_goes_beside_other_files_in_a_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_sample(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])


def test_nothing_is_written_where_one_of_the_files_exists(tmp_path: Path) -> None:
    (tmp_path / "video_feature.npy").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"already has video_feature\.npy; nothing was written"):
        write_sample(tmp_path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("video_feature.npy", b"mine")]


def test_a_folder_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot be written: "):
            write_sample(folder)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_failure_halfway_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_data(tmp_path / "source")
    whole = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if path.name == "video_keypoints.npy":
            raise OSError(28, "No space left on device")
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(DataError, match="cannot be written: No space left on device"):
            convert(source, out, unit="radians")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "source"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_copy_in_radians_loads_as_the_same_degrees(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source")
    assert convert(source, tmp_path / "copy", unit="radians") == "degrees"
    original, copy = load(source), load(tmp_path / "copy")
    assert (copy.file_pose_unit, copy.pose_unit_recorded) == ("radians", True)
    np.testing.assert_allclose(copy.poses, original.poses, rtol=0, atol=1e-12)
    assert copy.fingerprint() == original.fingerprint()
    yaw = content(source, "video")["poses"][0][0]
    assert content(tmp_path / "copy", "video")["poses"][0][0] == pytest.approx(yaw * 3.141592653589793 / 180, abs=1e-15)


def test_only_poses_and_their_unit_differ_in_a_copy(tmp_path: Path) -> None:
    source, copy = with_poses(tmp_path / "source", lambda poses: poses + 1), tmp_path / "copy"
    convert(source, copy, unit="radians")
    for file in FILES:
        if file.endswith(".npy"):
            assert (copy / file).read_bytes() == (source / file).read_bytes()
    for side in ("front", "video"):
        old, new = content(source, side), content(copy, side)
        assert new.pop("pose_unit") == "radians"
        assert list(new) == list(old)
        np.testing.assert_array_equal(new.pop("poses"), np.deg2rad(old.pop("poses")))
        assert new == old
    assert "张伟" in (copy / "front_metadata.json").read_text(encoding="utf-8")


def test_there_and_back_gives_the_original_poses(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source")
    convert(source, tmp_path / "radians", unit="radians")
    assert convert(tmp_path / "radians", tmp_path / "back", unit="degrees") == "radians"
    before, after = (np.array(content(folder, "video")["poses"]) for folder in (source, tmp_path / "back"))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)
    assert load(tmp_path / "back").pose_unit_recorded


def test_radians_that_no_file_records_need_the_users_word(tmp_path: Path) -> None:
    source = with_poses(tmp_path / "source", np.deg2rad)
    with pytest.raises(DataError, match="these look like radians"):
        convert(source, tmp_path / "copy", unit="radians")
    assert not (tmp_path / "copy").exists()
    assert convert(source, tmp_path / "radians", unit="radians", unit_if_unrecorded="radians") == "radians"
    np.testing.assert_array_equal(content(tmp_path / "radians", "video")["poses"], content(source, "video")["poses"])
    assert load(tmp_path / "radians").poses[0, 0] == -75
    convert(source, tmp_path / "degrees", unit="degrees", unit_if_unrecorded="degrees")
    assert load(tmp_path / "degrees").poses[0, 0] == content(source, "video")["poses"][0][0]


def test_the_users_word_may_repeat_the_recorded_unit_but_not_contradict_it(tmp_path: Path) -> None:
    convert(write_data(tmp_path / "source"), tmp_path / "radians", unit="radians")
    convert(tmp_path / "radians", tmp_path / "again", unit="radians", unit_if_unrecorded="radians")
    with pytest.raises(DataError, match="records its poses in radians, not degrees"):
        convert(tmp_path / "radians", tmp_path / "never", unit="radians", unit_if_unrecorded="degrees")
    assert not (tmp_path / "never").exists()


def test_broken_files_are_not_copied(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source")
    (source / "video_keypoints.npy").unlink()
    with pytest.raises(DataError, match=r"video_keypoints\.npy: missing"):
        convert(source, tmp_path / "copy", unit="radians")
    assert not (tmp_path / "copy").exists()


def test_a_name_that_utf8_cannot_hold_is_copied_as_json_holds_it(tmp_path: Path) -> None:
    source = write_data(tmp_path / "source")
    for side in ("front", "video"):
        file = source / f"{side}_metadata.json"
        file.write_text(file.read_text(encoding="utf-8").replace("张伟", "张\\ud800"), encoding="utf-8")
    convert(source, tmp_path / "copy", unit="radians")
    assert load(tmp_path / "copy").people == load(source).people


def test_an_excerpt_has_everyone_with_a_few_views_taken_evenly_and_fits_together(tmp_path: Path) -> None:
    whole = write_data(tmp_path / "whole", people=5, views=7)
    excerpt(whole, tmp_path / "few", views=3)
    few, original = load(tmp_path / "few"), load(whole)
    assert {part: len(names) for part, names in few.people.items()} == {
        part: len(names) for part, names in original.people.items()
    }
    # Every third of seven views, so 0, 3 and 6 of each person.
    rows = [7 * person + view for person in range(5) for view in (0, 3, 6)]
    assert content(tmp_path / "few", "video")["poses"] == [content(whole, "video")["poses"][row] for row in rows]
    for name in ("video_feature.npy", "video_keypoints.npy"):
        assert np.array_equal(np.load(tmp_path / "few" / name), np.load(whole / name)[rows])
    for name in ("front_feature.npy", "front_keypoints.npy", "front_metadata.json"):
        assert (tmp_path / "few" / name).read_bytes() == (whole / name).read_bytes()


def test_an_excerpt_of_fewer_views_than_asked_for_has_all_of_them(tmp_path: Path) -> None:
    whole = write_data(tmp_path / "whole", people=4, views=2)
    excerpt(whole, tmp_path / "few", views=9)
    assert load(tmp_path / "few").fingerprint() == load(whole).fingerprint()


def test_an_excerpt_of_the_sample_is_one_of_its_people(tmp_path: Path) -> None:
    excerpt(None, tmp_path / "few", views=1)
    assert {part: len(pairs) for part, pairs in load(tmp_path / "few").parts.items()} == {
        "train": 96,
        "validation": 48,
        "test": 16,
    }
