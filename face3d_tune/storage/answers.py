"""Answers of a far server, which are used again as long as they are good.

What a thread asked together with its lock (`server_lock`) is good until the lock is released, or the thread writes what
the question reads. Any other answer is good for as long as three new ones would take: it is hardly older than they
would be when they arrive. A "no such study" is asked again. A lock ends all that was known before.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, proxy

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from face3d_tune.storage.few_round_trips import only_reads
from face3d_tune.storage.questions import Question, Rows, ask_at_once

_GOOD = 3  # times as long as an answer takes
_MOST = 20  # answers that are kept
_SILENCE = 5.0  # seconds after which a lost connection is told to the caller, not made again at once
_WRITES = r"\b(?:insert\s+into|delete\s+from|create\s+table|(?<!for )update)\s+(\w+)"
_written_by = re.compile(_WRITES, re.IGNORECASE).findall


def ask(engine: Engine, asked: Question, *soon: Question) -> Rows:
    """Return the rows that answer a question; a server answers together with it what is likely to be asked next."""
    if engine.dialect.name == "postgresql":
        return answers_of(engine).ask(asked, *soon)
    with engine.connect() as database:
        return asked.rows(database)


class Answers:
    """The answers of a server that are known."""

    def __init__(self, engine: Engine) -> None:
        self._engine = proxy(engine)  # which keeps these answers as long as it lives
        self._recent: dict[Question, tuple[float, Rows]] = {}  # with the times until which they are good
        self._written: dict[str, float] = {}  # when this process wrote to a table last
        self._since = 0.0  # when this process had the lock last: what was asked before is not kept
        self._trip = float("inf")  # seconds of the fastest answer
        self._thread = threading.local()
        event.listen(engine, "before_cursor_execute", self._forget)
        event.listen(engine, "after_cursor_execute", self._forget)

    def ask(self, asked: Question, *soon: Question, enough: Callable[[Rows], bool] = lambda _: True) -> Rows:
        """Return the rows that answer a question; if they are not known, ask at once what is asked `soon`.

        `enough` tells whether rows that were read without the lock are: if not, another program may have changed them.
        """
        known = self.known(asked)
        if known is None or (asked not in self._held and not enough(known)):
            return self._ask(asked, *(each for each in soon if each not in self._held))[0]
        return known

    def known(self, asked: Question) -> Rows | None:
        """Return the answer to a question if it is known and good."""
        until, rows = self._recent.get(asked, (0.0, None))
        return self._held.get(asked, rows if time.monotonic() <= until else None)

    def learn(self, asked: Question, rows: Rows) -> None:
        """Take note of an answer that follows from what this process has just written."""
        self._keep(asked, rows)
        if hasattr(self._thread, "held"):
            self._held[asked] = rows

    @contextmanager
    def held(self, answers: Mapping[Question, Rows]) -> Iterator[None]:
        """Take these answers, which this thread got together with its lock, for good until the block ends."""
        self._since = time.monotonic()
        self._recent.clear()
        self._thread.held = dict(answers)
        for asked, rows in answers.items():
            self._keep(asked, rows)
        try:
            yield
        finally:
            del self._thread.held

    @property
    def _held(self) -> dict[Question, Rows]:
        return getattr(self._thread, "held", {})

    def _ask(self, *asked: Question) -> list[Rows]:
        began = time.monotonic()
        try:
            return self._ask_once(asked)
        except DBAPIError as error:
            if not error.connection_invalidated or time.monotonic() - began > _SILENCE:
                raise
            return self._ask_once(asked)  # on another connection: nothing was changed

    def _ask_once(self, asked: Sequence[Question]) -> list[Rows]:
        with self._engine.connect() as database:
            began = time.monotonic()
            try:
                if len(asked) == 1:
                    answers: list[Rows] = [asked[0].rows(database)]
                else:
                    answers = ask_at_once(database, *(each.filled(database) for each in asked))
            finally:
                self._trip = min(self._trip, time.monotonic() - began)
        for each, rows in zip(asked, answers, strict=True):
            written = any(when >= began and each.reads({table}) for table, when in self._written.items())
            if not written and began > self._since:
                self._keep(each, rows)
        return answers

    def _keep(self, asked: Question, rows: Rows) -> None:
        if len(self._recent) >= _MOST:  # of a program that only reads
            self._recent.clear()
        if asked.lasting and self._trip < float("inf"):
            self._recent[asked] = time.monotonic() + _GOOD * self._trip, rows

    def _forget(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        """Forget the answers that a statement of this process changes."""
        if only_reads(statement) or not (tables := {name.lower() for name in _written_by(statement)}):
            return
        self._written |= dict.fromkeys(tables, time.monotonic())
        for known in (self._recent, self._held):
            for asked in [each for each in list(known) if each.reads(tables)]:
                known.pop(asked, None)


_answers: WeakKeyDictionary[Engine, Answers] = WeakKeyDictionary()
_one_at_a_time = threading.Lock()  # else two threads could get different ones


def answers_of(engine: Engine) -> Answers:
    """Return the known answers of a server."""
    with _one_at_a_time:
        if engine not in _answers:
            _answers[engine] = Answers(engine)
        return _answers[engine]
