"""A way to a PostgreSQL server that can fall silent: it takes every byte and passes none on."""

import contextlib
import os
import socket
import threading

from sqlalchemy import make_url


class Proxy:
    """Listens on 127.0.0.1 and connects everyone to the server of `url`, whose socket is a file.

    Attributes:
        url: The same database through this proxy.
        silent: Which ways swallow what is sent: "to", "from" (the server), or both.
    """

    def __init__(self, url):
        server = make_url(url)
        self._path = os.path.join(server.query["host"], f".s.PGSQL.{server.port or 5432}")
        self.silent, self._open = set(), []
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
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._open += [client, server]
                for source, target, way in ((client, server, "to"), (server, client, "from")):
                    threading.Thread(target=self._pass_on, args=(source, target, way), daemon=True).start()

    def _pass_on(self, source, target, way):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if way not in self.silent:
                    target.sendall(data)
            if way not in self.silent:
                target.shutdown(socket.SHUT_WR)
