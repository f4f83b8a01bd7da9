"""`--turn-angle`: which angle of a pose is the head turn, from the files to everything that reads yaw."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from fake_data import write_data

from face3d_tune.data.face_data import load, recorded_selection
from face3d_tune.data.provenance import DataUse
from face3d_tune.errors import ConfigError, StudyError
from face3d_tune.study.described_data import describe_data
from face3d_tune.study.settings import Settings, check_same

VIEWS = [-75, -45, -15, 15, 45, 75]  # degrees, of each person of `write_data`


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The usual files, whose head turn stands in the second column of the poses."""
    return turned(write_data(tmp_path / "files"))


def turned(folder: Path) -> Path:
    """Move the first angle of every view to the second place, the third to the first and the second to the third."""
    file = folder / "video_metadata.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["poses"] = [[third, first, second] for first, second, third in content["poses"]]
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_yaw_limits_look_at_the_angle_that_is_the_head_turn(folder: Path) -> None:
    data = load(folder, split="none", min_yaw=20, max_yaw=60, turn_angle="second")
    assert sorted({float(data.poses[view, 1]) for view in data.parts["train"][:, 1]}) == [-45, 45]
    assert len(data.parts["train"]) == 2 * 12
    assert data.yaw.tolist() == [float(angle) for angle in VIEWS] * 12


def test_bands_are_bands_of_the_head_turn(folder: Path) -> None:
    data = load(folder, split="none", turn_angle="second")
    cosines = data.no_model_cosines("train").reshape(12, 6)  # of each person and view
    means = [cosines[:, [2, 3]], cosines[:, [1, 4]], cosines[:, [0, 5]]]
    # -45 and 45 belong to the last band, which begins at 45; -15 and 15 to the middle one.
    assert data.no_model_by_yaw("train") == {
        "0-15": None,
        "15-45": pytest.approx(means[0].mean(), abs=1e-6),
        "45-90": pytest.approx(np.mean(means[1:]), abs=1e-6),
    }


def test_the_fingerprint_of_the_first_angle_is_that_of_version_0_1_0_and_the_others_have_their_own(
    folder: Path,
) -> None:
    assert load(None).fingerprint() == "eb6cf9b07b5204e5"
    assert load(None, turn_angle="first").fingerprint() == "eb6cf9b07b5204e5"
    prints = {load(folder, turn_angle=turn).fingerprint() for turn in ("first", "second", "third")}
    assert len(prints) == 3


def test_an_unknown_angle_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="turn_angle = 'fourth' is unknown; expected one of first, second, third"):
        load(folder, turn_angle="fourth")  # type: ignore[arg-type]


def test_a_study_of_version_0_1_0_has_the_first() -> None:
    old = {"source": "x", "feature_size": 8, "pose_unit": "degrees", "split": "none", "min_yaw": 5.0, "max_yaw": None}
    assert recorded_selection(old) == {"split": "none", "min_yaw": 5.0, "max_yaw": None, "turn_angle": "first"}
    assert DataUse.of_study(old).turn_angle == "first"
    assert recorded_selection(old | {"turn_angle": "third"})["turn_angle"] == "third"


def attrs_of(turn: str | None, **data: object) -> dict[str, object]:
    people = {"people": {"train": 7, "validation": 3, "test": 2}, "pairs": {"train": 42, "validation": 18, "test": 12}}
    held = {"source": "faces", "split": "person", "min_yaw": 0.0, "max_yaw": None, **people, **data}
    return {
        "data": held | ({} if turn is None else {"turn_angle": turn}),
        "data_fingerprint": f"{turn}",
        "settings": {},
    }


def test_a_study_with_another_angle_does_not_compare_and_says_which_it_has() -> None:
    with pytest.raises(StudyError) as caught:
        check_same("x", attrs_of("second"), attrs_of("first"), Settings("keypoint", 5, None))
    assert (
        "split person, yaw is the second angle (second); now faces, 12 people, 72 pairs, split person (first)"
        in str(caught.value)
    )
    assert caught.value.hint == (
        "give the data it was made on with --turn-angle second, or start another study with --study-name NEW"
    )
    assert "yaw" not in describe_data(attrs_of(None))


def test_the_hint_names_every_option_that_chose_other_pairs() -> None:
    with pytest.raises(StudyError) as caught:
        check_same("x", attrs_of(None), attrs_of("third", min_yaw=7.5, max_yaw=60.0), Settings("keypoint", 5, None))
    assert "made on with --min-yaw 0, without --max-yaw, --turn-angle first, or" in str(caught.value.hint)


def test_a_search_records_it_and_every_later_command_keeps_to_it(tmp_path: Path) -> None:
    folder = turned(write_data(tmp_path / "files", people=20))
    words = ("--data-dir", folder, "--trials", "1", "--epochs", "1")
    answer = call("run", *words, "--turn-angle", "second", "--min-yaw", "20", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "|yaw| 20.0–None, yaw is the second angle (" in answer.err
    assert "comparable between trials; cosine also by |yaw|\n  yaw is the second angle\n" in answer.out

    refused = call("run", *words, cwd=tmp_path)
    assert refused.code == 2
    assert "give the data it was made on with --min-yaw 20, --turn-angle second, or start another" in refused.err
    assert call("train", "--epochs", "1", cwd=tmp_path).code == 0
    chosen = call("train", "--turn-angle", "first", cwd=tmp_path)
    assert (chosen.code, "--turn-angle goes with --preset only" in chosen.err) == (2, True)

    exported = call("export", "--partial", cwd=tmp_path)
    assert "min_yaw_angle = 20.0 of the second angle: the script limits the first" in exported.err
    assert "the study's head turn is the second angle of a pose; the script's yaw is the first" in exported.err
    assert "--min_yaw_angle" not in exported.out

    report = call("report", "--format", "json", "-o", "-", cwd=tmp_path)
    said = json.loads(report.out)
    assert said["data"]["turn_angle"] == "second"
    assert said["repeat"][said["repeat"].index("--turn-angle") + 1] == "second"
    for language, words in (("en", "yaw is the second angle of a pose"), ("zh", "yaw 是姿态中的第二个角度")):
        page = call("report", "--format", "md", "--lang", language, "-o", "-", cwd=tmp_path)
        assert words in page.out, page.err
