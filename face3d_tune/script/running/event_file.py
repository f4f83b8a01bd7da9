"""TensorBoard's event files: their scalars, read without TensorBoard and without protobuf.

A file is a row of TFRecords, each a length, its checksum, data and their checksum
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). The data is an `Event`
(https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto, with summary.proto,
tensor.proto and types.proto beside it) in the encoding of https://protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
_LONGEST = 256 * 1024  # bytes of a record with scalars; longer ones are images, graphs and embeddings
_MOST_READ = 64 * 2**20  # bytes of a file in one call
_FLOAT, _DOUBLE = 1, 2  # DT_FLOAT and DT_DOUBLE of types.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

_Field = int | bytes


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar of an event file; `value` may be NaN or infinite."""

    tag: str
    step: int
    value: float


def read(path: Path, offset: int = 0) -> tuple[list[Scalar], int]:
    """Read the scalars from a byte of the file on, and return them with the byte where the next call begins.

    A record at the end that is not yet whole is left for the next call. At a corrupt record the file ends: the offset
    stays before it. Raises OSError.
    """
    scalars: list[Scalar] = []
    end = offset + _MOST_READ
    with path.open("rb") as file:
        file.seek(offset)
        while offset < end:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            length, checksum = _HEAD.unpack(head)
            if masked(head[:8]) != checksum:
                break
            following = offset + _HEAD.size + length + _CHECKSUM.size
            if length > _LONGEST:
                file.seek(following - 1)
                if not file.read(1):
                    break
            else:
                data, foot = file.read(length), file.read(_CHECKSUM.size)
                if len(foot) < _CHECKSUM.size:
                    break
                found = _scalars(data)
                # Histograms cost too much to check, and only scalars count.
                if found is None or (found and masked(data) != _CHECKSUM.unpack(foot)[0]):
                    break
                scalars += found
            offset = following
    return scalars, offset


def _table() -> list[int]:
    """Compute the table of CRC-32C (Castagnoli), reflected, by byte."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def masked(data: bytes) -> int:
    """Compute the CRC-32C of bytes, rotated and shifted as TFRecords store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _scalars(event: bytes) -> list[Scalar] | None:
    """Decode the scalars of an Event; None if the bytes are none."""
    try:
        step, summaries = 0, []
        for number, field in _fields(event):
            if number == 2 and isinstance(field, int):
                step = field - 2**64 if field >= 2**63 else field
            elif number == 5 and isinstance(field, bytes):
                summaries.append(field)
        values = [field for summary in summaries for number, field in _fields(summary) if number == 1]
        read = [_value(value) for value in values if isinstance(value, bytes)]
        return [Scalar(tag, step, value) for tag, value in read if tag and value is not None]
    except (IndexError, ValueError, struct.error):
        return None


def _value(value: bytes) -> tuple[str, float | None]:
    """Decode the tag and the number of a Summary.Value; None for what is no scalar."""
    tag, found = "", None
    for number, field in _fields(value):
        if not isinstance(field, bytes):
            continue
        if number == 1:
            tag = field.decode()
        elif number == 2 and len(field) == 4:
            (found,) = struct.unpack("<f", field)
        elif number == 8:
            found = _tensor(field)
    return tag, found


def _tensor(tensor: bytes) -> float | None:
    """Decode the one number of a TensorProto; None if it has several, or other than floats."""
    kind, content, values = 0, b"", {_FLOAT: b"", _DOUBLE: b""}
    for number, field in _fields(tensor):
        if number == 1 and isinstance(field, int):
            kind = field
        elif isinstance(field, bytes):
            if number == 4:
                content = field
            elif number == 5:
                values[_FLOAT] += field  # packed, or one at a time
            elif number == 6:
                values[_DOUBLE] += field
    if kind not in values:
        return None
    single = struct.Struct("<f" if kind == _FLOAT else "<d")
    stored = content or values[kind]
    return float(single.unpack(stored)[0]) if len(stored) == single.size else None


def _fields(message: bytes) -> Iterator[tuple[int, _Field]]:
    """Split a protobuf message into its fields: varints as int, all others as bytes.

    Raises ValueError or IndexError if the bytes are no message.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == _BYTES:
            length, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + length > len(message):
            raise ValueError("a field ends after its message")
        yield number, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Decode a varint, and return it with the place after it."""
    value = shift = 0
    while shift < 70:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
    raise ValueError("a varint of more than ten bytes")
