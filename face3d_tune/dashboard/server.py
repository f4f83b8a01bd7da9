"""The real optuna-dashboard on a storage, guarded and enriched, served by the standard library on any port."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard
from optuna.storages import BaseStorage, RDBStorage

from face3d_tune.artifacts import Artifacts
from face3d_tune.dashboard.enrich import Enriched
from face3d_tune.dashboard.guard import Access, Guard, is_loopback
from face3d_tune.errors import ConfigError

_TOKEN = 16  # characters, at least


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request, so that a slow plot does not hold up the page."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would let two servers listen on one port
    shown: BaseStorage

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `shutdown`, and meanwhile read what the first visitor will ask for."""
        threading.Thread(target=self._read_ahead, daemon=True).start()
        super().serve_forever(poll_interval)

    def _read_ahead(self) -> None:
        """Take the newest study's finished trials into the storage's cache: a second for a thousand of them."""
        with suppress(Exception):  # whoever asks is told
            newest = max(study._study_id for study in self.shown.get_all_studies())
            self.shown.get_all_trials(newest, deepcopy=False)


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    """Does not print a line for every request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def make_dashboard(
    storage: RDBStorage,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    allow_changes: bool = False,
    token: str | None = None,
    artifacts: Artifacts | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> WSGIServer:
    """A server that listens but does not serve yet; `server_port` tells its port.

    Args:
        storage: Whose studies are shown.
        host: Name or address to listen on.
        port: To listen on; 0 takes a free one.
        allow_changes: Whether studies can be changed and deleted.
        token: What a visitor must show; needed where other machines reach `host`.
        artifacts: Where best weights were kept.
        say: Told in a line what could not be shown.

    Raises:
        ConfigError: It cannot listen there, or should not without a token.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"on {host} everyone in the network could look at the studies; expected --token TEXT",
            "--token auto makes one up; or leave --host away and tunnel: ssh -L 8080:127.0.0.1:8080 THIS-MACHINE",
        )
    if token is not None and (len(token) < _TOKEN or not token.isascii() or not token.isalnum()):
        raise ConfigError(
            f"--token is too easy to guess or cannot stand in an address; expected {_TOKEN} or more letters and digits",
            "--token auto makes one up",
        )
    kind = _ServerIPv6 if ":" in host else _Server
    try:
        server = make_server(host, port, _nothing, kind, _QuietHandler)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", "use another --port (0 takes a free one) or --host"
        ) from error
    server.shown = cached = optuna.storages.get_storage(storage)  # finished trials are read once
    store = None if artifacts is None else artifacts.optuna_store
    shown = Enriched(optuna_dashboard.wsgi(cached, store), cached, artifacts, say)
    access = Access(host.lower(), server.server_port, allow_changes, token)
    server.set_app(Guard(shown, access, cached.get_all_studies))
    return server


def _nothing(_environ: Any, _start_response: Any) -> list[bytes]:
    raise AssertionError("nobody is served before the dashboard is complete")
