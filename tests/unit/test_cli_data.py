"""`face3d-tune data`: what it prints, what it writes, and its exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_data import write_data

from face3d_tune.cli.data import _histogram
from face3d_tune.cli.main import main
from face3d_tune.data.face_data import load


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACE3D_TUNE_DATA_DIR", raising=False)


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["data", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_check_without_a_folder_describes_the_bundled_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check") == 0
    printed = capsys.readouterr().out
    for line in (
        "data         faces160 (bundled sample)",
        "people       160",
        "pairs        3200 (3200 of 3200 views)",
        "features     128 numbers per embedding",
        "pose unit    degrees (not recorded)",
        "landmarks    landmarks_3d_original, centred, times 0.216815",
        f"fingerprint  {load(None).fingerprint()}",
        "split        person",
        "  train         96 people    1920 pairs",
        "  validation    48 people     960 pairs   no-model cosine 0.555",
        "  test          16 people     320 pairs   no-model cosine 0.579",
        "   75 to  90         83 #########",
    ):
        assert line in printed.splitlines()


def test_check_shows_the_pairs_that_its_options_leave(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # Yaw is -75, -45, -15, 15, 45, 75 for each of the 12 people.
    assert run("check", write_data(tmp_path), "--split", "none", "--min-yaw", "20", "--max-yaw", "60") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pairs        24 (24 of 72 views, |yaw| from 20 to 60 degrees)" in lines
    assert any(line.startswith("  validation    12 people      24 pairs   no-model cosine 0.") for line in lines)
    assert "  test           0 people       0 pairs" in lines
    assert lines[-1].startswith("warning: split = none: ")


def test_check_takes_the_folder_from_the_environment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE3D_TUNE_DATA_DIR", str(write_data(tmp_path)))
    assert run("check") == 0
    assert f"data         {tmp_path}" in capsys.readouterr().out


def test_check_lists_every_problem_and_exits_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "front_keypoints.npy").unlink()
    file = tmp_path / "video_metadata.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["poses"] = np.deg2rad(content["poses"]).tolist()
    content["metadata"][3]["person_name"] = "王芳"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert run("check", tmp_path) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: 2 problems in {tmp_path}\n"
    lines = printed.out.splitlines()
    assert lines[1] == "error: front_keypoints.npy: missing; expected one of the six data files"
    assert lines[2].startswith("error: video_metadata.json: pose_unit: not recorded, and no angle exceeds 1.31")
    assert lines[3].startswith("  hint: `face3d-tune data convert DIR OUT --from radians --pose-unit radians` writes")
    assert lines[4].startswith("warning: video_metadata.json: metadata: row 3: unknown person: '王芳'")


def test_check_counts_one_problem_as_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("check", tmp_path / "nowhere") == 2
    assert capsys.readouterr().err == f"error: 1 problem in {tmp_path / 'nowhere'}\n"


def test_sample_writes_once_and_then_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("sample", tmp_path / "new") == 0
    assert "six files of faces160" in capsys.readouterr().out
    assert load(tmp_path / "new").fingerprint() == load(None).fingerprint()
    assert run("sample", tmp_path / "new") == 2
    assert "already has front_feature.npy, front_keypoints.npy, " in capsys.readouterr().err


def test_convert_says_what_it_did(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = write_data(tmp_path / "source")
    assert run("convert", source, tmp_path / "a", "--pose-unit", "radians") == 0
    assert "poses from degrees to radians, pose_unit recorded" in capsys.readouterr().out
    assert run("convert", tmp_path / "a", tmp_path / "b", "--pose-unit", "radians", "--from", "radians") == 0
    assert "poses still in radians" in capsys.readouterr().out
    assert run("convert", tmp_path / "a", tmp_path / "b", "--pose-unit", "radians") == 2
    assert "nothing was written" in capsys.readouterr().err
    assert run("convert", tmp_path / "a", tmp_path / "c", "--pose-unit", "radians", "--from", "degrees") == 2
    assert "not degrees" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "sample", "convert"])
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(command, "--help") == 0
    assert f"Example:\n    face3d-tune data {command} " in capsys.readouterr().out


def test_the_histogram_counts_each_side_and_gathers_the_extremes() -> None:
    assert _histogram([-100, -500, -90, -0.1, 0, 14.9, 90, 170]) == [
        "below -90           2 " + "#" * 40,
        "-90 to -75          1 " + "#" * 20,
        *(f"{low:>3} to {low + 15:>3}          0" for low in (-75, -60, -45, -30)),
        "-15 to   0          1 " + "#" * 20,
        "  0 to  15          2 " + "#" * 40,
        *(f"{low:>3} to {low + 15:>3}          0" for low in (15, 30, 45, 60, 75)),
        "90 and above        2 " + "#" * 40,
    ]
