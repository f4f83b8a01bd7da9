"""A SummaryWriter for scalars, for machines without TensorBoard.

Like torch's, it buffers until flush, close, or a scalar that comes flush_secs after the last flush.
"""

import os
import socket
import struct
import time


def _crc_table():
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        yield n


CRC_TABLE = tuple(_crc_table())


def masked_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record(data):
    """A TFRecord: length, its checksum, the bytes, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, data):
    """A field of a protocol buffer that holds bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


class SummaryWriter:
    def __init__(self, log_dir, flush_secs=120):
        os.makedirs(log_dir, exist_ok=True)
        self.started = time.time()
        name = f"events.out.tfevents.{int(self.started)}.{socket.gethostname()}.{os.getpid()}.0"
        self.path = os.path.join(log_dir, name)
        self.flush_secs = flush_secs
        self.flushed = self.started
        self.buffer = record(self._event(field(3, b"brain.Event:2")))
        self.flush()

    def _event(self, content, step=None):
        head = b"\x09" + struct.pack("<d", time.time())
        return head + (b"" if step is None else b"\x10" + varint(step)) + content

    def add_scalar(self, tag, value, step):
        summary = field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        self.buffer += record(self._event(field(5, summary), step))
        if time.time() - self.flushed > self.flush_secs:
            self.flush()

    def flush(self):
        with open(self.path, "ab") as file:
            file.write(self.buffer)
        self.buffer = b""
        self.flushed = time.time()

    def close(self):
        self.flush()
