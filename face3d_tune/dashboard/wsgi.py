"""The application's side of WSGI: read an inner application's whole answer, and answer with JSON."""

import json
from contextlib import closing, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

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
