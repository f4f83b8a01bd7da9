"""A way to a PostgreSQL server that can fall silent or be long: it passes bytes on late, or takes them and none on."""

import contextlib
import os
import queue
import socket
import threading
import time

from sqlalchemy import make_url


class Proxy:
    """Listens on 127.0.0.1 and connects everyone to the server of `url`, whose socket is a file.

    Attributes:
        url: The same database through this proxy.
        silent: Which ways swallow what is sent: "to", "from" (the server), or both.
        delay: Seconds that every byte takes, each way.
        round_trips: How often a client has sent something, and waited for the answer; also to connect.
    """

    def __init__(self, url, delay=0.0):
        server = make_url(url)
        self._path = os.path.join(server.query["host"], f".s.PGSQL.{server.port or 5432}")
        self.silent, self._open = set(), []
        self.delay, self.round_trips = delay, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        through = server.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={})
        self.url = through.render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for way in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                way.shutdown(socket.SHUT_RDWR)
            way.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.round_trips += 1  # TCP's own
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._open += [client, server]
                asked = []  # empty once the server has answered
                for source, target, way in ((client, server, "to"), (server, client, "from")):
                    under_way = queue.SimpleQueue()
                    threading.Thread(target=self._read, args=(source, under_way, way, asked), daemon=True).start()
                    threading.Thread(target=self._pass_on, args=(under_way, target, way), daemon=True).start()

    def _read(self, source, under_way, way, asked):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if way == "to" and not asked:
                    self.round_trips += 1
                asked[:] = [True] if way == "to" else []
                under_way.put((time.monotonic() + self.delay, data))
        under_way.put((time.monotonic() + self.delay, b""))

    def _pass_on(self, under_way, target, way):
        with contextlib.suppress(OSError):
            while True:
                due, data = under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if way not in self.silent:
                    target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
                if not data:
                    return
