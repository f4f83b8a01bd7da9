"""Changes to the trials of a study by its workers: ask, tell, requeue. No other module changes the state of a trial.

The worker that claims a trial makes each change, under `server_lock.one_at_a_time`. The order of steps is such that the
next worker recognises a crash between any two. So the number of finished trials is exact with any number of workers.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from face3d_tune.search.retries import next_ordinal, retried, whole
from face3d_tune.storage import claimed_trials, claims
from face3d_tune.storage.answers import ask
from face3d_tune.storage.claimed_trials import Ended
from face3d_tune.storage.claims import Claim, TrialGone, TrialLost
from face3d_tune.storage.far_storage import FarStorage, attrs_of_study, newer_trials
from face3d_tune.storage.optuna_internals import (
    forget_trials,
    newest_finished,
    record_of,
    record_without_values,
    running_trial,
    storage_of,
    store_attrs,
    study_id,
    trial_id,
    unread_trials,
)
from face3d_tune.storage.questions import Question, question
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.storage.workers import DEFAULT_SILENCE, Orphan, Worker
from face3d_tune.study import history
from face3d_tune.study.attrs import StudyAttr, TrialAttr
from face3d_tune.study.other_programs import FOREIGN_SQL, ended_from_outside, is_foreign
from face3d_tune.study.presence import still_present
from face3d_tune.study.trials import FINISHED

if TYPE_CHECKING:
    from face3d_tune.search.trial_run import Cause, Outcome

_GONE = "the storage does not have it any more, as after a failover; its checkpoints are kept"


class TrialsGone(Exception):
    """Trials of this worker that do not run any more, although it has not ended them."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        super().__init__()
        self.claims = claims


class TrialQueue:
    """The trials of one study, as this worker may change them.

    Attributes:
        budget: Total number of finished trials, earlier runs included; 0 until a search sets it.
        note: Takes one line about each trial of a dead worker.
        read: Takes all trials of the study when they are read to claim one.
        storage: Of the study.
        engine: Of the storage.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage, *, silence: float = DEFAULT_SILENCE) -> None:
        self.study, self._silence = study, silence
        self.budget = 0
        self.note: Callable[[str], object] = lambda line: None
        self.read: Callable[[Sequence[FrozenTrial]], object] = lambda trials: None
        self.storage = storage
        self.engine = storage.engine
        self._storage, self._study_id = storage_of(study), study_id(study)
        self._own = StudyAttr.id.get(study.user_attrs)
        self._claims: dict[optuna.Trial, Claim] = {}

    @cached_property
    def worker(self) -> Worker:
        """This process as a worker of the study; the first access registers it.

        Raises StudyError if a living worker has another version of face3d-tune.
        """
        alone = self.engine.dialect.name == "sqlite"
        return Worker(self.engine, self._study_id, silence=self._silence, alone=alone)

    def on_study(self, *, at_first: bool = True) -> AbstractContextManager[None]:
        """Raise StudyGoneError if the study is missing in this block, in place of the errors that follow from it."""
        return still_present(self.study, self._own, self.engine, at_first=at_first)

    def counts(self) -> dict[TrialState, int]:
        """Count trials by state, without reading them; imported ones and those of other programs do not count."""
        return {TrialState[state]: count for state, count in ask(self.engine, self._counting())}

    def _counting(self) -> Question:
        return question(
            "select state, count(*) from trials t where study_id = :study and not exists "
            "(select 1 from trial_user_attributes a where a.trial_id = t.trial_id "
            f"and a.key = '{TrialAttr.origin.key}') "
            f"and not {FOREIGN_SQL} group by state",
            study=self._study_id,
        )

    def finished(self) -> int:
        """Count the trials within the budget: completed or pruned, and trained here."""
        counts = self.counts()
        return sum(counts.get(state, 0) for state in FINISHED)

    def budget_spent(self) -> bool:
        """Tell whether the study holds all finished trials of the budget."""
        return self.finished() >= self.budget

    def ask(self) -> optuna.Trial | None:
        """Claim the next trial; None if the finished ones and those in training may suffice for the budget.

        Raises TrialsGone: their numbers may be given again, so the caller first drops what it trains for them.
        """
        with one_at_a_time(self.engine, self._all_at_once) as lock, self.on_study():
            self._renew_cache()
            orphans, gone = self.worker.look()
            if gone:
                forget_trials(self.study)
                raise TrialsGone(gone)
            self._requeue_all(orphans)
            counts = self.counts()
            if sum(counts.get(state, 0) for state in (*FINISHED, TrialState.RUNNING)) >= self.budget:
                return None
            trials = self._trials()
            trial = self._take(trials, lock)
        self.read(trials)
        return trial or self.ask()  # another program was faster

    def _all_at_once(self) -> list[Question]:
        """Return the questions of `ask`, which a server answers together with the lock."""
        known = self._newest()
        return [*([self._marks(known)] if known else []), self.worker.running(), *self.state()]

    def state(self) -> Sequence[Question]:
        """Return the questions for what `counts`, the study's attributes and its trials are read from."""
        unread = newer_trials(self._study_id, *unread_trials(self.study))
        return [*attrs_of_study(self._study_id), self._counting(), unread]

    def _take(self, trials: Sequence[FrozenTrial], lock: Connection | None) -> optuna.Trial | None:
        """Let the first waiting trial run, or a new one, and claim it; None if another program was faster."""
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        attrs = {}
        if waiting is None or whole(waiting, TrialAttr.ordinal) is None:
            attrs[TrialAttr.ordinal.key] = next_ordinal(trials)
        claim = self.worker.take(lock, trial_id(waiting) if waiting else None, attrs)
        if claim is None:
            return None
        self.worker.keep(claim)  # before another thread of this worker looks for orphans
        record = copy.deepcopy(waiting) or record_without_values(claim.trial_id, claim.number)
        record.state, record.datetime_start = TrialState.RUNNING, datetime.now()
        record.user_attrs.update(attrs)
        others = (each for each in trials if each.number != record.number)
        trial = running_trial(self.study, record, [record, *others])
        self._claims[trial] = claim
        return trial

    def claim_of(self, trial: optuna.Trial) -> Claim:
        """Return this worker's claim on a trial, which may not stand any more."""
        return self._claims[trial]

    def store(
        self, trial: optuna.Trial, attrs: Mapping[str, Any], system_attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Store attributes and the parameters of a trial of this worker, all or none. Raises TrialLost."""
        record = record_of(trial)
        claimed_trials.store(
            self.engine, self.claim_of(trial), attrs, record.params, record.distributions, system_attrs
        )
        record.user_attrs.update(attrs)

    def report(self, trial: optuna.Trial, value: float, step: int, attrs: Mapping[str, Any]) -> None:
        """Store the value of an epoch, and user attributes that belong to it. Raises TrialLost."""
        claimed_trials.report(self.engine, self.claim_of(trial), step, value, attrs)
        record = record_of(trial)
        record.intermediate_values[step] = value
        record.user_attrs.update(attrs)

    def tell(self, trial: optuna.Trial, outcome: "Outcome") -> FrozenTrial:
        """End a trial, or requeue it if only its process died. Raises TrialLost.

        May be called again if the database went away during the call.
        """
        record = self._tell(trial, outcome)
        self.forget(trial)
        return record

    def _tell(self, trial: optuna.Trial, outcome: "Outcome") -> FrozenTrial:
        if outcome.death or outcome.beside:
            with suppress(TrialLost):  # the next line finds out who ended it
                self.store(trial, outcome.attrs, {history.ATTR: outcome.history})
            self._requeue_own(trial, TrialAttr.error.of(outcome.attrs), outcome.death)
            return self.storage.get_trial(trial_id(trial))
        record = copy.copy(record_of(trial))
        record.state, record.value = _end_of(record, outcome)
        record.user_attrs = {**record.user_attrs, **outcome.attrs}
        record.system_attrs = {**record.system_attrs, history.ATTR: outcome.history}
        record.datetime_complete = datetime.now()
        ended = Ended(
            record.state,
            record.value,
            record.user_attrs,
            record.system_attrs,
            record.params,
            record.distributions,
            record.intermediate_values,
        )
        claimed_trials.finish(self.engine, self.claim_of(trial), ended)
        return record

    def requeue(self, trial: optuna.Trial, reason: str) -> None:
        """Fail a trial of this worker and requeue it. Raises TrialLost."""
        self._requeue_own(trial, reason)
        self.forget(trial)

    def _requeue_own(self, trial: optuna.Trial, reason: str, death: "Cause | None" = None) -> None:
        claim = self.claim_of(trial)
        with one_at_a_time(self.engine):
            if not claims.stands(self.engine, claim):  # the interrupt came while its end was stored
                return
            record = self.storage.get_trial(claim.trial_id)
            if not record.state.is_finished():
                self._requeue(record, reason, death=death)
            self.worker.release(claim.trial_id)

    def loss(self, trial: optuna.Trial) -> Exception:
        """Return how this worker lost a trial."""
        return claims.lost(self.engine, self.claim_of(trial))

    def why_lost(self, trial: optuna.Trial, error: Exception) -> str:
        """Return the reason why this worker lost a trial, as a phrase."""
        if isinstance(error, TrialGone):
            return _GONE
        if ended_from_outside(self.storage.get_trial(trial_id(trial))):
            return "ended from outside"
        return "reassigned to another worker: no heartbeat from this one"

    def forget(self, trial: optuna.Trial) -> None:
        """Forget a trial that has ended or is lost."""
        self.worker.forget(self._claims.pop(trial))

    def requeue_orphans(self, *soon: Question) -> list[Orphan]:
        """Requeue every running trial without a living worker; return these trials.

        A trial that another program started stays with that program. A server answers at once what is asked `soon`.
        """
        if not self.worker.orphans(*soon):
            return []
        with one_at_a_time(self.engine), self.on_study():
            self._renew_cache()
            return self._requeue_all(self.worker.orphans())

    def _requeue_all(self, found: Iterable[Orphan]) -> list[Orphan]:
        trials = {orphan: self.storage.get_trial(orphan.trial_id) for orphan in found}
        orphans = [orphan for orphan, trial in trials.items() if not is_foreign(trial)]
        for orphan in orphans:
            self.worker.take_away(orphan.trial_id)  # first: a worker that only slept can then no longer end the trial
            trial = self.storage.get_trial(orphan.trial_id)
            if trial.state == TrialState.RUNNING:
                self._requeue(trial, orphan.reason, death="error")
                self.note(f"trial {orphan.number} was left running: {orphan.reason}")
        return orphans

    def _renew_cache(self) -> None:
        """Empty Optuna's cache of trials if the database has lost some of them, as after a failover.

        It would hold an ended trial for ever, and never read another one that got its id.
        """
        known = self._newest()
        if not known:
            return
        stored = {key: (state, mark and json.loads(mark)) for key, state, mark in ask(self.engine, self._marks(known))}
        mine = {key: (trial.state.name, trial.system_attrs.get(claims.ATTR)) for key, trial in known.items()}
        if any(stored.get(key) != mark for key, mark in mine.items()):
            forget_trials(self.study)
            self.note("the storage lost trials that it held, as after a failover: they are read again")

    def _newest(self) -> dict[int, FrozenTrial]:
        return {trial_id(trial): trial for trial in newest_finished(self.study)}

    def _marks(self, trial_ids: Iterable[int]) -> Question:
        return claims.marks(self._study_id, trial_ids)

    def _requeue(self, trial: FrozenTrial, reason: str, *, death: "Cause | None" = None) -> None:
        """Fail a trial and queue its successor, if `retries.retried` gives it one.

        On a server all of it is one transaction. In a file the successor comes first: after a crash in between, the
        next worker finds a running trial that already has one.
        """
        mark, successors = retried(trial, self._trials(), reason, death)
        if isinstance(self.storage, FarStorage):
            self.storage.requeue(self._study_id, trial_id(trial), mark, successors)
            return
        for values, inherited in successors:
            self.study.enqueue_trial(dict(values), user_attrs=dict(inherited))
        store_attrs(self.engine, trial, mark)
        # `Study` cannot write to a trial of another process.
        self._storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)


def _end_of(record: FrozenTrial, outcome: "Outcome") -> tuple[TrialState, float | None]:
    """Return state and value with which a trial ends; to Optuna, a pruned trial's value is its last epoch's."""
    curve = record.intermediate_values
    match outcome.stop_reason:
        case "pruned" | "over_time":
            state, value = TrialState.PRUNED, curve[max(curve)] if curve else None
        case "non_finite" | "error":
            return TrialState.FAIL, None
        case _:
            state, value = TrialState.COMPLETE, outcome.value
    if value is None or math.isnan(value):
        return (TrialState.PRUNED if state == TrialState.PRUNED else TrialState.FAIL), None
    return state, float(value)
