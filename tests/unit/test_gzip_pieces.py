"""Pieces that were compressed once make one gzip file, as browsers read it."""

import zlib

import pytest

from face3d_tune.dashboard.gzip_pieces import Piece, gzipped, plain, plain_size
from face3d_tune.dashboard.wsgi import takes_gzip

TEXTS = {
    "none": [],
    "an empty one": [b""],
    "one": [b"abc"],
    "several": [b"[", b"", b'{"a": 1}' * 9000, b",", bytes(range(256)) * 300, b"]"],
    "many": [str(number).encode() * number for number in range(300)],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_they_are_one_member_with_the_right_checksum_and_length(texts):
    pieces = [Piece.of(text) for text in texts]
    reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # reads one member, as browsers do, and checks it
    assert reader.decompress(gzipped(pieces)) == b"".join(texts)
    assert reader.eof
    assert reader.unused_data == b""


def test_a_piece_belongs_into_any_file():
    first, second = Piece.of(b"first" * 1000), Piece.of(b"second" * 1000)
    for order in ([first, second], [second, first], [first, first]):
        assert zlib.decompress(gzipped(order), wbits=16 + zlib.MAX_WBITS) == b"".join(piece.text() for piece in order)


def test_a_wrong_piece_would_be_noticed():
    right, wrong = Piece.of(b"abc"), Piece.of(b"abd")
    mixed = Piece(wrong.deflated, right.size, right.crc, right.shift)
    with pytest.raises(zlib.error, match="incorrect data check"):
        zlib.decompress(gzipped([mixed]), wbits=16 + zlib.MAX_WBITS)


def test_who_takes_no_gzip_gets_the_bytes_and_knows_their_number():
    pieces = [Piece.of(b"abc"), Piece.of(b"d" * 100_000)]
    assert b"".join(plain(pieces)) == b"abc" + b"d" * 100_000
    assert plain_size(pieces) == 100_003


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip, deflate, br", True),
        ("GZIP;q=0.5", True),
        ("br, *", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.00, *", False),
        ("x-gzip2", False),
    ],
)
def test_gzip_is_for_those_who_take_it(header, takes):
    assert takes_gzip(header) == takes
