"""waitress as an HTTP server that answers every request: also a malformed one, a HEAD, and one of a crowd."""

import socket
from contextlib import suppress
from typing import Any

from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import InternalServerError

_CROWD = 100  # connections accepted in a row
_DROPPED = 32 * 1024 * 1024  # bytes that a client may still send after a refusal
_PIECE = 64 * 1024  # bytes of them read at once
_UNREADABLE = "the file could not be read"


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    asks_for_head = False

    def received(self, data: bytes) -> Any:
        if not self.headers_finished and not self.header_plus:
            self.asks_for_head = data.lstrip().startswith(b"HEAD ")
        return super().received(data)

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head of a request. Raises ParsingError, which waitress answers with 400."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of a number too long, or an address that is none: waitress would hang up
            raise ParsingError("Request is malformed") from error
        if self.body_rcv is None:
            self.expect_continue = False  # waitress would wait for a body that never comes


class _Task(WSGITask):  # type: ignore[misc]
    def finish(self) -> None:
        if self.request.command == "HEAD":
            self.write(b"")  # the headers
            self.chunked_response = False  # else the end of the chunks would follow
        super().finish()


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    @property
    def has_body(self) -> bool:
        return super().has_body and not self.request.asks_for_head

    def execute(self) -> None:
        if isinstance(self.request.error, InternalServerError):  # a file that failed after the application's answer
            self.request.error.code, self.request.error.reason = 503, "Service Unavailable"
            self.request.error.body = _UNREADABLE
        self.channel.refused = True
        super().execute()


class _Channel(HTTPChannel):  # type: ignore[misc]
    parser_class, task_class, error_task_class = _Parser, _Task, _ErrorTask
    will_close: bool
    current_outbuf_count: int
    refused = False  # a request of which the client may still be sending the rest
    _to_drop: int | None = None  # bytes, once the refusal is sent

    def write_soon(self, data: Any) -> int:
        """Pass data on to be sent.

        A buffer in memory keeps what was sent of it. Without a new one now and then, a fast reader's whole answer would
        stay there. A slow reader's is in a file.
        """
        with self.outbuf_lock:
            limit = self.adj.outbuf_overflow
            if self.current_outbuf_count >= limit and not self.outbufs[-1].overflowed:
                self.outbufs.append(OverflowableBuffer(limit))
                self.current_outbuf_count = 0
        return int(super().write_soon(data))

    def handle_close(self) -> None:
        """Close the connection; after a refusal, first end the answer and let the client close.

        Closing with unread bytes resets the connection, and the client may lose the answer. The wait ends with
        `channel_timeout`, as dropped bytes are no activity.
        """
        if self.will_close and self.refused and self.connected:
            self.refused, self.will_close, self._to_drop = False, False, _DROPPED
            with suppress(OSError):  # the client is gone
                self.socket.shutdown(socket.SHUT_WR)
                return
        super().handle_close()

    def handle_read(self) -> None:
        """Read what the client sends, and drop it after a refusal."""
        if self._to_drop is None:
            super().handle_read()
            return
        with suppress(OSError):
            self._to_drop -= len(self.recv(_PIECE))
            if self._to_drop > 0:
                return
        self.handle_close()


class HttpServer(TcpWSGIServer):  # type: ignore[misc]
    """A server on a bound socket.

    Args:
        application: A WSGI application.
        sockets: What it listens to, by descriptor; filled by the server.
        listening: The bound socket.
        settings: waitress's.
    """

    channel_class = _Channel

    def __init__(self, application: Any, sockets: dict[int, Any], listening: Any, **settings: Any) -> None:
        adjustments = Adjustments(sockets=[listening], **settings)
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(adjustments.threads)
        place = (listening.family, listening.type, listening.proto, listening.getsockname())
        super().__init__(
            application,
            sockets,
            _sock=listening,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=place,
            bind_socket=False,
        )

    def handle_accept(self) -> None:
        """Accept every connection that waits: while threads work, this one gets its turn 20 times a second."""
        for _ in range(_CROWD):
            before = len(self._map)
            super().handle_accept()
            if len(self._map) in (before, self.adj.connection_limit):
                return
