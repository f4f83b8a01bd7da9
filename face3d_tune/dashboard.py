"""The real optuna-dashboard on a storage, served by the standard library on any port, 0 included."""

import os
import socket
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.storages import BaseStorage

from face3d_tune.errors import ConfigError


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request, so that a slow plot does not hold up the page."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would let two servers listen on one port


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    """Does not print a line for every request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def make_dashboard(storage: BaseStorage, host: str, port: int) -> WSGIServer:
    """A server that listens but does not serve yet; `server_port` tells its port. Raises ConfigError if it cannot."""
    kind = _ServerIPv6 if ":" in host else _Server
    try:
        return make_server(host, port, optuna_dashboard.wsgi(storage), kind, _QuietHandler)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", "use another --port (0 takes a free one) or --host"
        ) from error
