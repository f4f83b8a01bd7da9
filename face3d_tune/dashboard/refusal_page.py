"""A refusal as a page: a person who opens an address in a browser would get JSON else."""

import re
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING

from face3d_tune.dashboard.wsgi import refuse, send

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_HTML = re.compile(r"(?:^|,)\s*text/html\b")
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:12vh auto;"
    "padding:0 1rem}h1{font-size:1.4rem}code{overflow-wrap:anywhere}label{display:block;margin-bottom:.3rem}"
    "input,button{font:inherit;padding:.4rem .6rem}input{width:20rem;max-width:100%;box-sizing:border-box}"
)
_FORM = (
    '<form action="/"><label for="token">The token</label><input id="token" name="token" type="password" required '
    'autofocus autocomplete="off"> <button>Open the dashboard</button></form>'
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def refuse_readably(
    environ: "WSGIEnvironment",
    start_response: "StartResponse",
    status: HTTPStatus,
    reason: str,
    title: str,
    *,
    ask_token: bool = False,
) -> list[bytes]:
    """Answer with a page for a browser, and with JSON for a program.

    Args:
        environ: The request.
        start_response: WSGI's.
        status: Of the answer.
        reason: What is wrong and what to do; `code` stands in backquotes.
        title: The same in a few words.
        ask_token: Whether the page has a field for the token.
    """
    headers = {"WWW-Authenticate": 'Bearer realm="face3d-tune"'} if ask_token else {}
    if not _HTML.search(environ.get("HTTP_ACCEPT", "").lower()):
        return refuse(start_response, status, reason, headers)
    text = re.sub("`([^`]+)`", r"<code>\1</code>", escape(reason[:1].upper() + reason[1:])) + "."
    body = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · face3d-tune</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>'
        f"<h1>{escape(title)}</h1><p>{text}</p>{_FORM if ask_token else ''}</main></body></html>"
    )
    fields = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": POLICY,
    }
    return send(start_response, f"{status.value} {status.phrase}", fields | headers, body.encode())
