"""Requests that optuna-dashboard fails on: answered or corrected before they reach it."""

from collections.abc import Iterable
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from face3d_tune.dashboard.wsgi import refuse

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
        for name in [name for name, value in environ.items() if name.startswith("HTTP_") and not _is_text(value)]:
            del environ[name]
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        return self._app(environ, _relative(start_response))


def _is_text(value: str) -> bool:
    """Tell whether a header is UTF-8, of which WSGI gives the bytes as latin-1."""
    try:
        value.encode("latin-1").decode()
    except UnicodeError:
        return False
    return True


def _relative(start_response: "StartResponse") -> "StartResponse":
    """Redirect within the site that the browser asked, whose name and scheme a proxy may have changed."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        fields = [
            (name, urlsplit(value)._replace(scheme="", netloc="").geturl() if name.title() == "Location" else value)
            for name, value in headers
        ]
        return start_response(status, fields, *rest)

    return start
