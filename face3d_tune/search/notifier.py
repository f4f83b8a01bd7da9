"""Messages to a person by mail, chat or webhook, through apprise.

A search never waits for a service: each has a thread of its own with a short queue. A service that hangs or fails costs
a line for the user, once. What is shown of a URL is its scheme.
"""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from queue import Full, Queue
from typing import Any, Literal

from face3d_tune.errors import ConfigError
from face3d_tune.system.safe_text import learn_service, safe, service

_WAITING = 20  # messages of one service
PATIENCE = 10.0  # seconds at the end, for all services together
# The addresses that robots of two services have on their web pages, and what apprise calls them.
_PASTED = {
    "https://oapi.dingtalk.com/robot/send?access_token=": "dingtalk://",
    "https://open.feishu.cn/open-apis/bot/v2/hook/": "feishu://",
}
_WEBHOOKS = {"http": "json", "https": "jsons"}  # any other address gets JSON
_FORMS = (
    "expected e.g. json://HOST/PATH, mailtos://USER:PASSWORD@HOST, dingtalk://TOKEN, feishu://TOKEN, slack://TOKENS"
)

Kind = Literal["info", "success", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message: a title, and lines of plain text."""

    title: str
    lines: tuple[str, ...]
    kind: Kind = "info"


class Service:
    """One service, by its URL. Raises ConfigError if apprise is missing, or does not know the URL."""

    def __init__(self, url: str) -> None:
        learn_service(url)
        self.name = service(url)
        try:
            apprise = import_module("apprise")
        except ImportError as error:
            raise ConfigError("--notify needs apprise", "pip install 'face3d-tune[notify]'") from error
        asset = apprise.AppriseAsset(app_id="face3d-tune", app_desc="face3d-tune", app_url="")
        with _heard(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what its plugins import
            # Its plugin alone: `Apprise.notify` sends in threads for which Python waits at its exit.
            senders = (apprise.Apprise.instantiate(form, asset=asset) for form in _forms(url.strip()))
            self._sender: Any = next(filter(None, senders), None)
        if self._sender is None:
            raise ConfigError(f"--notify {self.name} is not the URL of a service", _FORMS)

    def send(self, message: Message) -> str | None:
        """Send a message; return why it was not taken, or None."""
        try:
            with _heard() as heard:
                taken = self._sender.notify(
                    title=message.title, body="\n".join(message.lines), notify_type=message.kind, body_format="text"
                )
        except Exception as error:  # of whatever the service's library raises
            return safe(f"{type(error).__name__}: {error}")
        if taken:
            return None
        return safe(" ".join(heard[-1].split())) if heard else "the message was not taken"


def _forms(url: str) -> Iterator[str]:
    """Yield the URL as apprise may know it."""
    for pasted, form in _PASTED.items():
        if url.startswith(pasted):
            yield form + url.removeprefix(pasted)
    yield url
    scheme, mark, rest = url.partition("://")
    if mark and scheme.lower() in _WEBHOOKS:
        yield f"{_WEBHOOKS[scheme.lower()]}://{rest}"


class _Heard(logging.Handler):
    """The warnings of apprise in one thread: why a message was not taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Yield the warnings of apprise in this block, which go nowhere else: they may repeat a URL."""
    logger, handler = logging.getLogger("apprise"), _Heard()
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


class Notifier:
    """Services that are told of a search.

    Args:
        urls: Of the services.
        note: Takes a line about a service that failed; called in its thread.

    Raises ConfigError.
    """

    def __init__(self, urls: Sequence[str], note: Callable[[str], object]) -> None:
        self._threads = [_Thread(Service(url), note) for url in urls]

    def tell(self, message: Message) -> None:
        """Send a message to every service, soon."""
        for thread in self._threads:
            thread.put(message)

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until all is sent, for so many seconds at most."""
        for thread in self._threads:
            thread.put(None)
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.end(until - time.monotonic())


class _Thread:
    """The thread of one service."""

    def __init__(self, to: Service, note: Callable[[str], object]) -> None:
        self._to, self._note, self._failed = to, note, False
        self._waiting: Queue[Message | None] = Queue(_WAITING)
        self._sending = threading.Thread(target=self._send, daemon=True)
        self._sending.start()

    def put(self, message: Message | None) -> None:
        """Queue a message, unless too many wait already."""
        try:
            self._waiting.put_nowait(message)
        except Full:
            self._fail("it takes no messages")

    def end(self, patience: float) -> None:
        """Wait for the last message."""
        self._sending.join(max(0.0, patience))
        if self._sending.is_alive():
            self._fail("it did not answer in time")

    def _send(self) -> None:
        while (message := self._waiting.get()) is not None:
            if why := self._to.send(message):
                self._fail(why)

    def _fail(self, why: str) -> None:
        """Say it, once."""
        if not self._failed:
            self._failed = True
            self._note(f"--notify {self._to.name} failed: {why}")
