"""The real optuna-dashboard on a storage, guarded and enriched, served by waitress on any port."""

import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import optuna_dashboard
from optuna.storages import BaseStorage
from waitress import wasyncore

from face3d_tune.dashboard.additions import Additions
from face3d_tune.dashboard.best_trial import answer_with_own_best
from face3d_tune.dashboard.guard import Access, Guard, Public, is_loopback
from face3d_tune.dashboard.honest_answers import HonestAnswers, expose_errors
from face3d_tune.dashboard.http_server import HttpServer
from face3d_tune.dashboard.refresh import Refresh
from face3d_tune.dashboard.request_filter import RequestFilter
from face3d_tune.dashboard.steering import SCRIPT as STEERING
from face3d_tune.dashboard.steering import Steering
from face3d_tune.errors import ConfigError
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.brief_waits import wait_briefly
from face3d_tune.storage.optuna_internals import WideStorage
from face3d_tune.study import history

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_TOKEN = 16  # characters, at least
_ENDING = 1  # seconds for open answers when the server ends
# A thread works only while it answers a complete request: a slow client occupies none.
_WAITRESS = {
    "threads": 8,  # the plots of one visitor, and those of the next
    "connection_limit": 500,  # half of the files that Linux lets a process open
    "channel_timeout": 30,  # seconds without a byte
    "cleanup_interval": 5,  # seconds
    "max_request_header_size": 64 * 1024,  # cookies of other programs on this host come along
    "outbuf_high_watermark": 2**40,  # a slow reader's answer waits in a file, without a thread
    "ident": None,  # no Server header
    "log_socket_errors": False,  # a visitor who leaves is no error
    "asyncore_use_poll": hasattr(select, "poll"),
}
_CHANGE = 128 * 1024 * 1024  # bytes of a request that may change something: an uploaded file
_READ = 64 * 1024  # of any other request


class Server:
    """A server that listens from the beginning, and answers while `serve_forever` runs.

    Args:
        listening: A bound socket, from now on the server's.
        app: The application that answers.
        largest: Bytes that the body of a request may have.
        prepare: Called in a thread of its own as soon as the server answers.
    """

    def __init__(
        self, listening: socket.socket, app: "WSGIApplication", largest: int, prepare: Callable[[], object]
    ) -> None:
        logging.getLogger("waitress").setLevel(logging.CRITICAL)  # it logs a line for every thread that it waits for
        self.server_port: int = listening.getsockname()[1]
        self._prepare, self._ended = prepare, threading.Event()
        self._sockets: dict[int, Any] = {}
        self._waitress = HttpServer(app, self._sockets, listening, max_request_body_size=largest, **_WAITRESS)

    def serve_forever(self) -> None:
        """Answer until `shutdown` or an exception such as Ctrl-C."""
        threading.Thread(target=self._read_ahead, daemon=True).start()
        while not self._ended.is_set():
            wasyncore.loop(1.0, use_poll=self._waitress.adj.asyncore_use_poll, map=self._sockets, count=1)

    def shutdown(self) -> None:
        """End `serve_forever`, from another thread."""
        self._ended.set()
        self._waitress.pull_trigger()

    def server_close(self) -> None:
        """Close every connection."""
        self._waitress.task_dispatcher.shutdown(timeout=_ENDING)
        for channel in [*self._waitress.active_channels.values()]:  # before the pipe that their threads may write to
            channel.handle_close()
        wasyncore.close_all(self._sockets)

    def _read_ahead(self) -> None:
        with suppress(Exception):  # a visitor is told
            self._prepare()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.server_close()


def make_dashboard(
    storage: WideStorage,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    allow_changes: bool = False,
    token: str | None = None,
    public_urls: Iterable[str] = (),
    artifacts: Artifacts | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Server:
    """Make a server that listens but does not serve yet; `server_port` is its port.

    Args:
        storage: The storage whose studies are shown; from now on it reads them without histories.
        host: Name or address to listen on.
        port: To listen on; 0 takes a free one.
        allow_changes: Whether searches can be steered, and studies changed and deleted.
        token: What a visitor must show; needed where other machines reach the dashboard.
        public_urls: Where visitors find it behind a proxy.
        artifacts: The storage of the best weights.
        say: Receives a line about what could not be shown.

    Raises:
        ConfigError: The server cannot listen there, or should not without a token.
    """
    public = tuple(map(Public.parse, public_urls))
    if token is None and (public or not is_loopback(host)):
        place = f"at {public[0].origin}" if public else f"on {host}"
        tunnel = "; or omit --host and use a tunnel: ssh -L 8080:127.0.0.1:8080 THIS-MACHINE"
        raise ConfigError(
            f"{place} everyone in the network could look at the studies; expected --token TEXT",
            f"--token auto generates one{'' if public else tunnel}",
        )
    if token is not None and (len(token) < _TOKEN or not token.isascii() or not token.isalnum()):
        raise ConfigError(
            f"--token is too easy to guess or cannot stand in an address; expected {_TOKEN} or more letters and digits",
            "--token auto generates one",
        )
    store = None if artifacts is None else artifacts.optuna_store

    newest: list[Additions] = []

    def build(cached: BaseStorage) -> "WSGIApplication":
        answer_with_own_best(cached)
        app = Additions(expose_errors(optuna_dashboard.wsgi(cached, store)), cached, artifacts, say)
        newest[:] = [app]
        return Steering(app, storage, app.forget) if allow_changes else app

    def read_ahead() -> None:
        """Make the answer on the newest study: a second for three thousand trials."""
        now = refresh.look()
        newest[0].prepare(max(now.keys))

    listening = _listen(host, port)
    wait_briefly(storage)
    storage.unread |= {history.ATTR}  # a quarter of what 10,000 trials would occupy; additions read some
    refresh = Refresh(storage, build, [STEERING] if allow_changes else [])
    access = Access(host.lower(), listening.getsockname()[1], allow_changes, token, public)
    guarded = Guard(HonestAnswers(RequestFilter(refresh), say), access, refresh.look)
    return Server(listening, guarded, _CHANGE if allow_changes else _READ, read_ahead)


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name != "nt":  # on Windows the option would let two servers listen on one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", "use another --port (0 takes a free one) or --host"
        ) from error
    return listening
