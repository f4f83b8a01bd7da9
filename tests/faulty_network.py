"""A way to a server on which everything happens that happens in networks; for tests and for `benchmarks/network.py`."""

import contextlib
import re
import socket
import struct
import threading
import time
from collections import Counter

_NOW = struct.pack("ii", 1, 0)  # SO_LINGER: the close is a RST
_WRITE = re.compile(rb"\b(commit|insert\s+into|delete\s+from|update\s+\w+\s+set)\b", re.IGNORECASE).search
_PREPARE = re.compile(rb"(_pg3_\d+\0)([^\0]*)").findall  # the names that psycopg gives, and their statements
_LOOK = 0.02  # seconds between two looks at whether a hole is over


class FaultyNetwork:
    """Listens on 127.0.0.1 and connects every client to a server.

    Args:
        server: The path of its socket, or its host and port.
        delay: Seconds that all data take, each way.

    Attributes:
        port: Where it listens.
        delay: As above; it may change.
        lost_writes: Of so many writes the answer is lost: the server has done them, then the connection is reset.
        cut_answers: So many answers are cut in half by a reset.
        happened: How often each fault met a connection.
    """

    def __init__(self, server, delay=0.0):
        self._server, self.delay = server, delay
        self.lost_writes = self.cut_answers = 0
        self.happened = Counter()
        self._holds_until = self._silent_until = self._refuses_until = 0.0
        self._links, self._over = set(), False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over, self._holds_until, self._silent_until = True, 0.0, 0.0
        self._wake_up()
        self._accepting.join(1.0)
        self.reset()

    def reset(self):
        """Reset every connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()
        self.happened["resets"] += len(links)

    def hole(self, seconds):
        """Pass nothing on for a time, and all of it afterwards."""
        self._holds_until = time.monotonic() + seconds

    def silence(self, seconds):
        """Acknowledge everything and lose it; a connection that has lost something says nothing ever after."""
        self._silent_until = time.monotonic() + seconds

    def refuse(self, seconds):
        """Refuse new connections for a time, and reset those that stand."""
        self._refuses_until = time.monotonic() + seconds
        self._wake_up()
        self.reset()

    def _wake_up(self):
        """Let the listener's thread look at what it should do."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RD)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._listener.close()
                while not self._over and time.monotonic() < self._refuses_until:
                    time.sleep(_LOOK)
                if self._over:
                    return
                self._listener = socket.create_server(("127.0.0.1", self.port))
                continue
            try:
                server = socket.socket(socket.AF_UNIX) if isinstance(self._server, str) else socket.socket()
                server.connect(self._server)
            except OSError:  # it is restarting
                server.close()
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()

    def ended(self, link):
        """Forget a connection."""
        with self._lock:
            self._links.discard(link)

    def takes(self, fault):
        """Tell whether this fault is to meet whoever asks."""
        with self._lock:
            if getattr(self, fault) <= 0:
                return False
            setattr(self, fault, getattr(self, fault) - 1)
        self.happened[fault] += 1
        return True

    def wait(self, link):
        """Take the time that data take now."""
        time.sleep(self.delay)
        held = time.monotonic() < self._holds_until
        self.happened["held"] += held
        while time.monotonic() < self._holds_until and not link.broken:
            time.sleep(_LOOK)

    @property
    def silent(self):
        """Return whether it loses everything now."""
        return time.monotonic() < self._silent_until


class _Link:
    """One connection through the network."""

    def __init__(self, network, client, server):
        self.broken = False
        self._network, self._client, self._server = network, client, server
        self._lost = self._loses_answer = False
        self._prepared = set()  # names of statements that write
        self._open, self._lock = 2, threading.Lock()

    def start(self):
        for way in ((self._client, self._server, "to"), (self._server, self._client, "from")):
            threading.Thread(target=self._pass_all_on, args=way, daemon=True).start()

    def reset(self):
        """Reset the client's connection, and end the server's; the threads close them, as only they use them."""
        self.broken = True
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)

    def _pass_all_on(self, source, target, way):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._pass_on(data, target, way)
                if self.broken:
                    break
            self._stay_silent()
            if not self.broken:
                target.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open -= 1
            last = not self._open
        if last:
            self._network.ended(self)
            self._client.close()
            self._server.close()

    def _pass_on(self, data, target, way):
        self._network.wait(self)
        if self._network.silent:
            self._network.happened["silenced"] += not self._lost
            self._lost = True
        if self._lost or self.broken:
            return
        if way == "to" and self._writes(data) and self._network.takes("lost_writes"):
            self._loses_answer = True
        elif way == "from" and self._loses_answer:
            self.reset()
            return
        elif way == "from" and len(data) > 1 and self._network.takes("cut_answers"):
            target.sendall(data[: len(data) // 2])
            self.reset()
            return
        target.sendall(data)

    def _writes(self, data):
        """Tell whether a client writes, also by the name of a statement that it has prepared."""
        self._prepared |= {name for name, statement in _PREPARE(data) if _WRITE(statement)}
        return bool(_WRITE(data)) or any(name in data for name in self._prepared)

    def _stay_silent(self):
        """Let the other end learn of an end only when the silence is over."""
        while self._lost and self._network.silent and not self.broken:
            time.sleep(_LOOK)
