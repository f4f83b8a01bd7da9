"""The application's side of WSGI: read an inner application's whole answer, and answer with JSON."""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from face3d_tune.dashboard.gzip_pieces import Piece, gzipped, plain, plain_size

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

READING = ("GET", "HEAD")


def whole(app: "WSGIApplication", environ: "WSGIEnvironment") -> tuple[str, dict[str, str], bytes]:
    """Return status, headers by their titles, and body of an inner application's answer."""
    began: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        began[:] = status, {name.title(): value for name, value in headers}

    parts: Any = app(environ, start)
    with closing(parts) if hasattr(parts, "close") else nullcontext():
        body = b"".join(parts)
    status, headers = began
    return status, headers, body


def send(start_response: "StartResponse", status: str, headers: dict[str, str], body: bytes) -> list[bytes]:
    """Answer with this body and its length."""
    start_response(status, [*(headers | {"Content-Length": str(len(body))}).items()])
    return [body]


def send_pieces(
    environ: "WSGIEnvironment", start_response: "StartResponse", pieces: Sequence[Piece]
) -> Iterable[bytes]:
    """Answer with JSON in pieces: compressed, if the visitor takes it, else one piece after the other."""
    fields = {"Content-Type": "application/json", "Vary": "Accept-Encoding"}
    if takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
        return send(start_response, "200 OK", fields | {"Content-Encoding": "gzip"}, gzipped(pieces))
    start_response("200 OK", [*(fields | {"Content-Length": str(plain_size(pieces))}).items()])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else plain(pieces)


def takes_gzip(accepted: str) -> bool:
    """Tell whether an Accept-Encoding header allows gzip: by name, or by an asterisk, and with a quality above 0."""
    for name in ("gzip", "*"):
        for choice in accepted.lower().split(","):
            coding, _, quality = choice.partition(";")
            if coding.strip() == name:
                return re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", quality) is None
    return False


def send_json(
    start_response: "StartResponse", status: HTTPStatus, content: Any, headers: dict[str, str] | None = None
) -> list[bytes]:
    """Answer with JSON that is never cached."""
    fields = {"Content-Type": "application/json", "Cache-Control": "no-store"} | (headers or {})
    return send(start_response, f"{status.value} {status.phrase}", fields, json.dumps(content).encode())


def refuse(
    start_response: "StartResponse", status: HTTPStatus, reason: str, headers: dict[str, str] | None = None
) -> list[bytes]:
    """Answer with a `reason`, which optuna-dashboard's own pages show."""
    return send_json(start_response, status, {"reason": reason}, headers)
