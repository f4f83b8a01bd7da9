"""Scalars of TensorBoard's event files are read as they are written, and nothing else of the files matters."""

import base64
import math
import struct

import pytest

from face3d_tune.script.running import event_file
from face3d_tune.script.running.event_file import Scalar, read

# Written by torch.utils.tensorboard.SummaryWriter of torch 2.x with TensorBoard 2.21: add_scalar (also new_style, and
# with double_precision) at steps 1 and 2, a NaN at step 3, add_text; the second file by add_scalars("Loss/all", …).
WRITTEN = base64.b64decode(
    "SAAAAAAAAAD+kkidCVr1kdohw9pBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50X2ZpbGVfd3JpdG"
    "VyBRqHhyoAAAAAAAAAro2R9Qn2/pHaIcPaQRABKh0KGwoUVmFsL0Nvc2luZVNpbWlsYXJpdHkVAAAAPhbAFXUuAAAAAAAAAMXLV/oJxP+R2iHD"
    "2kEQASohCh8KBnRlbnNvckIICAEqBAAAgD5KCwoJCgdzY2FsYXJzJ1AhVDIAAAAAAAAAJBlW7Am4ApLaIcPaQRABKiUKIwoGZG91YmxlQgwIAj"
    "IImpmZmZmZuT9KCwoJCgdzY2FsYXJzLMxhWCoAAAAAAAAAro2R9QmGF5LaIcPaQRACKh0KGwoUVmFsL0Nvc2luZVNpbWlsYXJpdHkVAACAPr3V"
    "upEuAAAAAAAAAMXLV/oJ8ReS2iHD2kEQAiohCh8KBnRlbnNvckIICAEqBAAAAD9KCwoJCgdzY2FsYXJzp8zckjIAAAAAAAAAJBlW7AlSGJLaIc"
    "PaQRACKiUKIwoGZG91YmxlQgwIAjIImpmZmZmZyT9KCwoJCgdzY2FsYXJzcxYlHx4AAAAAAAAA2dwSMgn8GJLaIcPaQRADKhEKDwoIdW5zdGFi"
    "bGUVAADAfzuJFOk+AAAAAAAAANnSQOcJohmS2iHD2kEQASoxCi8KEndvcmRzL3RleHRfc3VtbWFyeUIPCAcSBBICCAFCBWhlbGxvSggKBgoEdG"
    "V4dN65svA="
)
OF_ADD_SCALARS = base64.b64decode(
    "SAAAAAAAAAD+kkidCV0Uktohw9pBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50X2ZpbGVfd3JpdG"
    "Vy5P9lMB4AAAAAAAAA2dwSMgnuApLaIcPaQRABKhEKDwoITG9zcy9hbGwVAAAAQGanArkeAAAAAAAAANncEjIJYhiS2iHD2kEQAioRCg8KCExv"
    "c3MvYWxsFQAAgD8BT1vS"
)


def crc32c(data):
    """The checksum bit by bit: division by the polynomial of Castagnoli, as RFC 3720 says it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15) + (crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    head = struct.pack("<Q", len(data))
    return head + masked(head) + data + masked(data)


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number % 128 + 128]), number // 128
    return out + bytes([number])


def delimited(field, data):
    return bytes([field * 8 + 2]) + varint(len(data)) + data


def event(tag, step, content):
    value = delimited(1, tag.encode()) + content
    step = b"\x10" + varint(step % 2**64) if step else b""
    return record(b"\x09" + struct.pack("<d", 1.7e9) + step + delimited(5, delimited(1, value)))


def simple(value):
    return b"\x15" + struct.pack("<f", value)


def tensor(kind, *fields):
    return delimited(8, b"\x08" + bytes([kind]) + b"".join(fields))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.out.tfevents.1.host"


def test_a_file_of_torch_gives_its_scalars_and_not_its_text(path):
    path.write_bytes(WRITTEN)
    scalars, offset = read(path)
    assert scalars[:-1] == [
        Scalar("Val/CosineSimilarity", 1, 0.125),
        Scalar("tensor", 1, 0.25),
        Scalar("double", 1, 0.1),  # exact, so not by way of 32 bits
        Scalar("Val/CosineSimilarity", 2, 0.25),
        Scalar("tensor", 2, 0.5),
        Scalar("double", 2, 0.2),
    ]
    assert (scalars[-1].tag, scalars[-1].step) == ("unstable", 3)
    assert math.isnan(scalars[-1].value)
    assert offset == len(WRITTEN)


def test_a_file_of_add_scalars_has_the_main_tag(path):
    path.write_bytes(OF_ADD_SCALARS)
    assert read(path)[0] == [Scalar("Loss/all", 1, 2.0), Scalar("Loss/all", 2, 1.0)]


def test_the_encoder_of_these_tests_has_the_known_checksum():
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (simple(-0.5), -0.5),
        (simple(math.inf), math.inf),
        (tensor(1, delimited(5, struct.pack("<f", 0.25))), 0.25),  # packed
        (tensor(1, b"\x2d" + struct.pack("<f", 0.25)), 0.25),  # one at a time
        (tensor(2, delimited(6, struct.pack("<d", 0.1))), 0.1),
        (tensor(1, delimited(2, b""), delimited(4, struct.pack("<f", 0.25))), 0.25),  # tensor_content
        (tensor(2, delimited(4, struct.pack("<d", 0.1))), 0.1),
        (tensor(1, b"\x18\x01", delimited(5, struct.pack("<f", 0.25))), 0.25),  # version_number
        (b"\x10\x07" + simple(-0.5), -0.5),  # the field as an integer before
    ],
)
def test_a_number_is_read_in_every_encoding(path, content, value):
    path.write_bytes(event("Val/Loss", 7, content))
    assert read(path)[0] == [Scalar("Val/Loss", 7, value)]


@pytest.mark.parametrize(
    "content",
    [
        tensor(1, delimited(5, struct.pack("<2f", 1, 2))),
        tensor(7, delimited(8, b"text")),
        delimited(4, b"an image"),
        b"",
    ],
)
def test_what_is_no_single_number_is_passed_over(path, content):
    path.write_bytes(event("x", 1, content) + event("y", 1, simple(2)))
    assert read(path)[0] == [Scalar("y", 1, 2.0)]


@pytest.mark.parametrize("step", [0, -1, 1, 300, 2**40])
def test_a_step_may_be_zero_negative_or_large(path, step):
    path.write_bytes(event("x", step, simple(1)))
    assert read(path)[0] == [Scalar("x", step, 1.0)]


def test_reading_resumes_where_it_stopped_whatever_has_been_written_of_a_record(path):
    first, second = event("x", 1, simple(1)), event("x", 2, simple(2))
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        scalars, offset = read(path)
        assert (scalars, offset) == ([Scalar("x", 1, 1.0)], len(first))
        path.write_bytes(first + second)
        assert read(path, offset) == ([Scalar("x", 2, 2.0)], len(first + second))


@pytest.mark.parametrize("place", [0, 9, 12, 20, -6, -1])
def test_a_corrupt_record_ends_the_file_quietly(path, place):
    first, second = event("x", 1, simple(1)), bytearray(event("x", 2, simple(2)))
    second[place] ^= 0x10
    path.write_bytes(first + second + event("x", 3, simple(3)))
    assert read(path) == ([Scalar("x", 1, 1.0)], len(first))


def test_bytes_that_are_no_event_file_give_nothing(path):
    for content in (
        b"",
        b"hello",
        bytes(100),
        b"\xff" * 100,
        record(b"\xff" * 30),
        record(b"\x2a\xff\xff\xff\x7f"),
        record(b"\x2b"),
    ):
        path.write_bytes(content)
        assert read(path) == ([], 0)


def test_a_long_record_is_passed_over_without_its_checksum(path):
    image = record(bytes(300_000))[:-4] + b"none"
    path.write_bytes(image + event("x", 1, simple(1)))
    assert read(path)[0] == [Scalar("x", 1, 1.0)]
    path.write_bytes(image[:-1])
    assert read(path) == ([], 0)


def test_a_file_of_more_bytes_than_a_call_reads_is_read_on_by_the_next(path, monkeypatch):
    first, second = event("x", 1, simple(1)), event("x", 2, simple(2))
    path.write_bytes(first + second)
    monkeypatch.setattr(event_file, "_MOST_READ", len(first))
    assert read(path) == ([Scalar("x", 1, 1.0)], len(first))
    assert read(path, len(first)) == ([Scalar("x", 2, 2.0)], len(first + second))
