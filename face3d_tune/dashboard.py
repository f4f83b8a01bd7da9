"""The real optuna-dashboard on a storage, served by the standard library on any port, 0 included."""

from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.storages import BaseStorage

from face3d_tune.errors import ConfigError


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request, so that a slow plot does not hold up the page."""

    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    """Does not print a line for every request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def make_dashboard(storage: BaseStorage, host: str, port: int) -> WSGIServer:
    """A server that listens but does not serve yet; `server_port` tells its port. Raises ConfigError if it cannot."""
    try:
        return make_server(host, port, optuna_dashboard.wsgi(storage), _Server, _QuietHandler)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", "use another --port; 0 takes a free one"
        ) from error
