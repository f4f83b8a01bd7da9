"""Every way in which the six files can be broken, and the line that tells the user."""

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from command_line import call
from fake_data import write_data

from face3d_tune.data.face_data import inspect, load
from face3d_tune.data.files import parse_array
from face3d_tune.data.problems import Problem
from face3d_tune.errors import DataError

Break = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 people with 6 views each, 16 numbers per embedding: 12 front rows and 72 video rows."""
    return write_data(tmp_path / "files")


def array(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Break:
    """Replace an array file by what `change` makes of it."""
    return lambda folder: np.save(folder / file, change(np.load(folder / file)))


def put(file: str, row: int, value: Any) -> Break:
    """Overwrite one row of an array file."""

    def change(values: np.ndarray) -> np.ndarray:
        values[row] = value
        return values

    return array(file, change)


def metadata(side: str, change: Callable[[dict[str, Any]], object]) -> Break:
    """Change the content of a metadata file in place."""

    def apply(folder: Path) -> None:
        file = folder / f"{side}_metadata.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
        file.write_text(json.dumps(content), encoding="utf-8")

    return apply


def text(file: str, content: bytes) -> Break:
    return lambda folder: (folder / file).write_bytes(content)


def entry(side: str, key: str, row: int, value: Any) -> Break:
    return metadata(side, lambda content: content[key].__setitem__(row, value))


def top(side: str, key: str, value: Any) -> Break:
    return metadata(side, lambda content: content.__setitem__(key, value))


def without(side: str, key: str) -> Break:
    return metadata(side, lambda content: content.pop(key))


def both(first: Break, second: Break) -> Break:
    return lambda folder: (first(folder), second(folder))


TOO_LARGE = "numbers beyond ±1e+12, too large for sums of squares in float32"
NPY = "a NumPy array saved by numpy.save"
NAMED = 'an entry such as {"person_name": "Eve"}'
POSE = "[yaw, pitch, roll], finite numbers"
POINTS = "five points of three finite numbers, or null"

ERRORS: dict[str, tuple[Break, str]] = {
    "a missing array": (
        lambda folder: (folder / "video_feature.npy").unlink(),
        "video_feature.npy: missing; expected one of the six data files",
    ),
    "a missing metadata file": (
        lambda folder: (folder / "front_metadata.json").unlink(),
        "front_metadata.json: missing; expected one of the six data files",
    ),
    "a file that is a folder": (
        lambda folder: ((folder / "front_keypoints.npy").unlink(), (folder / "front_keypoints.npy").mkdir()),
        "front_keypoints.npy: Is a directory; expected a readable file",
    ),
    "a file that is no array": (
        text("front_feature.npy", b"name,x,y\n"),
        f"front_feature.npy: not a .npy file; expected {NPY}",
    ),
    "an empty file": (text("front_feature.npy", b""), f"front_feature.npy: not a .npy file; expected {NPY}"),
    "a zip of arrays": (text("front_feature.npy", b"PK\x03\x04"), "front_feature.npy: not a .npy file; expected"),
    "a cut array": (
        lambda folder: text("video_feature.npy", (folder / "video_feature.npy").read_bytes()[:-5])(folder),
        "video_feature.npy: damaged (",
    ),
    "an impossible header": (
        text("video_feature.npy", b"\x93NUMPY\x01\x00\x05\x00oops\n"),
        "video_feature.npy: damaged (",
    ),
    "an array of the wrong shape": (
        array("video_keypoints.npy", lambda values: values.reshape(72, 15)),
        "video_keypoints.npy: shape [72, 15]; expected [rows, 5, 3], none of them 0",
    ),
    "features with three dimensions": (
        array("front_feature.npy", lambda values: values[:, None]),
        "front_feature.npy: shape [12, 1, 16]; expected [rows, numbers per embedding], none of them 0",
    ),
    "an array without rows": (
        array("front_feature.npy", lambda values: values[:0]),
        "front_feature.npy: shape [0, 16]; expected [rows, numbers per embedding], none of them 0",
    ),
    "whole numbers": (
        array("front_feature.npy", lambda values: values.astype(np.int64)),
        "front_feature.npy: dtype int64; expected float16, float32 or float64",
    ),
    "NaN": (
        put("video_feature.npy", 17, np.nan),
        "video_feature.npy: row 17: NaN or infinity; expected finite numbers",
    ),
    "infinite keypoints": (
        put("front_keypoints.npy", 3, -np.inf),
        "front_keypoints.npy: row 3: NaN or infinity; expected finite numbers",
    ),
    "a number beyond float32": (
        both(array("video_feature.npy", lambda values: values.astype(np.float64)), put("video_feature.npy", 5, 1e300)),
        "video_feature.npy: row 5: NaN or infinity; expected finite numbers",
    ),
    "a zero vector": (
        put("video_feature.npy", 71, 0),
        "video_feature.npy: row 71: a zero vector; expected an embedding with a direction",
    ),
    "many bad rows": (
        put("video_feature.npy", slice(10, 30), np.nan),
        "video_feature.npy: rows 10, 11, 12, 13, 14 and 15 more rows: NaN or infinity; expected finite numbers",
    ),
    "broken JSON": (
        text("video_metadata.json", b'{"metadata": [],\n "poses" [] }'),
        "video_metadata.json: line 2, column 10: Expecting ':' delimiter; expected a JSON object in UTF-8",
    ),
    "JSON in another encoding": (
        text("video_metadata.json", '{"metadata": "Zoë"}'.encode("latin-1")),
        "video_metadata.json: byte 16 is not UTF-8; expected a JSON object in UTF-8",
    ),
    "a list for an object": (
        text("video_metadata.json", b"[]"),
        "video_metadata.json: a list at the top; expected a JSON object in UTF-8",
    ),
    "JSON too deep to read": (
        text("video_metadata.json", b"[" * 200_000),
        "video_metadata.json: lists nested too deeply; expected a JSON object in UTF-8",
    ),
    "no metadata key": (
        without("front", "metadata"),
        "front_metadata.json: metadata: missing; expected a list with one entry per row",
    ),
    "no poses key": (
        without("video", "poses"),
        "video_metadata.json: poses: missing; expected a list with one entry per row",
    ),
    "poses that are no list": (
        top("video", "poses", {"yaw": 1}),
        "video_metadata.json: poses: not a list; expected a list with one entry per row",
    ),
    "landmarks that are no list": (
        top("video", "landmarks_3d_original", 7),
        "video_metadata.json: landmarks_3d_original: not a list; expected a list with one entry per row",
    ),
    "an entry without a name": (
        entry("video", "metadata", 4, {"frame": 9}),
        f"video_metadata.json: metadata: row 4: no usable person_name in {{'frame': 9}}; expected {NAMED}",
    ),
    "a name that is a number": (
        entry("front", "metadata", 0, {"person_name": 7}),
        f"front_metadata.json: metadata: row 0: no usable person_name in {{'person_name': 7}}; expected {NAMED}",
    ),
    "an empty name": (
        entry("front", "metadata", 11, {"person_name": ""}),
        f"front_metadata.json: metadata: row 11: no usable person_name in {{'person_name': ''}}; expected {NAMED}",
    ),
    "an entry that is no object": (
        entry("video", "metadata", 1, "Eve"),
        f"video_metadata.json: metadata: row 1: no usable person_name in 'Eve'; expected {NAMED}",
    ),
    "a pose of two numbers": (
        entry("video", "poses", 6, [1, 2]),
        f"video_metadata.json: poses: row 6: wrong shape or not numbers: [1, 2]; expected {POSE}",
    ),
    "a pose of text": (
        entry("video", "poses", 6, ["1", 2, 3]),
        f"video_metadata.json: poses: row 6: wrong shape or not numbers: ['1', 2, 3]; expected {POSE}",
    ),
    "a null pose": (
        entry("front", "poses", 2, None),
        f"front_metadata.json: poses: row 2: wrong shape or not numbers: None; expected {POSE}",
    ),
    "poses of four numbers throughout": (
        metadata("video", lambda content: content.update(poses=[[1, 2, 3, 4]] * 72)),
        "video_metadata.json: poses: rows 0, 1, 2, 3, 4 and 67 more rows: wrong shape or not numbers: [1, 2, 3, 4]",
    ),
    "a pose that is NaN": (
        entry("video", "poses", 70, [0.0, float("nan"), 0.0]),
        f"video_metadata.json: poses: row 70: NaN or infinity; expected {POSE}",
    ),
    "landmarks of four points": (
        entry("video", "landmarks_3d_original", 8, [[0, 0, 0]] * 4),
        "video_metadata.json: landmarks_3d_original: row 8: wrong shape or not numbers: [[0, 0, 0], [0, 0, 0],",
    ),
    "infinite landmarks below a gap": (
        both(
            entry("video", "landmarks_3d_original", 2, None),
            entry("video", "landmarks_3d_original", 9, [[0, 0, float("inf")]] * 5),
        ),
        f"video_metadata.json: landmarks_3d_original: row 9: NaN or infinity; expected {POINTS}",
    ),
    "fewer keypoints than features": (
        array("video_keypoints.npy", lambda values: values[:70]),
        "video_keypoints.npy: 70 rows; expected 72, as many as in video_feature.npy",
    ),
    "fewer poses than features": (
        metadata("video", lambda content: content["poses"].pop()),
        "video_metadata.json: poses: 71 rows; expected 72, as many as in video_feature.npy",
    ),
    "fewer names than keypoints, the features being broken": (
        both(
            text("front_feature.npy", b"?"),
            metadata("front", lambda content: content["metadata"].pop()),
        ),
        "front_metadata.json: metadata: 11 rows; expected 12, as many as in front_keypoints.npy",
    ),
    "feature sizes that differ": (
        array("video_feature.npy", lambda values: values[:, :12]),
        "video_feature.npy: 12 numbers per embedding; expected 16, as in front_feature.npy",
    ),
    "a negative scale": (
        top("front", "standard_info", {"standard_scale": -0.2}),
        "front_metadata.json: standard_info.standard_scale: -0.2; expected a number above 0, at most 1e+12",
    ),
    "a scale of text": (
        top("front", "standard_info", {"standard_scale": "big"}),
        "front_metadata.json: standard_info.standard_scale: 'big'; expected a number above 0, at most 1e+12",
    ),
    "a scale of NaN": (
        top("front", "standard_info", {"standard_scale": float("nan")}),
        "front_metadata.json: standard_info.standard_scale: nan; expected a number above 0, at most 1e+12",
    ),
    "a scale of true": (
        top("front", "standard_info", {"standard_scale": True}),
        "front_metadata.json: standard_info.standard_scale: True; expected a number above 0, at most 1e+12",
    ),
    "a scale that makes every landmark infinite": (
        top("front", "standard_info", {"standard_scale": 1e308}),
        "front_metadata.json: standard_info.standard_scale: 1e+308; expected a number above 0, at most 1e+12",
    ),
    "a scale that no float can hold": (
        top("front", "standard_info", {"standard_scale": 10**400}),
        "front_metadata.json: standard_info.standard_scale: 100000000000000000...0000000000000000000; expected",
    ),
    "landmarks that float32 cannot hold": (
        entry("video", "landmarks_3d_original", 7, [[0.0, 1e39, 0.0]] * 5),
        f"video_metadata.json: landmarks_3d_original: row 7: {TOO_LARGE}; expected {POINTS}",
    ),
    "landmarks that float32 cannot hold once they are scaled": (
        both(
            top("front", "standard_info", {"standard_scale": 1e12}),
            entry("video", "landmarks_3d_original", 7, [[0.0, 0.0, 0.0]] * 4 + [[100.0, 0.0, 0.0]]),
        ),
        f"video_metadata.json: landmarks_3d_original: rows 0, 1, 2, 3, 4 and 67 more rows: {TOO_LARGE}; "
        "expected finite numbers from landmarks_3d_original, centred, times 1e+12",
    ),
    "an angle that float32 cannot hold": (
        entry("video", "poses", 5, [1e39, 0, 0]),
        f"video_metadata.json: poses: row 5: {TOO_LARGE}; expected {POSE}",
    ),
    "a NaN that processors signal": (
        put("video_feature.npy", 3, np.array([0x7FA00000], dtype=np.uint32).view(np.float32)),
        "video_feature.npy: row 3: NaN or infinity; expected finite numbers",
    ),
    "an embedding whose length float32 cannot hold": (
        put("video_feature.npy", 3, 1e30),
        f"video_feature.npy: row 3: {TOO_LARGE}; expected finite numbers",
    ),
    "standard_info that is no object": (
        top("front", "standard_info", 3),
        "front_metadata.json: standard_info: 3; expected an object with standard_scale",
    ),
    "an unknown pose unit": (
        top("video", "pose_unit", "gon"),
        "video_metadata.json: pose_unit: 'gon'; expected 'degrees' or 'radians'",
    ),
    "a pose unit that is a list": (
        top("video", "pose_unit", ["degrees"]),
        "video_metadata.json: pose_unit: ['degrees']; expected 'degrees' or 'radians'",
    ),
    "pose units that differ": (
        both(top("front", "pose_unit", "degrees"), top("video", "pose_unit", "radians")),
        "video_metadata.json: pose_unit: radians; expected degrees, as in front_metadata.json",
    ),
    "a pose unit in one file only": (
        top("front", "pose_unit", "degrees"),
        "video_metadata.json: pose_unit: not recorded; expected degrees, as in front_metadata.json",
    ),
    "poses that look like radians": (
        metadata("video", lambda content: content.update(poses=np.deg2rad(content["poses"]).tolist())),
        "video_metadata.json: pose_unit: not recorded, and no angle exceeds 1.31: these look like radians;"
        " expected degrees, or a recorded unit",
    ),
    "too few people": (
        lambda folder: write_data(folder, people=3),
        "front_metadata.json: metadata: 3 people with a front row and a view, too few to train and validate;"
        " expected at least 4",
    ),
    "no person in both files": (
        metadata("video", lambda content: content.update(metadata=[{"person_name": "nobody"}] * 72)),
        "front_metadata.json: metadata: 0 people with a front row and a view, too few to train and validate;"
        " expected at least 4",
    ),
}


@pytest.mark.parametrize(("break_it", "line"), ERRORS.values(), ids=list(ERRORS))
def test_each_fault_is_an_error_that_names_its_place(folder: Path, break_it: Break, line: str) -> None:
    assert inspect(folder).errors == ()  # so that the fault below is what is found
    break_it(folder)
    inspection = inspect(folder)
    assert inspection.data is None
    assert any(str(problem).startswith(line) for problem in inspection.errors), list(map(str, inspection.problems))
    with pytest.raises(DataError):
        load(folder)


def test_a_missing_folder_and_a_file_for_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, what in (("nowhere", "no such folder"), ("file", "not a folder")):
        with pytest.raises(DataError, match=f"{name}: {what}; expected a folder with front_feature.npy"):
            load(tmp_path / name)


def test_all_faults_are_found_at_once_and_the_first_is_raised_with_their_number(folder: Path) -> None:
    (folder / "front_feature.npy").unlink()
    put("video_feature.npy", 0, np.nan)(folder)
    entry("video", "poses", 1, "left")(folder)
    assert [(problem.file, problem.key, problem.rows) for problem in inspect(folder).problems] == [
        ("front_feature.npy", None, ()),
        ("video_feature.npy", None, (0,)),
        ("video_metadata.json", "poses", (1,)),
    ]
    with pytest.raises(DataError) as caught:
        load(folder)
    assert caught.value.message == (
        "front_feature.npy: missing; expected one of the six data files (and 2 more problems)"
    )
    assert caught.value.hint == f"`face3d-tune data check {folder}` lists every problem"


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_array", [True, False])
def test_a_pickle_is_named_and_never_opened(folder: Path, tmp_path: Path, as_array: bool) -> None:
    sprung, file = tmp_path / "sprung", folder / "video_feature.npy"
    if as_array:
        np.save(file, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    else:
        file.write_bytes(pickle.dumps(Trap(sprung)))
    (problem, *_) = inspect(folder).errors
    what = "an array of pickled objects, which are never opened" if as_array else "a pickled object, which is never"
    assert str(problem).startswith(f"video_feature.npy: {what}")
    assert not sprung.exists()
    np.load(file, allow_pickle=True)  # the trap does work
    assert sprung.exists()


def test_a_person_without_views_and_an_unknown_person_are_warnings(folder: Path) -> None:
    entry("video", "metadata", 71, {"person_name": "王芳"})(folder)  # a view of person 11
    metadata("video", lambda content: [content["metadata"][row].update(person_name="Zoë") for row in range(6)])(folder)
    assert load(folder).warnings == (
        "front_metadata.json: metadata: row 0: person without views: '张伟'; left out;"
        " expected everyone in video_metadata.json too",
        "video_metadata.json: metadata: row 71: unknown person: '王芳'; left out;"
        " expected everyone in front_metadata.json too",
    )


def test_a_byte_order_mark_changes_nothing(folder: Path) -> None:
    before = load(folder).fingerprint()
    file = folder / "front_metadata.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(folder).fingerprint() == before


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_float_types_are_read_as_float32(folder: Path, dtype: Any) -> None:
    array("video_feature.npy", lambda values: values.astype(dtype))(folder)
    features = load(folder).video_features
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.load(folder / "video_feature.npy").astype(np.float32))


@pytest.mark.parametrize(("largest", "is_error"), [(0.09, False), (0.11, True), (3.19, True), (3.21, False)])
def test_only_angles_that_fit_radians_and_not_zero_are_questioned(folder: Path, largest: float, is_error: bool) -> None:
    top("video", "poses", [[0.0, -largest, 0.01]] * 72)(folder)
    errors = inspect(folder).errors
    assert bool(errors) == is_error
    if is_error:
        with pytest.raises(DataError) as caught:
            load(folder)
        assert "data convert DIR OUT --from radians --pose-unit radians" in str(caught.value.hint)


def test_a_recorded_unit_is_believed(folder: Path) -> None:
    poses = [[0.5, -0.25, 1.0]] * 72
    both(
        top("video", "poses", poses), both(top("front", "pose_unit", "radians"), top("video", "pose_unit", "radians"))
    )(folder)
    data = load(folder)
    assert (data.file_pose_unit, data.pose_unit_recorded) == ("radians", True)
    np.testing.assert_allclose(data.poses[0], [90 / np.pi, -45 / np.pi, 180 / np.pi], rtol=1e-13)
    both(top("front", "pose_unit", "degrees"), top("video", "pose_unit", "degrees"))(folder)
    np.testing.assert_array_equal(load(folder).poses, poses)


SYNTAX = b"()[]{},:'\"\\0123456789-<>|=fiOVTFalse \n\t\0\xff"


def mutated(whole: bytes, random: Random) -> bytes:
    """A .npy file with one to four bytes of its header changed, removed or added."""
    changed = bytearray(whole)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(6, 128 if random.random() < 0.3 else 72)  # behind the magic; the text ends at 72
        kind = random.random()
        if kind < 0.7:
            changed[at] = random.choice(SYNTAX) if kind < 0.5 else random.randrange(256)
        elif kind < 0.85:
            del changed[at]
        else:
            changed.insert(at, random.randrange(256))
    return bytes(changed)


def test_no_damaged_header_of_5000_escapes_as_anything_but_a_problem_that_names_the_file(folder: Path) -> None:
    whole, random, damaged = (folder / "front_feature.npy").read_bytes(), Random(14), 0
    for _ in range(5000):
        said: list[Problem] = []
        parse_array("front_feature.npy", mutated(whole, random), (None, None), said)
        assert all(str(each).startswith("front_feature.npy: ") and len(str(each)) < 500 for each in said)
        assert not any("\n" in str(each) for each in said)
        damaged += bool(said)
    assert damaged > 4000  # the others, such as another space, change nothing


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 8), ",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (6L, \"\"\"8), }",
        b"{'descr': '<f4\\d', 'fortran_order': False, 'shape': (6, 8), }",
        b"{'descr': (), 'fortran_order': False, 'shape': (6, 8), }",
        b"{'descr': ('<f4', 2, 3), 'fortran_order': False, 'shape': (6, 8), }",
        b"{'descr': [[]], 'fortran_order': False, 'shape': (6, 8), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 99999999999999999999), }",
        b"{[]: '<f4', 'fortran_order': False, 'shape': (6, 8), }",
        b"  {'descr': 1\n 2}",
        b"{" * 300,
    ],
)
def test_headers_that_numpy_answers_with_every_kind_of_error_are_one_line(folder: Path, header: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(192)
    (folder / "front_feature.npy").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (said,) = inspect(folder).errors
    assert str(said).startswith("front_feature.npy: damaged (")
    assert "\n" not in str(said)


def test_data_check_says_where_a_header_is_damaged(folder: Path) -> None:
    text("video_feature.npy", b"\x93NUMPY\x01\x00\x02\x00{(" + bytes(99))(folder)
    answer = call("data", "check", folder, cwd=folder)
    assert (answer.code, answer.out.count("error: video_feature.npy: damaged (")) == (2, 1)
    assert "unexpected" not in answer.err


def test_a_large_scale_that_training_can_read_is_taken(folder: Path) -> None:
    top("front", "standard_info", {"standard_scale": 1e10})(folder)
    landmarks = load(folder).landmarks
    assert 1e9 < np.abs(landmarks).max() < 1e12
    assert np.isfinite(np.square(landmarks).sum())


def test_whole_numbers_of_any_size_are_numbers(folder: Path) -> None:
    poses = [[0, 40, 0]] * 69 + [[2**63, 0, 0], [-1, 0, 0], [10**12, 0, 0]]
    top("video", "poses", poses)(folder)
    (error,) = inspect(folder).errors
    assert (error.rows, error.what) == ((69,), "numbers beyond ±1e+12, too large for sums of squares in float32")
    poses[69][0] = 1
    top("video", "poses", poses)(folder)
    assert load(folder).poses[69:, 0].tolist() == [1, -1, 1e12]


def test_a_problem_without_rows_or_key_is_one_plain_line() -> None:
    assert str(Problem(file="a.npy", what="missing", expected="a file")) == "a.npy: missing; expected a file"
