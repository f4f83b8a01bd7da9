"""A pipe, a device, a folder or a huge file in place of a file: refused at once, wherever a person names one."""

import errno
import os
import re
import socket
from pathlib import Path

import pytest
from command_line import Answer, call
from fake_data import write_data

from face3d_tune.data.face_data import inspect
from face3d_tune.data.files import FILES
from face3d_tune.system import regular_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data(tmp_path / "files")


def refusal(path: Path, **limits: int) -> tuple[int, str]:
    with pytest.raises(OSError, match=re.escape(str(path))) as caught:
        regular_file.require(path, **limits)
    return caught.value.errno, caught.value.strerror


def test_what_is_no_regular_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket") == (errno.EINVAL, "a socket, not a regular file")
    assert refusal(tmp_path / "pipe") == (errno.EINVAL, "a pipe, not a regular file")
    assert refusal(tmp_path / "link") == (errno.EINVAL, "a pipe, not a regular file")
    assert refusal(Path("/dev/zero")) == (errno.EINVAL, "a device, not a regular file")
    with pytest.raises(IsADirectoryError):
        regular_file.require(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular_file.require(tmp_path / "nothing")


def test_a_regular_file_up_to_the_limit_is_read_and_so_is_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert regular_file.read_bytes(tmp_path / "link", most=5) == b"12345"
    assert refusal(tmp_path / "a", most=4)[0] == errno.EFBIG


def test_a_file_that_no_memory_can_hold_is_not_read(tmp_path: Path) -> None:
    huge(tmp_path / "huge")
    number, said = refusal(tmp_path / "huge")
    assert number == errno.EFBIG
    assert said.startswith("8,388,608 MiB, more than the ")
    assert said.endswith(" MiB of free memory")


def huge(path: Path) -> None:
    """A sparse file of 2^43 bytes, which takes no room on the disk."""
    path.touch()
    os.truncate(path, 2**43)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pipe, "a pipe, not a regular file; expected a readable file"),
        (device, "a device, not a regular file; expected a readable file"),
        (huge, "MiB of free memory; expected a readable file"),
    ],
)
def test_a_data_file_that_is_none_is_one_problem_at_once(folder: Path, file: str, spoil, said: str) -> None:
    spoil(folder / file)
    (problem,) = inspect(folder).errors
    assert str(problem).startswith(f"{file}: ")
    assert str(problem).endswith(said)


def refused(answer: Answer, words: str) -> None:
    assert answer.code == 2
    assert words in answer.err, answer.err
    assert "unexpected" not in answer.err


def test_every_file_that_a_person_names_must_be_regular(tmp_path: Path) -> None:
    kind = "a pipe, not a regular file"
    for name in ("study.toml", "train.py", "best_model.pth"):
        os.mkfifo(tmp_path / name)
    refused(call("run", "--study", "study.toml", cwd=tmp_path), f"study.toml: {kind}")
    refused(call("presets", "baseline", "--script", "train.py", cwd=tmp_path), f"train.py cannot be read: {kind}")
    refused(call("import", "best_model.pth", cwd=tmp_path), f"best_model.pth is not a readable checkpoint: {kind}")
    refused(call("import", ".", cwd=tmp_path), f"best_model.pth is not a readable checkpoint: {kind}")
    refused(
        call("data", "convert", tmp_path / "train.py", "out", "--pose-unit", "radians", cwd=tmp_path), "not a folder"
    )


def test_a_study_file_or_script_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    huge(tmp_path / "study.toml")
    huge(tmp_path / "train.py")
    limit = "more than the 16 MiB of a file of its kind"
    refused(call("run", "--study", "study.toml", cwd=tmp_path), limit)
    refused(call("presets", "baseline", "--script", "train.py", cwd=tmp_path), limit)


def test_data_are_not_copied_from_a_pipe(folder: Path, tmp_path: Path) -> None:
    pipe(folder / "video_metadata.json")
    refused(
        call("data", "convert", folder, tmp_path / "out", "--pose-unit", "radians", cwd=tmp_path),
        "video_metadata.json: a pipe, not a regular file",
    )
    assert not (tmp_path / "out").exists()
