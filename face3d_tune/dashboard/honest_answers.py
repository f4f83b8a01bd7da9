"""One answer for whatever goes wrong in a request: its cause as a status, never 500 and never a traceback.

optuna-dashboard trusts what a database holds and what a visitor sends. It turns its errors into 500 itself, and logs
them.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError

from face3d_tune.dashboard.wsgi import READING, refuse
from face3d_tune.errors import ArtifactError, StorageError
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.optuna_internals import NO_RECORD, let_errors_out
from face3d_tune.system.safe_text import safe

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_FAILED = "500"
_AGAIN = "5"  # seconds after which a visitor's program may ask again


def header_value(text: str) -> str:
    """Return text that a header can hold: on one line, in latin-1 as WSGI wants it."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return line.encode("latin-1", "replace").decode("latin-1")


class _Logged(logging.Handler):
    """The errors that optuna-dashboard logs and does not raise: the last of each thread."""

    def __init__(self) -> None:
        super().__init__()
        self._of_thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._of_thread.error = sys.exc_info()[1]

    def take(self) -> BaseException | None:
        """Return the last error of this thread, once."""
        error: BaseException | None = getattr(self._of_thread, "error", None)
        self._of_thread.error = None
        return error


_logged = _Logged()


def expose_errors(app: Any) -> "WSGIApplication":
    """Let an application of optuna-dashboard raise its errors, or log them here and nowhere else."""
    let_errors_out(app)
    logger = logging.getLogger("optuna_dashboard")
    logger.propagate = False
    if _logged not in logger.handlers:
        logger.addHandler(_logged)
    return app  # type: ignore[no-any-return]


class HonestAnswers:
    """A WSGI application around another.

    Args:
        app: The dashboard.
        say: Receives a line, once, about content that could not be shown.
    """

    def __init__(self, app: "WSGIApplication", say: Callable[[str], object]) -> None:
        self._app, self._say = app, say
        self._said: set[str] = set()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer as the application does, or with what went wrong."""
        failed = False

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            nonlocal failed
            failed = status.startswith(_FAILED)
            fields = [(name, header_value(value)) for name, value in headers]
            return (lambda data: None) if failed else start_response(status, fields, *rest)

        _logged.take()
        try:
            answer = self._app(environ, start)
        except Exception as error:
            return self._explain(environ, start_response, error)
        if not failed:
            return answer
        if hasattr(answer, "close"):
            answer.close()
        return self._explain(environ, start_response, _logged.take())

    def _explain(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", error: BaseException | None
    ) -> list[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            return start_response(status, headers, sys.exc_info())  # another status may have been begun

        reading = environ["REQUEST_METHOD"] in READING
        status, reason = _cause(error, reading)
        if reading and status == HTTPStatus.CONFLICT:
            self._tell(f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')[:100]!r}: {reason}")
        again = {"Retry-After": _AGAIN} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return refuse(start, status, reason, again)

    def _tell(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def _cause(error: BaseException | None, reading: bool) -> tuple[HTTPStatus, str]:
    """Return status and reason of an error; None if optuna-dashboard does not say which."""
    if isinstance(error, ArtifactError):
        return HTTPStatus.BAD_GATEWAY, error.message
    if error is not None and (isinstance(error, StorageError) or is_away(error)):  # its text may hold the password
        return HTTPStatus.SERVICE_UNAVAILABLE, f"the storage does not answer ({type(error).__name__})"
    if isinstance(error, KeyError) and error.args == (NO_RECORD,):
        return HTTPStatus.NOT_FOUND, "the storage holds no such study or trial"
    text = "no reason given" if error is None else f"{type(error).__name__}: {safe(str(error))}"
    if reading:
        return HTTPStatus.CONFLICT, f"what the storage holds cannot be shown ({text})"
    if error is None or isinstance(error, (UpdateFinishedTrialError, DuplicatedStudyError)):
        return HTTPStatus.CONFLICT, f"what the storage holds does not allow it ({text})"
    return HTTPStatus.BAD_REQUEST, f"the request is none that optuna-dashboard can carry out ({type(error).__name__})"
