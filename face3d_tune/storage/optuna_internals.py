"""The private names of Optuna that this package depends on; `dashboard/upstream` has those of optuna-dashboard.

Optuna may change them in any release. Each has a test that fails, saying so, in `tests/unit/test_optuna_internals.py`.
"""

import copy
import heapq
import json
import sys
import warnings
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb.models import (
    SCHEMA_VERSION,
    BaseModel,
    StudyModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.storages._rdb.storage import _create_scoped_session, _VersionManager
from optuna.study.study import _SYSTEM_ATTR_METRIC_NAMES
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Table, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import scoped_session, sessionmaker

from face3d_tune.storage.wide_reads import read_trials

NO_RECORD = "Record does not exist."  # the text of the KeyError for a study or trial that was deleted
FIXED_PARAMS = "fixed_params"  # the system attribute with the parameters of a queued trial
TABLES: list[Table] = BaseModel.metadata.sorted_tables  # a table stands after those that it refers to
STUDIES: Table = StudyModel.__table__
TRIALS: Table = TrialModel.__table__
PARAMS: Table = TrialParamModel.__table__
USER_ATTRS: Table = TrialUserAttributeModel.__table__
SYSTEM_ATTRS: Table = TrialSystemAttributeModel.__table__
CURVES: Table = TrialIntermediateValueModel.__table__
VALUES: Table = TrialValueModel.__table__
_NEWEST = 20  # trials that show whether the cache is still right
_UPSERT = (
    "insert into trial_user_attributes (trial_id, key, value_json) values (:trial, :key, :value) "
    "on conflict (trial_id, key) do update set value_json = excluded.value_json"
)
_STUDY_ATTR = (
    "select value_json from studies s left join study_user_attributes a on a.study_id = s.study_id and a.key = :key "
    "where s.study_id = :study"
)
_ADD_STUDY_ATTR = (
    "insert into study_user_attributes (study_id, key, value_json) "
    "select study_id, :key, :after from studies where study_id = :study on conflict (study_id, key) do nothing"
)
_REPLACE_STUDY_ATTR = (
    "update study_user_attributes set value_json = :after "
    "where study_id = :study and key = :key and value_json = :before"
)


@cache
def head_version() -> str:
    """Return the version of the tables that the installed Optuna makes, which takes it a third of a second."""
    manager = _VersionManager.__new__(_VersionManager)
    manager.url = "sqlite://"
    return str(manager.get_head_version())


def first_rows() -> Mapping[str, Mapping[str, Any]]:
    """Return the row that Optuna writes into each of two new tables."""
    versions = {"version_info_id": 1, "schema_version": SCHEMA_VERSION, "library_version": optuna.__version__}
    return {"version_info": versions, "alembic_version": {"version_num": head_version()}}


S = TypeVar("S", bound=RDBStorage)


def storage_on(engine: Engine, kind: type[S]) -> S:
    """Return a storage of this kind on an engine, without asking for the tables, which are there."""
    storage = kind.__new__(kind)
    storage.engine_kwargs, storage.engine = {}, engine
    storage.url, storage.skip_compatibility_check = engine.url.render_as_string(hide_password=False), True
    storage.heartbeat_interval = storage.grace_period = None
    storage.heartbeat_stale_trial_callback = storage.failed_trial_callback = None
    storage.scoped_session = scoped_session(sessionmaker(bind=engine))
    storage._version_manager = manager = _VersionManager.__new__(_VersionManager)
    manager.url, manager.engine, manager.scoped_session = storage.url, engine, storage.scoped_session
    return storage


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study, which can write to trials of other processes, as `Study` cannot."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    """Return the id of a study, which stays when it is renamed."""
    return study._study_id


def engine_of(study: optuna.Study) -> Engine | None:
    """Return the engine of a study's database; None for a study in memory."""
    return getattr(getattr(study._storage, "_backend", study._storage), "engine", None)


def stored_attr(engine: Engine, study: optuna.Study, key: str) -> Any:
    """Return one user attribute of a study as it is stored now; None if it has none or is gone.

    Optuna would read all attributes of the study, which is too much for what a search asks after every epoch.
    """
    backend = getattr(study._storage, "_backend", None)
    if isinstance(backend, StorageOfTrials):  # the others are likely to be asked for next
        try:
            return backend.get_study_user_attrs(study._study_id).get(key)
        except KeyError:
            return None
    question = text("select value_json from study_user_attributes where study_id = :study and key = :key")
    with engine.connect() as database:
        found = database.execute(question, {"study": study_id(study), "key": key}).scalar_one_or_none()
    return None if found is None else json.loads(found)


def stored_trial_attr(study: optuna.Study, trials: Sequence[FrozenTrial], key: str) -> dict[int, Any]:
    """Return one system attribute of those trials that have it, by number, as they are stored now."""
    engine = engine_of(study)
    if engine is None:
        return {trial.number: trial.system_attrs[key] for trial in trials if key in trial.system_attrs}
    numbers = {trial_id(trial): trial.number for trial in trials}
    with engine.connect() as database:
        question = select(SYSTEM_ATTRS.c.trial_id, SYSTEM_ATTRS.c.value_json)
        rows = database.execute(question.where(SYSTEM_ATTRS.c.trial_id.in_(numbers), SYSTEM_ATTRS.c.key == key)).all()
    return {numbers[row.trial_id]: json.loads(row.value_json) for row in rows}


def store_study_attrs(study: optuna.Study, attrs: Mapping[str, Any], metric: str | None = None) -> None:
    """Store the name of a study's metric, if given, and user attributes in their order, if possible at once."""
    backend = getattr(study._storage, "_backend", None)
    if isinstance(backend, StorageOfTrials):
        names = {} if metric is None else {_SYSTEM_ATTR_METRIC_NAMES: [metric]}
        backend.set_study_attrs(study._study_id, attrs, names)
        return
    if metric is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([metric])
    for key, value in attrs.items():
        study.set_user_attr(key, value)


def change_study_attr(engine: Engine, study: optuna.Study, key: str, change: Callable[[Any], Any]) -> bool:
    """Store what `change` makes of one user attribute of a study; return whether that is something else.

    No change that another program makes at the same moment is lost. `change` receives the attribute as it is stored, or
    None, and is called again if another program was faster. Raises KeyError if the study is gone.
    """
    names = {"study": study_id(study), "key": key}
    while True:
        with engine.connect() as database:
            found = database.execute(text(_STUDY_ATTR), names).all()
        if not found:
            raise KeyError(NO_RECORD)
        stored: str | None = found[0][0]
        before = None if stored is None else json.loads(stored)
        after = change(before)
        if after == before:
            return False
        with engine.begin() as database:
            statement = _ADD_STUDY_ATTR if stored is None else _REPLACE_STUDY_ATTR
            if database.execute(text(statement), {**names, "before": stored, "after": json.dumps(after)}).rowcount:
                return True


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """Return the id of a trial, without asking the storage."""
    return trial._trial_id


def record_of(trial: optuna.Trial) -> FrozenTrial:
    """Return what the storage held of a trial when it was last read, with what was stored of it since, from memory."""
    return trial._cached_frozen_trial


def store_attrs(engine: Engine, trial: optuna.Trial | FrozenTrial, attrs: Mapping[str, Any]) -> None:
    """Store user attributes of a trial in one transaction; `Trial.set_user_attr` makes one for each.

    Raises UpdateFinishedTrialError if the trial has ended, and KeyError if it was deleted.
    """
    with engine.begin() as database:
        state = database.execute(
            select(TRIALS.c.state).where(TRIALS.c.trial_id == trial_id(trial))
        ).scalar_one_or_none()
        if state is None:
            raise KeyError(NO_RECORD)
        if state.is_finished():
            raise UpdateFinishedTrialError(f"Trial#{trial.number} has already finished and can not be updated.")
        rows = [{"trial": trial_id(trial), "key": key, "value": json.dumps(value)} for key, value in attrs.items()]
        database.execute(text(_UPSERT), rows)
    record = record_of(trial) if isinstance(trial, optuna.Trial) else trial
    record.user_attrs.update(attrs)


def stored_step(value: float) -> tuple[float | None, Any]:
    """Return a value of CURVES and its kind, which together may be infinite or no number."""
    return TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)


def stored_value(value: float) -> tuple[float | None, Any]:
    """Return a value of VALUES and its kind, which together may be infinite."""
    return TrialValueModel.value_to_stored_repr(value)


def read_step(value: float | None, kind: str) -> float:
    """Return the value of a step from what CURVES holds."""
    kinds = TrialIntermediateValueModel.TrialIntermediateValueType
    return float(TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kinds[kind]))


def read_value(value: float | None, kind: str) -> float:
    """Return the value of a trial from what VALUES holds."""
    return float(TrialValueModel.stored_repr_to_value(value, TrialValueModel.TrialValueType[kind]))


def newest_finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of Optuna's cache that ended last, and those that were created last, without asking."""
    cache = study._storage
    known = cache._studies.get(study._study_id) if isinstance(cache, _CachedStorage) else None
    ended = [trial for trial in dict(known.trials).values() if trial.state.is_finished()] if known else []
    last = heapq.nlargest(_NEWEST, ended, key=lambda trial: trial.datetime_complete or datetime.min)
    return last + heapq.nlargest(_NEWEST, ended, key=lambda trial: trial._trial_id)


def unread_trials(study: optuna.Study) -> tuple[set[int], int]:
    """Return what Optuna's cache will read of a study: trials with these ids, and those with ids above the other."""
    cache = study._storage
    known = cache._studies.get(study._study_id) if isinstance(cache, _CachedStorage) else None
    return (set(known.unfinished_trial_ids), known.last_finished_trial_id) if known else (set(), -1)


def forget_trials(study: optuna.Study) -> None:
    """Empty Optuna's cache of trials, which otherwise holds an ended trial for ever."""
    cache = study._storage
    if isinstance(cache, _CachedStorage):
        with cache._lock:
            for known in (
                cache._studies,
                cache._trial_id_to_study_id_and_number,
                cache._study_id_and_number_to_trial_id,
            ):
                known.clear()
    study._thread_local.cached_all_trials = None


def enqueue_trials(study: optuna.Study, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Queue trials with these parameters and user attributes, in this order, if possible at once."""
    backend = getattr(study._storage, "_backend", None)
    if isinstance(backend, StorageOfTrials):
        backend.enqueue_trials(study._study_id, trials)
    else:
        for params, attrs in trials:
            study.enqueue_trial(dict(params), user_attrs=dict(attrs))


def record_without_values(trial_id: int, number: int) -> FrozenTrial:
    """Return the record of a running trial that holds nothing yet."""
    record = create_trial(state=TrialState.RUNNING)
    record._trial_id, record.number = trial_id, number
    return record


def running_trial(study: optuna.Study, record: FrozenTrial, trials: Sequence[FrozenTrial]) -> optuna.Trial:
    """Return a trial that runs and whose record is known, as `Study.ask` does, without asking the storage.

    Samplers read `trials`, as they are now, in the place of a list of their own for each trial.
    """
    study._thread_local.cached_all_trials = sorted(trials, key=lambda trial: trial.number)
    trial = optuna.Trial.__new__(optuna.Trial)
    trial.study, trial.storage = study, study._storage
    trial._trial_id, trial._cached_frozen_trial = record._trial_id, record
    trial.relative_search_space = trial._relative_params = None
    trial._fixed_params = record.system_attrs.get(FIXED_PARAMS, {})
    study.sampler.before_trial(study, record)
    return trial


class _ParamsUnwritten:
    """The storage of a trial, which takes its parameters and stores none."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_param(self, *_: object) -> None:
        pass


@contextmanager
def params_in_memory(trial: optuna.Trial) -> Iterator[None]:
    """Let a trial suggest parameters without storing them, until the block ends; `record_of` has them."""
    storage = trial.storage
    trial.storage = cast(BaseStorage, _ParamsUnwritten(storage))
    try:
        yield
    finally:
        trial.storage = storage


def fixed_params(trial: FrozenTrial) -> Mapping[str, Any] | None:
    """Return the parameters with which a trial was queued; None if it was not queued."""
    return trial.system_attrs.get(FIXED_PARAMS)


def trials_as_sampled_from(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of a study as samplers read them: within one `ask` from memory."""
    return study._get_trials(deepcopy=False, use_cache=True)


def startup_trials(sampler: BaseSampler) -> int:
    """Return the number of start-up trials of a sampler; 0 if it has no start-up."""
    return getattr(sampler, "_n_startup_trials", 0)


def forget_importances() -> None:
    """Clear the importances that optuna-dashboard caches by study id, for the whole process."""
    importances = sys.modules.get("optuna_dashboard._importance")
    getattr(importances, "param_importance_cache", {}).clear()


def let_errors_out(dashboard: Any) -> None:
    """Let an application of optuna-dashboard raise what it would answer with 500, and put any text into a header.

    A name from the database may hold line breaks; its framework, bottle, would refuse them.
    """
    dashboard.catchall = False
    bottle: Any = sys.modules[type(dashboard).__module__]
    bottle._hval = lambda value: " ".join(bottle.tonat(value).replace("\0", " ").splitlines())


def fill_cache(cached: BaseStorage, study_id: int) -> None:
    """Read the trials of a study into Optuna's cache for the first time, while the cache answers on other studies.

    Optuna's own reading keeps the lock of the whole cache until it has all trials.
    """
    if not isinstance(cached, _CachedStorage) or (study_id in cached._studies and cached._studies[study_id].trials):
        return
    alone = _CachedStorage(cached._backend)
    alone.get_all_trials(study_id, deepcopy=False)
    with cached._lock:
        cached._studies[study_id] = alone._studies[study_id]
        cached._trial_id_to_study_id_and_number |= alone._trial_id_to_study_id_and_number
        cached._study_id_and_number_to_trial_id |= alone._study_id_and_number_to_trial_id


class WideStorage(RDBStorage):
    """Optuna's storage, which reads thousands of trials in seconds.

    Attributes:
        curves: Whether finished trials are read with intermediate values and system attributes: half of the time.
        unread: Keys of system attributes that are not read with the trials of a study; `stored_trial_attr` reads one.
    """

    curves = True
    unread: frozenset[str] = frozenset()

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        chosen = None if states is None else [state for state in TrialState if state in states]
        with _create_scoped_session(self.scoped_session) as session:
            StudyModel.find_or_raise_by_id(study_id, session)
            database = session.connection()
            which = study_id, trial_id_greater_than, included_trial_ids, chosen
            return read_trials(database, *which, curves=self.curves, unread=self.unread)


class StorageOfTrials(WideStorage):
    """Optuna's storage whose trials a subclass reads, unless there are many."""

    @abstractmethod
    def set_study_attrs(
        self, study_id: int, attrs: Mapping[str, Any], system_attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Store user and system attributes of a study, all or none."""

    @abstractmethod
    def enqueue_trials(self, study_id: int, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Queue trials with these parameters and user attributes, all or none."""

    @abstractmethod
    def read_few(
        self, study_id: int, states: Container[TrialState] | None, also: Iterable[int], after: int
    ) -> list[FrozenTrial] | None:
        """Return the trials of a study with these states whose ids are greater than `after`, or among `also`.

        None if there are many.
        """

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        few = self.read_few(study_id, states, included_trial_ids, trial_id_greater_than) if self.curves else None
        return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than) if few is None else few


class StudyView:
    """A study whose trials are changed before samplers and pruners read them; the storage stays as it is."""

    def __init__(self, study: optuna.Study, change: Callable[[Sequence[FrozenTrial]], list[FrozenTrial]]) -> None:
        self._study, self._change = study, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the changed trials; the arguments are those of `Study.get_trials`."""
        return self._get_trials(deepcopy, states)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = self._change(self._study._get_trials(deepcopy=False, use_cache=use_cache))
        chosen = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen
