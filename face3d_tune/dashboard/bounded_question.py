"""A storage that does not answer: all visitors are told so soon and at once, also at `/healthz`."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from typing import Generic, TypeVar

from face3d_tune.errors import StorageError

T = TypeVar("T")

PATIENCE = 5.0  # seconds in which a storage answers a small question, though this process is busy; a lock takes one
_FIRST = 15.0  # the same while it is not known how far away the storage is
_USUAL = 4  # times the seconds that the last answer took, if that is longer
_LONG = 0.5  # seconds after which an error is repeated without asking again


class BoundedQuestion(Generic[T]):
    """A small question to the storage, of many visitors at once, whose answer is awaited for `PATIENCE` seconds.

    One thread asks. Visitors who come meanwhile share the next answer, since the storage may have changed before they
    came. While the storage does not answer, they are told so at once: else each thread of the server would wait. A
    storage far away, which takes long for every answer, is given more time.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._limit = _FIRST
        self._lock = threading.Lock()
        self._asked: _Asked[T] | None = None  # what the storage is answering
        self._next: _Asked[T] | None = None
        self._failed: tuple[float, BaseException] | None = None  # until when to repeat which error

    def __call__(self) -> T:
        """Return an answer that the storage began after this call. Raises StorageError, and what `ask` raises."""
        with self._lock:
            if self._failed and time.monotonic() < self._failed[0]:
                raise self._failed[1]
            if self._asked is None:
                mine = self._begin(_Asked())
            else:
                mine = self._next = self._next or _Asked()
            assert self._asked is not None
            until = self._asked.since + self._limit
        try:
            return mine.answer.result(max(0.0, until - time.monotonic()))
        except TooLate as error:
            raise StorageError("the storage does not answer") from error

    def _begin(self, asked: "_Asked[T]") -> "_Asked[T]":
        self._asked, asked.since = asked, time.monotonic()
        threading.Thread(target=self._run, args=(asked,), daemon=True).start()
        return asked

    def _run(self, asked: "_Asked[T]") -> None:
        try:
            answer = self._ask()
        except BaseException as error:
            for each in self._end(asked, error):
                each.answer.set_exception(error)
        else:
            self._end(asked, None)
            asked.answer.set_result(answer)

    def _end(self, asked: "_Asked[T]", error: BaseException | None) -> list["_Asked[T]"]:
        """Return the questions that an error answers, and ask the next one if there was none.

        An error that took long would take the next visitors as long: it is repeated for that time.
        """
        with self._lock:
            now = time.monotonic()
            waiting, self._asked, self._next = self._next, None, None
            if error is None:
                self._limit, self._failed = max(PATIENCE, _USUAL * (now - asked.since)), None
            elif now - asked.since > _LONG:
                self._failed = now + min(now - asked.since, PATIENCE), error
                return [asked, *filter(None, [waiting])]
            if waiting is not None:
                self._begin(waiting)
            return [asked]


class _Asked(Generic[T]):
    def __init__(self) -> None:
        self.answer: Future[T] = Future()
        self.since = 0.0
