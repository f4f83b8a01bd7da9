"""Requests that optuna-dashboard fails on or should refuse: answered or corrected before they reach it."""

import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from face3d_tune.dashboard.wsgi import refuse
from face3d_tune.storage.study_names import LONGEST_NAME, fault_of_new
from face3d_tune.system.safe_text import shorten

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_NAMING = re.compile(r"/+api/studies(/-?\d+/rename)?")  # addresses whose POST names a study
_LONGEST = 64 * 1024  # bytes of such a request
_DIGITS = 9  # of a number in an address, at most: no database id is longer
_NO_PLOTLY = (
    "this server draws no plots: plotly is not installed; the pages draw theirs in the browser. "
    "To have plots drawn here: pip install plotly"
)


class RequestFilter:
    """A WSGI application in front of optuna-dashboard."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app
        self._draws = find_spec("plotly") is not None  # optuna-dashboard imports it without a check

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer with 400, 404 or 501 what optuna-dashboard would fail on, and pass on the rest."""
        path = environ.get("PATH_INFO", "")
        steps = path.split("/")
        too_long = any(step.isdigit() and len(step) > _DIGITS for step in steps)
        if too_long or not path.isprintable() or "\\" in path or ".." in steps or len(path) > 1000:
            return refuse(start_response, HTTPStatus.NOT_FOUND, "there is no such page")
        if "plot" in steps and not self._draws:
            return refuse(start_response, HTTPStatus.NOT_IMPLEMENTED, _NO_PLOTLY)
        after = [value for key, value in parse_qsl(environ.get("QUERY_STRING", ""), True) if key == "after"]
        if not all(value.isascii() and value.isdigit() and len(value) <= _DIGITS for value in after):
            return refuse(start_response, HTTPStatus.BAD_REQUEST, "`after` should be a whole number from 0")
        if environ["REQUEST_METHOD"] == "POST" and _NAMING.fullmatch(path) and (fault := _fault_of_name(environ)):
            return refuse(start_response, HTTPStatus.BAD_REQUEST, fault)
        for name in [name for name, value in environ.items() if name.startswith("HTTP_") and not _is_text(value)]:
            del environ[name]
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        return self._app(environ, _corrected(start_response))


def _fault_of_name(environ: "WSGIEnvironment") -> str | None:
    """Return what is wrong with the study's name in a request, whose body stays readable; None if nothing is."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    if size > _LONGEST:
        return f"expected a JSON object of at most {_LONGEST} bytes"
    body = environ["wsgi.input"].read(size)
    environ["wsgi.input"] = BytesIO(body)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None  # optuna-dashboard refuses it
    name = content.get("study_name") if isinstance(content, dict) else None
    if not isinstance(name, str) or not (fault := fault_of_new(name)):
        return None
    return f"the study's name {fault}: {shorten(repr(name))}; expected 1 to {LONGEST_NAME}: give another"


def _is_text(value: str) -> bool:
    """Tell whether a header is UTF-8, of which WSGI gives the bytes as latin-1."""
    try:
        value.encode("latin-1").decode()
    except UnicodeError:
        return False
    return True


def _corrected(start_response: "StartResponse") -> "StartResponse":
    """Correct headers: redirect within the site that was asked, and name a download and its encoding.

    A proxy may have changed the site's name and scheme.
    """

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        fields = [(name, _CORRECTIONS.get(name.title(), str)(value)) for name, value in headers]
        return start_response(status, fields, *rest)

    return start


def _within_the_site(address: str) -> str:
    return urlsplit(address)._replace(scheme="", netloc="").geturl()


def _in_quotes(disposition: str) -> str:
    """Quote the name of a download, which optuna-dashboard does not: a browser would cut it at a space."""
    kind, bare, name = disposition.partition("filename=")
    if not bare or name.startswith('"'):
        return disposition
    read = name.encode("latin-1", "replace").decode(errors="replace")  # WSGI's form of UTF-8
    plain = re.sub(r"[^\w.-]", "_", read, flags=re.ASCII)
    return f"{kind}filename=\"{plain}\"; filename*=UTF-8''{quote(read, safe='')}"


_CORRECTIONS: dict[str, Callable[[str], str]] = {
    "Location": _within_the_site,
    "Content-Disposition": _in_quotes,
    "Content-Type": lambda kind: kind.replace("chatset=cp932", "charset=utf-8"),  # what it writes is UTF-8
}
