"""One search from its options to its end. A view receives what happens, and prints it."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Protocol

from optuna.storages import RDBStorage

from face3d_tune.executor.slots import Slots
from face3d_tune.script.study_file import has_script
from face3d_tune.search import prepare_script, prepare_trainer
from face3d_tune.search.search import Search
from face3d_tune.search.search_options import SearchOptions, WorkerOptions
from face3d_tune.search.telling import Telling
from face3d_tune.search.watcher import Watcher
from face3d_tune.storage.database import Storage
from face3d_tune.storage.failures import is_away
from face3d_tune.storage.kept_open import kept_open
from face3d_tune.storage.retry import ASKED_AGAIN, DEFAULT_TIMEOUT, DatabaseRetry
from face3d_tune.study.stored_start import WarmStart
from face3d_tune.study.winners import Winners


class ShownWatcher(Watcher, Protocol):
    """A watcher that is shown while trials train."""

    def shown(self) -> AbstractContextManager[object]:
        """Show what happens, and catch interrupts, until the block ends."""


class ShownPlan(Protocol):
    """The engine and the slots of a search; its text says both and why."""

    @property
    def engine(self) -> str:
        """Return what trains: plain, batched or script."""


class Prepared(Protocol):
    """The inputs of a search, checked before a storage is created or changed."""

    @property
    def storage(self) -> Storage:
        """Return where the study lies, or will lie."""

    @property
    def budget(self) -> int:
        """Return the total number of finished trials to reach."""

    @property
    def plan(self) -> ShownPlan:
        """Return the engine and the slots."""

    @property
    def stage(self) -> WarmStart | None:
        """Return what the study continues from."""

    @property
    def winners(self) -> Winners | None:
        """Return the winners of another study, with which the search begins."""

    @property
    def opening(self) -> str:
        """Return what takes time when the study is created."""

    def open(self, storage: RDBStorage, workers: WorkerOptions) -> Search:
        """Open or create the study. Raises StudyError."""

    def slots(self, search: Search) -> Slots:
        """Open the slots where its trials train."""


@dataclass(frozen=True, slots=True)
class OpenSearch:
    """A search whose study is open, before its first trial."""

    search: Search
    storage: Storage
    plan: ShownPlan
    stage: WarmStart | None
    requeued: int  # trials of dead workers
    nothing_to_do: bool  # the budget is spent, or the target reached
    winners: Winners | None = None  # of another study


class View(Protocol):
    """The display of a search: on a terminal, or as JSON for a program."""

    def warning(self, line: str) -> None:
        """Show something odd about the data, the device or the script."""

    def connecting(self, storage: Storage) -> None:
        """Show that a server is being connected to, which may be far away."""

    def opening(self, what: str) -> AbstractContextManager[object]:
        """Show, until the block ends, that the study is being opened, and what takes time in that."""

    def opened(self, opened: OpenSearch) -> ShownWatcher:
        """Introduce the search, and return the watcher of its trials."""

    def interrupted(self, opened: OpenSearch) -> None:
        """Say where an interrupted search stands."""

    def ended(self, opened: OpenSearch) -> None:
        """Show the result."""


def run_search(options: SearchOptions, view: View, translate: Callable[[str], str] = str) -> None:
    """Search for better hyperparameters, or continue a search. Raises the errors of `Search.search`, and StudyError.

    `translate` returns a line of a message in the language of the person who gets it.
    """
    limit = options.budget.timeout
    deadline = math.inf if limit is None else time.monotonic() + limit
    telling = Telling(options.messages, view.warning, translate)
    with kept_open():
        _search(options, view, telling, deadline)


def _search(options: SearchOptions, view: View, telling: Telling, deadline: float) -> None:
    prepared = _prepare(options, view)
    with (
        telling.to_the_end(),
        prepared.storage.searching(),
        prepared.storage.opened(create=True) as storage,
    ):
        patience = DatabaseRetry(
            options.workers.storage_timeout or DEFAULT_TIMEOUT, view.warning, meanwhile=ASKED_AGAIN
        )
        with view.opening(prepared.opening):
            search = patience.insist(lambda: prepared.open(storage, options.workers))
        _run(search, prepared, view, deadline, telling)


def _prepare(options: SearchOptions, view: View) -> Prepared:
    """Read and check the inputs: of a script if the study file, or `--script`, names one."""
    study = options.search
    if study.script is not None or has_script(study.study_name_or_file):
        return prepare_script.prepare(options, view.warning, view.connecting)
    return prepare_trainer.prepare(options, view.warning, view.connecting)


def _run(search: Search, prepared: Prepared, view: View, deadline: float, telling: Telling) -> None:
    """Search in an open study, until the budget is spent."""
    patience = search.patience(view.warning)
    requeued = patience.insist(search.requeue_abandoned)
    search.queue.budget = prepared.budget
    nothing_to_do = patience.insist(lambda: search.queue.budget_spent() or search.target_reached())
    if not nothing_to_do:
        winners = prepared.winners.trials if prepared.winners else ()
        patience.insist(lambda: search.enqueue_presets(winners))
    opened = OpenSearch(
        search, prepared.storage, prepared.plan, prepared.stage, requeued, nothing_to_do, prepared.winners
    )
    watcher = patience.insist(lambda: view.opened(opened))
    if not nothing_to_do:
        patience.insist(search.worker.beat)  # join before the slots open, in seconds: a person may want to stop it
        try:
            with (
                telling.during(search, prepared.storage),
                search.worker.leaving_on_failure(),
                closing(prepared.slots(search)) as slots,
                watcher.shown(),
            ):
                search.search(prepared.budget, watcher, slots, deadline=deadline)
        except KeyboardInterrupt:
            _tell_interrupted(view, opened)
            raise
    patience.insist(lambda: search.tidy(watcher.note))
    patience.insist(lambda: view.ended(opened))


def _tell_interrupted(view: View, opened: OpenSearch) -> None:
    """Say where the search stands, unless the database that knows it is away."""
    try:
        view.interrupted(opened)
    except Exception as error:
        if not is_away(error):
            raise
