"""The dashboard of the storage's current content: a deleted study is gone, and never shown as the next one.

A page in a browser caches trials too, and asks only for later ones. A script of ours reloads it when an answer is about
another study.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage, RDBStorage

from face3d_tune.dashboard.bounded_question import BoundedQuestion
from face3d_tune.dashboard.wsgi import refuse, send, whole
from face3d_tune.storage.optuna_internals import forget_importances
from face3d_tune.study.storage_cache import Snapshot, StorageCache

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

KEY = "X-Study-Key"  # names the study of an answer
_SCRIPT = "/face3d-tune.js"
_HEAD = b"<head>"
_STORED = ("/api/", "/artifacts/", "/csv/")  # addresses of stored content
_STUDY = re.compile(r"/(?:api/studies|api/artifacts|artifacts|csv)/(-?\d+)(?:/.*)?")


class Refresh:
    """A WSGI application in front of the one that `build` makes for every new cache.

    Args:
        storage: Where the studies are.
        build: Makes the dashboard of a cached storage.
        scripts: Addresses of more scripts for its pages.
    """

    def __init__(
        self, storage: RDBStorage, build: Callable[[BaseStorage], "WSGIApplication"], scripts: Sequence[str] = ()
    ) -> None:
        def anew(cached: BaseStorage) -> "WSGIApplication":
            forget_importances()
            return build(cached)

        self._cache = StorageCache(storage, anew)
        self._look = BoundedQuestion(self._cache.look)
        self._tags = "".join(f'<script src="{each}"></script>' for each in (_SCRIPT, *scripts))
        self._script = files("face3d_tune.dashboard").joinpath("reload.js").read_bytes()

    def look(self) -> Snapshot["WSGIApplication"]:
        """Read which studies exist. Raises an exception if the storage does not answer."""
        return self._look()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer from the storage's current content."""
        path = environ.get("PATH_INFO", "")
        if path == _SCRIPT:
            return send(start_response, "200 OK", {"Content-Type": "text/javascript"}, self._script)
        if path.startswith(_STORED):
            return self._stored(path, environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and f"{path}/".startswith("/dashboard/"):
            return self._page(environ, start_response)
        return self._cache.built(environ, start_response)

    def _stored(self, path: str, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            now = self.look()
        except Exception as error:  # a driver's text may hold the password
            reason = f"the storage does not answer ({type(error).__name__})"
            return refuse(start_response, HTTPStatus.SERVICE_UNAVAILABLE, reason)
        study = _STUDY.fullmatch(path)
        if study is None:
            return now.built(environ, start_response)
        key = {str(study_id): key for study_id, key in now.keys.items()}.get(study[1])
        if key is None:
            return refuse(start_response, HTTPStatus.NOT_FOUND, f"study_id={study[1]} is not found")
        return now.built(environ, _telling(start_response, key))

    def _page(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer with optuna-dashboard's page and the script; always whole, as a browser may have cached it without the
        script.
        """
        request = {name: value for name, value in environ.items() if not name.startswith(("HTTP_IF_", "HTTP_RANGE"))}
        status, headers, body = whole(self._cache.built, request)
        headers = {name: value for name, value in headers.items() if name not in ("Last-Modified", "Etag")}
        headers |= {"Cache-Control": "no-cache"}
        return send(start_response, status, headers, body.replace(_HEAD, _HEAD + self._tags.encode(), 1))


def _telling(start_response: "StartResponse", key: str) -> "StartResponse":
    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start_response(status, [*headers, (KEY, key)], *rest)

    return start
