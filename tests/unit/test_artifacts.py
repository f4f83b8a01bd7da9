"""Where checkpoints lie: a folder, or S3 as a server that the tests start imitates it."""

import errno
import os
import pickle
import signal
import subprocess
import sys
from io import BytesIO

import pytest
from conftest import BUCKET

from face3d_tune.errors import ArtifactError, TuneError
from face3d_tune.storage import artifacts
from face3d_tune.storage.artifacts import Artifacts


@pytest.fixture(params=["folder", "s3 with prefix", "s3"])
def text(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "not" / "yet there")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/some/where/" if "prefix" in request.param else f"s3://{BUCKET}"


@pytest.fixture
def place(text):
    return Artifacts.parse(text)


@pytest.fixture
def folder(tmp_path):
    return Artifacts.parse(str(tmp_path / "kept"))


# What every place does


def test_what_is_written_is_read_until_it_is_removed(place):
    assert place.read("study/a.pth") is None
    place.write("study/a.pth", b"one")
    place.write("study/a.pth", b"another")
    assert place.read("study/a.pth") == b"another"
    place.remove("study/a.pth")
    place.remove("study/a.pth")  # which is not there any more
    assert place.read("study/a.pth") is None


def test_nothing_is_there_at_first_and_names_are_sorted_by_prefix(place):
    assert place.names("") == place.names("study/") == []
    for name in ("study/trial-1.b", "study/trial-1.a", "study/trial-12.a", "other/trial-1.a", "study/x/trial-1.c"):
        place.write(name, b"")
    assert place.names("study/trial-1.") == ["study/trial-1.a", "study/trial-1.b"]
    assert place.names("study/") == ["study/trial-1.a", "study/trial-1.b", "study/trial-12.a", "study/x/trial-1.c"]
    assert len(place.names("")) == 5


@pytest.mark.parametrize("size", [0, 1, 9_000_000])
def test_content_of_any_size_comes_back(place, size):
    content = os.urandom(size)  # the last in several parts on S3
    place.write("content", content)
    assert place.read("content") == content


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/./b", "a\\..\\b", "C:a", "a/", "a.partial"]
)
def test_no_name_leads_out_of_the_place(place, name):
    for use in (place.read, place.remove, lambda name: place.write(name, b"")):
        with pytest.raises(ValueError, match="is not an artifact name"):
            use(name)


def test_a_place_can_be_sent_to_another_process_also_after_use(place, text):
    place.write("a", b"here")
    sent = pickle.loads(pickle.dumps(place))
    assert sent.read("a") == b"here"
    assert str(sent) == str(place) == text.rstrip("/")


def test_optuna_finds_the_same_artifacts(place):
    place.write("study/a", b"ours")
    store = place.optuna_store
    with store.open_reader("study/a") as reader:
        assert reader.read() == b"ours"
    store.write("study/b", BytesIO(b"theirs"))
    assert place.read("study/b") == b"theirs"
    store.remove("study/a")
    assert place.names("") == ["study/b"]


def test_more_names_than_a_page_has(s3, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    place = Artifacts.parse(f"s3://{BUCKET}/p")
    for number in range(7):
        place.write(f"{number}", b"")
    assert s3.list_objects_v2(Bucket=BUCKET)["IsTruncated"]
    assert place.names("") == [f"{number}" for number in range(7)]


# Places that cannot be used


def refused(text):
    with pytest.raises(ArtifactError) as caught:
        Artifacts.parse(text)
    assert isinstance(caught.value, TuneError)
    return caught.value


@pytest.mark.parametrize("text", ["gs://bucket", "https://me:secret@host/x", "file:///tmp"])
def test_another_kind_of_place_is_refused_without_repeating_a_password(text):
    error = refused(text)
    assert error.message == f"cannot keep artifacts in {text.partition(':')[0]}://…"
    assert error.hint == "use a folder or s3://BUCKET/PREFIX"


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        error = refused(str(tmp_path / name))
        assert error.message.startswith(f"cannot use {tmp_path / name}: ")
        assert "--artifacts" in error.hint


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch):
    def denied(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(artifacts.tempfile, "TemporaryFile", denied)
    assert refused(str(tmp_path)).message == f"cannot use {tmp_path}: Permission denied"


def test_a_bucket_that_is_not_there_is_refused(s3):
    error = refused("s3://nobody-has-this/p")
    assert error.message == "cannot write to s3://nobody-has-this/p: The specified bucket does not exist"
    assert "AWS_ENDPOINT_URL_S3" in error.hint
    assert refused("s3://").message == "s3:// names no bucket"


def test_an_s3_that_does_not_answer_is_refused(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert "127.0.0.1:9" in refused(f"s3://{BUCKET}").message


def test_s3_without_boto3_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert (refused("s3://b").message, refused("s3://b").hint) == ("S3 needs boto3", "pip install 'face3d-tune[s3]'")


def test_a_bucket_that_goes_away_is_an_error_of_every_method(s3):
    place = Artifacts.parse(f"s3://{BUCKET}/p")
    s3.delete_bucket(Bucket=BUCKET)
    for use in (lambda: place.write("a", b""), lambda: place.remove("a"), lambda: place.names("")):
        with pytest.raises(ArtifactError, match="The specified bucket does not exist"):
            use()
    s3.create_bucket(Bucket=BUCKET)


# What a crash leaves in a folder

KILLED = """
import os, signal, sys
from face3d_tune.storage.artifacts import Artifacts
place = Artifacts.parse(sys.argv[1])
replace = os.replace
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
place.write("a", b"new" * 1000)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_kill_between_writing_and_renaming_leaves_the_old_content(folder, tmp_path):
    folder.write("a", b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "kept")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path / "kept")) == ["a", "a.partial"]
    assert (folder.read("a"), folder.names("")) == (b"old", ["a"])
    folder.write("a", b"newer")  # what was left is not in the way
    assert os.listdir(tmp_path / "kept") == ["a"]


def test_removing_a_name_removes_what_a_crash_has_left_of_it(folder, tmp_path):
    (tmp_path / "kept" / "a.partial").write_bytes(b"half")
    folder.remove("a")
    assert os.listdir(tmp_path / "kept") == []


def test_the_bytes_are_on_the_disk_before_the_name_is(folder, monkeypatch):
    steps, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("rename"), rename(*names)))
    folder.write("a", b"content")
    assert steps == ["fsync", "rename"]


def test_a_full_disk_leaves_the_old_content_and_no_half_file(folder, tmp_path, monkeypatch):
    folder.write("a", b"old")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ArtifactError) as caught:
            folder.write("a", b"new")
    assert caught.value.message == f"cannot write to {tmp_path / 'kept'}: No space left on device"
    assert (folder.read("a"), os.listdir(tmp_path / "kept")) == (b"old", ["a"])


def test_a_process_that_only_trains_into_a_folder_loads_neither_optuna_nor_boto3():
    code = "import sys, face3d_tune.executor.child; print(*({'optuna', 'boto3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
