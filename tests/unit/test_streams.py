"""What a command prints while its terminal closes, its pipe loses its reader, or its disk is full."""

import errno
import io
import os
import sys

import pytest
from command_line import call

from face3d_tune.cli.main import main
from face3d_tune.cli.streams import Lasting, lasting, reader_gone


class Broken(io.RawIOBase):
    """Takes so many bytes, a few at a time, and then fails."""

    def __init__(self, room, number):
        super().__init__()
        self.room, self.number, self.taken, self.tries = room, number, b"", 0

    def writable(self):
        return True

    def write(self, data):
        self.tries += 1
        if not self.room:
            raise OSError(self.number, os.strerror(self.number))
        some = bytes(data[: min(4, self.room)])
        self.room -= len(some)
        self.taken += some
        return len(some)


def text_over(raw):
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO], ids=["a pipe without a reader", "a closed terminal"])
@pytest.mark.parametrize("needed", [False, True], ids=["stderr", "stdout"])
def test_what_reaches_nobody_is_dropped_and_not_tried_again(number, needed):
    raw = Broken(6, number)
    stream = Lasting(text_over(raw), needed=needed)
    stream.write("12345\n")
    assert (raw.taken, stream.gone) == (b"12345\n", False)
    stream.write("more\n")
    assert stream.gone
    tries = raw.tries
    stream.write("and more\n")
    stream.flush()
    assert (raw.taken, raw.tries) == (b"12345\n", tries)


def test_a_full_disk_is_an_error_for_output_and_loses_lines_of_progress():
    full = Broken(0, errno.ENOSPC)
    stream = text_over(full)  # closes what it writes to when nobody holds it
    with pytest.raises(OSError, match="No space left"):
        Lasting(stream, needed=True).write("the command\n")
    progress = Lasting(stream, needed=False)
    progress.write("epoch 1\n")
    full.room = 100  # somebody has made room
    progress.write("epoch 2\n")
    assert (full.taken, progress.gone) == (b"epoch 2\n", False)


def test_output_that_may_be_lost_is_dropped_with_one_word_about_it():
    full, told = Broken(0, errno.ENOSPC), []
    stream = Lasting(text_over(full), needed=True)
    stream.lose(told.append)
    stream.write("epoch 1\n")
    stream.write("epoch 2\n")
    full.room = 100
    stream.write("epoch 3\n")
    assert (full.taken, told) == (b"epoch 3\n", ["No space left on device"])


def test_a_name_that_the_code_page_lacks_is_written_in_another_way():
    raw = Broken(100, errno.EPIPE)
    Lasting(io.TextIOWrapper(io.BufferedWriter(raw), encoding="ascii"), needed=True).write("结果\n")
    assert raw.taken == b"\\u7ed3\\u679c\n"


def test_what_was_printed_before_comes_first_and_the_streams_are_put_back(monkeypatch):
    raw = Broken(100, errno.EPIPE)
    stream = text_over(raw)
    monkeypatch.setattr(sys, "stdout", stream)
    print("before")
    with lasting():
        print("inside")
        assert not reader_gone()
        raw.room = 0
        print("lost")
        assert reader_gone()
    assert sys.stdout is stream
    raw.room = 100
    print("after", flush=True)
    assert raw.taken == b"before\ninside\nafter\n"


def test_a_handler_may_print_while_something_is_printed(monkeypatch):
    """As that of a signal does; a buffer in between would refuse."""
    inner = []

    class Interrupted(Broken):
        def write(self, data):
            if not inner:
                inner.append(True)
                stream.write("stopping\n")
            return super().write(data)

    raw = Interrupted(100, errno.EPIPE)
    stream = Lasting(text_over(raw), needed=False)
    stream.write("epoch 1\n")
    assert sorted(raw.taken.decode().split()) == ["1", "epoch", "stopping"]


@pytest.mark.skipif(os.name == "nt", reason="what a broken pipe says differs there")
def test_a_command_whose_reader_has_gone_ends_as_if_it_were_read(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            main(["presets", "recommended"])
    assert ended.value.code == 0
    assert call("presets", "recommended", cwd=tmp_path).out
