"""Tell a person of a search while it runs and when it ends. Nothing here ends a search or changes its exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from optuna.trial import FrozenTrial

from face3d_tune.errors import StorageAwayError, StudyGoneError, TuneError
from face3d_tune.search import news, on_end
from face3d_tune.search.news import BestSoFar, Ending, Result
from face3d_tune.search.notifier import Message, Notifier
from face3d_tune.search.search import Search
from face3d_tune.search.search_options import MessageOptions
from face3d_tune.storage.database import Storage
from face3d_tune.system.safe_text import safe

_INTERRUPTED = 130


class Telling:
    """The messages of one `run`, and its command at the end. Raises ConfigError.

    Args:
        options: What a person wants to be told.
        warn: Takes lines about what failed; also called in other threads.
        translate: Returns a line in the person's language.
    """

    def __init__(
        self,
        options: MessageOptions,
        warn: Callable[[str], object],
        translate: Callable[[str], str] = str,
    ) -> None:
        self._command, self._warn, self._translate = options.on_end, warn, translate
        self._notifier = Notifier(options.notify, warn) if options.notify else None
        self._ending: Ending | None = None  # once a search has begun

    @contextmanager
    def to_the_end(self) -> Iterator[None]:
        """Tell of the end when the block ends, if a search has begun in it."""
        try:
            yield
        except BaseException as error:
            self._tell_end(error)
            raise
        self._tell_end(None)

    @contextmanager
    def during(self, search: Search, storage: Storage) -> Iterator[None]:
        """Tell of new bests until the block, which searches, ends; then read how the study stands.

        Args:
            search: The search.
            storage: Of its study.
        """
        if not (self._notifier or self._command):
            yield
            return
        if self._notifier:
            search.told = lambda trial: self._trial_ended(search, storage, trial)
        ending = self._ending = Ending(search.study.study_name, storage, search.worker.label, "failed", "", 1)
        try:
            yield
            patience = search.patience(self._warn)  # the result, which is shown next, is read in the same way
            (result, why), standing = patience.insist(lambda: (_result(search), BestSoFar.of(search.study)))
            self._ending = replace(ending, result=result, why=why, code=0, standing=standing)
        except (StorageAwayError, StudyGoneError):  # there is nothing to read
            raise
        except BaseException:
            self._ending = replace(ending, standing=_standing(search))
            raise

    def _trial_ended(self, search: Search, storage: Storage, trial: FrozenTrial) -> None:
        try:
            if news.is_new_best(search.study, trial):
                self._send(news.new_best(search.study, trial, storage))
        except Exception as error:  # the storage may be away, and the search goes on
            self._warn(f"a new best could not be told: {safe(str(error))}")

    def _tell_end(self, error: BaseException | None) -> None:
        ending = self._ending
        if ending is None:
            return
        if isinstance(error, KeyboardInterrupt):
            ending = replace(ending, result="interrupted", why="interrupted", code=_INTERRUPTED)
        elif error is not None:
            said = error.message if isinstance(error, TuneError) else f"{type(error).__name__}: {error}"
            code = error.exit_code if isinstance(error, TuneError) else 1
            ending = replace(ending, result="failed", code=code, why=safe(" ".join(said.split())))
        try:
            if self._notifier:
                self._send(ending.message())
                self._notifier.close()
        except KeyboardInterrupt:
            self._warn("the message on the end was interrupted")
        if self._command:
            on_end.run(self._command, ending, self._warn)

    def _send(self, message: Message) -> None:
        assert self._notifier is not None
        lines = tuple(map(self._translate, message.lines))
        self._notifier.tell(replace(message, title=self._translate(message.title), lines=lines))


def _result(search: Search) -> tuple[Result, str]:
    """Return what ended a search without an error, and the same in words."""
    if search.stop.seen:
        return "stop", str(search.stop.seen)
    if search.target_reached():
        return "target", f"the target {search.target:g} is reached"
    if search.queue.budget_spent():
        return "budget", f"all {search.queue.budget} trials of the budget are finished"
    return "time", "its time is over"


def _standing(search: Search) -> BestSoFar | None:
    """Read how the study stands; None if it cannot be read any more."""
    try:
        return BestSoFar.of(search.study)
    except Exception:  # the storage is away, or the study is gone: that is the error which ended the search
        return None
