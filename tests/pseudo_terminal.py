"""A program in a real pseudo-terminal, and what its screen shows. Not on Windows."""

import fcntl
import os
import pty
import re
import struct
import termios
import time

import pyte
from command_line import OURS, environment
from forked import Run

PATIENCE = 300  # seconds


class Terminal:
    """A program in a pseudo-terminal of so many columns; `seen` are all the screens that it showed."""

    def __init__(self, words, cwd, columns, settings=OURS, **more):
        self.screen = pyte.Screen(columns, 30)
        self._stream, self.seen, self.raw = pyte.ByteStream(self.screen), [], b""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        env = environment(settings, TERM="xterm-256color", **more)
        streams, first = (theirs, theirs, theirs), ("doomed", "hurry", {})
        self.process = Run(words, cwd=cwd, env=env, streams=streams, start_new_session=True, first=first)
        os.close(theirs)
        self._ours = ours

    def until(self, shown):
        """Read until these bytes were shown."""
        while shown not in self.raw:
            assert self._read(), "it ended before that"

    def until_it_shows(self, pattern):
        """Read until a line of its screen does."""
        while not self.shows(pattern):
            assert self._read(), "it ended before that"

    def close(self):
        """Close it, as a person closes its window: the kernel sends SIGHUP, and nothing can be written any more."""
        os.close(self._ours)

    def until_the_end(self):
        """Read everything that it shows; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._read():
            pass
        os.close(self._ours)
        return self.process.wait(timeout=PATIENCE)

    def _read(self):
        """What it wrote meanwhile; nothing at its end."""
        try:
            got = os.read(self._ours, 65536)
        except OSError:  # its side is closed
            return b""
        self.raw += got
        self._stream.feed(got)
        self.seen.append([line.rstrip() for line in self.screen.display])
        return got

    def shows(self, pattern):
        """Whether a line of any of its screens did."""
        return any(re.search(pattern, line) for screen in self.seen for line in screen)
