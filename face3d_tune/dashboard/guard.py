"""The guard of the dashboard. Optuna's own dashboard has none: any visitor who reaches its port may delete studies.

A browser also sends requests that its user does not know of. A page from elsewhere may send them, under a name that
resolves to this machine (DNS rebinding). So every request must name a host that is ours. Only reading is allowed unless
the person who started the dashboard allows more. Nothing stored in a study runs as a part of the page.
"""

import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from socket import gethostname
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from face3d_tune.dashboard.refusal_page import refuse_readably
from face3d_tune.dashboard.wsgi import READING, refuse, send_json
from face3d_tune.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HEALTH = "/healthz"
DRAWN = "face3d_tune.drawn"  # in the environment of a request whose answer is a picture of our own
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHOWN = (  # artifacts that a browser may show; none of them can run code
    *("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"),
    *("text/plain", "text/csv", "text/tab-separated-values", "text/markdown", "application/json"),
)
_POLICY = "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"  # joins that of a page
_OF_STUDIES = ("/api/", "/csv/", "/artifacts/")  # what a browser may not keep: a token may be needed to see it
_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # an address may contain the token
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A name, an IPv4 address or an IPv6 address in brackets, and a port; no user, no path, no second host.
_HOST = re.compile(r"(?:([\w.-]+)|\[([0-9a-fA-F:.]+)\])(?::\d{0,5})?", re.ASCII)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_PUBLIC = re.compile(rf"(https?)://({_HOST.pattern})/?", re.ASCII)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server that listens on `host`."""
    return host in _LOOPBACK or _is_address(host, lambda address: address.is_loopback)


@dataclass(frozen=True, slots=True)
class Public:
    """A public address that visitors open although the dashboard does not listen there: a proxy's."""

    origin: str  # as a browser sends it
    host: str

    @classmethod
    def parse(cls, typed: str) -> "Public":
        """Read `https://NAME` or `https://NAME:PORT`. Raises ConfigError."""
        read = _PUBLIC.fullmatch(typed.strip().lower())
        if read is None:
            raise ConfigError(
                f"--public-url {typed} is not a dashboard address; expected https://NAME, without a path",
                "give the dashboard a name of its own in the proxy: the pages of optuna-dashboard work under / only",
            )
        scheme, netloc, name, address, *_ = read.groups()
        return cls(f"{scheme}://{netloc}".removesuffix(":443" if scheme == "https" else ":80"), name or address)


@dataclass(frozen=True, slots=True)
class Access:
    """The permissions, as the person who started the dashboard chose."""

    host: str  # to listen on: a name or an address
    port: int
    allow_changes: bool = False
    token: str | None = None  # a visitor without it sees nothing
    public: tuple[Public, ...] = ()

    def knows(self, host: str) -> bool:
        """Tell whether a request to that host is meant for this dashboard.

        A server that listens on all addresses cannot know its names. But an address, unlike a name, cannot be made to
        resolve to another machine.
        """
        if host in (*_LOOPBACK, self.host, *(public.host for public in self.public)):
            return True
        everywhere = _is_address(self.host, lambda address: address.is_unspecified)
        return everywhere and (host == gethostname().lower() or _is_address(host, lambda address: True))


class Guard:
    """A WSGI application in front of another.

    Args:
        app: The dashboard.
        access: What is allowed.
        check: Raises an exception if the storage does not answer.
    """

    def __init__(self, app: "WSGIApplication", access: Access, check: Callable[[], object]) -> None:
        self._app, self._access, self._check = app, access, check
        self._cookie = f"face3d_tune_{access.port}"  # cookies are of a host, whatever its port

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Refuse the request, or pass it on."""
        answer = self._answer(environ, start_response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return answer
        if hasattr(answer, "close"):
            answer.close()
        return []

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        start_response = _careful(start_response, environ)
        if path == HEALTH:
            return self._healthy(start_response)
        asked = _asked_host(environ)
        if not self._access.knows(_host(asked)):
            reason = (
                f"this dashboard does not go by the name {_host(asked)!r}; `--public-url https://NAME` gives it one"
            )
            status = HTTPStatus.MISDIRECTED_REQUEST
            return refuse_readably(environ, start_response, status, reason, "Another name was expected")
        if self._access.token is not None:
            brought, shown = self._token_brought(environ), self._shows_token(environ)
            right = brought is not None and self._is_token(brought)
            if method in READING and brought is not None and (right or shown):
                return self._let_in(environ, start_response, right)
            if not shown:
                return self._ask_token(environ, start_response, brought)
        if method not in READING:
            if not self._access.allow_changes:
                reason = "nothing can be changed here; `face3d-tune dashboard --allow-changes` allows it"
                return refuse(start_response, HTTPStatus.FORBIDDEN, reason)
            if not self._is_ours(environ.get("HTTP_ORIGIN"), asked):
                return refuse(start_response, HTTPStatus.FORBIDDEN, "another site may not change anything here")
        return self._app(environ, start_response)

    def _ask_token(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", brought: str | None
    ) -> list[bytes]:
        where = "open the address that `face3d-tune dashboard` printed: it ends in `?token=…`"
        reason, title = f"{where}; or type the token", "This dashboard needs a token"
        if brought is not None or self._tokens(environ):
            reason = f"this token is not the dashboard's, or is from an earlier start; {reason}"
            title = "This token is not the right one"
        status = HTTPStatus.UNAUTHORIZED
        return refuse_readably(environ, start_response, status, reason, title, ask_token=True)

    def _healthy(self, start_response: "StartResponse") -> list[bytes]:
        """Answer a health check, without anything about the content."""
        try:
            self._check()
        except Exception as error:  # a health check answers, whatever is broken: its caller restarts what is unhealthy
            return send_json(start_response, HTTPStatus.SERVICE_UNAVAILABLE, {"status": type(error).__name__})
        return send_json(start_response, HTTPStatus.OK, {"status": "ok"})

    def _is_ours(self, origin: str | None, host: str) -> bool:
        """Tell whether a page of ours sent the request: a browser names the page's site in `origin`."""
        if origin is None:
            return True
        origins = (
            f"http://{host.lower()}",
            f"https://{host.lower()}",
            *(public.origin for public in self._access.public),
        )
        return origin.lower() in origins

    def _tokens(self, environ: "WSGIEnvironment") -> list[str]:
        """Return what a visitor shows as the token in the headers of a request."""
        kind, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        # Cookies of other programs on this host are sent too. The standard library reads none if one of them is
        # malformed.
        pairs = (cookie.partition("=") for cookie in environ.get("HTTP_COOKIE", "").split(";"))
        tokens = [value.strip() for name, _, value in pairs if name.strip() == self._cookie]
        return [*tokens, bearer] if kind.lower() == "bearer" else tokens

    def _shows_token(self, environ: "WSGIEnvironment") -> bool:
        return any(map(self._is_token, self._tokens(environ)))

    def _token_brought(self, environ: "WSGIEnvironment") -> str | None:
        """Return the token in the address of a request; None if there is none."""
        return dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)).get("token")

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), (self._access.token or "").encode())

    def _let_in(self, environ: "WSGIEnvironment", start_response: "StartResponse", right: bool) -> list[bytes]:
        """Store the right token in the browser, and remove any from the address, which people copy."""
        rest = [(key, value) for key, value in parse_qsl(environ.get("QUERY_STRING", "")) if key != "token"]
        path = environ.get("PATH_INFO", "").lstrip("/")  # //name would be another site
        target = "/" + quote(path.encode("latin-1"))  # WSGI's encoding
        cookie = f"{self._cookie}={self._access.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = {"Location": f"{target}?{urlencode(rest)}" if rest else target}
        headers |= {"Set-Cookie": cookie} if right else {}
        return send_json(start_response, HTTPStatus.SEE_OTHER, {}, headers)


def _careful(start_response: "StartResponse", environ: "WSGIEnvironment") -> "StartResponse":
    """Add headers that keep a browser from running a study's content."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        fields = {name.title(): value for name, value in headers}
        fields.pop("Access-Control-Allow-Origin", None)
        fields |= _EVERYWHERE
        path = environ.get("PATH_INFO", "")
        if path.startswith(_OF_STUDIES):
            fields["Cache-Control"] = "no-store"
        if path.startswith("/artifacts/"):
            fields["Content-Security-Policy"] = "sandbox; default-src 'none'"
            if environ.get(DRAWN):
                fields["Content-Security-Policy"] += "; style-src 'unsafe-inline'"  # an SVG's colours
            elif fields.get("Content-Type", "").partition(";")[0].strip().lower() not in _SHOWN:
                fields |= {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
        own = fields.get("Content-Security-Policy", "")
        fields["Content-Security-Policy"] = f"{own}; {_POLICY}" if own else _POLICY
        return start_response(status, list(fields.items()), *rest)

    return start


def _asked_host(environ: "WSGIEnvironment") -> str:
    """Return the host of a request as its client wrote it: the one of an address with a host counts, not the header."""
    address = _ABSOLUTE.match(environ.get("REQUEST_URI", ""))
    return address[1] if address else environ.get("HTTP_HOST", "")


def _host(header: str) -> str:
    """Return the host in a Host header, without port and brackets; empty if it is missing, or if it is more than a
    host.
    """
    read = _HOST.fullmatch(header)
    return ((read[1] or read[2]) if read else "").lower()


def _is_address(host: str, which: Callable[[Any], bool]) -> bool:
    try:
        return which(ip_address(host))
    except ValueError:
        return False
