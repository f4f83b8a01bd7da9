"""Changes to the trials of a study: enqueue, ask, tell, requeue. No other module changes the state of a trial.

The worker that claims a trial makes each change, under `server_lock.one_at_a_time`. The order of steps is such that the
next worker recognises a crash between any two. So the number of finished trials is exact with any number of workers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text

from face3d_tune.executor.tasks import RETRIES
from face3d_tune.search.trial_run import Cause, Outcome
from face3d_tune.storage.optuna_internals import (
    FIXED_PARAMS,
    fixed_params,
    storage_of,
    store_attrs,
    study_id,
    trial_id,
)
from face3d_tune.storage.server_lock import one_at_a_time
from face3d_tune.storage.workers import DEFAULT_SILENCE, Orphan, Worker
from face3d_tune.study import history
from face3d_tune.study.attrs import Attr, StudyAttr, TrialAttr
from face3d_tune.study.other_programs import FOREIGN_SQL, ended_from_outside, is_foreign, own_trials
from face3d_tune.study.study_file import InitialTrial
from face3d_tune.study.trials import FINISHED, REQUEUED, still_present

_INHERITED = (
    TrialAttr.preset.key,
    TrialAttr.near.key,
    TrialAttr.tried.key,
    TrialAttr.like.key,
    TrialAttr.overrides.key,
    TrialAttr.seed.key,
    TrialAttr.ordinal.key,
    TrialAttr.deaths.key,
    TrialAttr.timeouts.key,
    TrialAttr.lineage.key,
)
_TIMEOUTS = 1  # after which a training that gave no epoch for too long is tried again


class TrialLost(Exception):
    """A trial that was reassigned because this worker was presumed dead, or that another program ended."""


class TrialQueue:
    """The trials of one study, as this worker may change them. Adding finished trials needs no worker.

    Attributes:
        budget: Total number of finished trials, earlier runs included; 0 until a search sets it.
        note: Takes one line about each trial of a dead worker.
        storage: Of the study.
        engine: Of the storage.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage, *, silence: float = DEFAULT_SILENCE) -> None:
        self.study, self._silence = study, silence
        self.budget = 0
        self.note: Callable[[str], object] = lambda line: None
        self.storage = storage
        self.engine = self._engine = storage.engine
        self._storage, self._study_id = storage_of(study), study_id(study)
        self._own = StudyAttr.id.get(study.user_attrs)

    @cached_property
    def worker(self) -> Worker:
        """This process as a worker of the study; the first access registers it.

        Raises StudyError if a living worker has another version of face3d-tune.
        """
        alone = self._engine.dialect.name == "sqlite"
        return Worker(self._engine, self._study_id, silence=self._silence, alone=alone)

    def on_study(self) -> AbstractContextManager[None]:
        """Raise StudyGoneError if the study is missing in this block, in place of the errors that follow from it."""
        return still_present(self.study, self._own, self._engine)

    def counts(self) -> dict[TrialState, int]:
        """Count trials by state, without reading them; imported ones and those of other programs do not count."""
        question = text(
            "select state, count(*) from trials t where study_id = :study and not exists "
            "(select 1 from trial_user_attributes a where a.trial_id = t.trial_id "
            f"and a.key = '{TrialAttr.origin.key}') "
            f"and not {FOREIGN_SQL} group by state"
        )
        with self._engine.connect() as database:
            rows = database.execute(question, {"study": self._study_id}).all()
        return {TrialState[state]: count for state, count in rows}

    def finished(self) -> int:
        """Count the trials within the budget: completed or pruned, and trained here."""
        counts = self.counts()
        return sum(counts.get(state, 0) for state in FINISHED)

    def budget_spent(self) -> bool:
        """Tell whether the study holds all finished trials of the budget."""
        return self.finished() >= self.budget

    def enqueue(self, presets: Iterable[InitialTrial]) -> None:
        """Queue every preset that the study does not have yet, in this order."""
        with one_at_a_time(self._engine):
            # A preset is enqueued again if another program completed it, or took its retry.
            trials = [trial for trial in own_trials(self._trials()) if not TrialAttr.requeued.held_by(trial.user_attrs)]
            kinds = (TrialAttr.preset.key, TrialAttr.near.key, TrialAttr.like.key)
            marks = [trial.user_attrs.get(kind) for trial in trials for kind in kinds]
            for preset in presets:
                if preset.mark not in marks:
                    attrs = {preset.kind: preset.mark, TrialAttr.overrides.key: dict(preset.overrides)}
                    self.study.enqueue_trial(dict(preset.params), user_attrs=attrs)

    def enqueue_tried(self, params: Mapping[str, Any], overrides: Mapping[str, Any], words: Sequence[str]) -> int:
        """Queue a config that a person tries, with the words that asked for it; return its number.

        It needs no worker, and not the right to search: it adds one trial in one transaction.
        """
        attrs = {TrialAttr.tried.key: list(words), TrialAttr.overrides.key: dict(overrides)}
        trial = create_trial(state=TrialState.WAITING, user_attrs=attrs, system_attrs={FIXED_PARAMS: dict(params)})
        with one_at_a_time(self._engine), self.on_study():
            return self._add(trial)

    def add_imported(self, trials: Iterable[FrozenTrial]) -> dict[str, tuple[int, bool]]:
        """Store trials that were trained elsewhere, each once; return by `run_id` the number, and whether it is new."""
        with one_at_a_time(self._engine):
            imported = [trial for trial in self._trials() if isinstance(TrialAttr.run_id.get(trial.user_attrs), str)]
            numbers = {TrialAttr.run_id.of(trial.user_attrs): trial.number for trial in imported}
            taken: dict[str, tuple[int, bool]] = {}
            for trial in trials:
                run_id = TrialAttr.run_id.of(trial.user_attrs)
                if new := run_id not in numbers:
                    numbers[run_id] = self._add(trial)
                taken.setdefault(run_id, (numbers[run_id], new))
            return taken

    def _add(self, trial: FrozenTrial) -> int:
        """Add a trial, and return its number, which `Study.add_trial` does not."""
        return self._storage.get_trial_number_from_id(
            self._storage.create_new_trial(self._study_id, template_trial=trial)
        )

    def ask(self) -> optuna.Trial | None:
        """Claim the next trial; None if the finished ones and those in training may suffice for the budget."""
        if self._engine.dialect.name != "sqlite":
            self._trials()  # caches most trials before the other workers have to wait
        with one_at_a_time(self._engine) as still_alone:
            self._requeue_orphans()
            counts = self.counts()
            if sum(counts.get(state, 0) for state in (*FINISHED, TrialState.RUNNING)) >= self.budget:
                return None
            trial = self.study.ask()
            try:
                if _whole(trial, TrialAttr.ordinal) is None:
                    trial.set_user_attr(TrialAttr.ordinal.key, self._next_ordinal())
            except UpdateFinishedTrialError:  # frozen in this block, this worker was presumed dead
                return None
            still_alone()  # else the counts are stale; no worker claims the trial, so it is requeued
            self.worker.claim(trial_id(trial))  # last: a trial without a claim shows a crash at once
            return trial

    def store(self, trial: optuna.Trial | FrozenTrial, attrs: Mapping[str, Any]) -> None:
        """Store user attributes of a running trial, all of them or none. Raises UpdateFinishedTrialError."""
        store_attrs(self._engine, trial, attrs)

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> FrozenTrial:
        """End a trial, or requeue it if only its process died. Raises TrialLost.

        May be called again if the database went away during the call.
        """
        try:
            with suppress(UpdateFinishedTrialError):  # the lines below find out who ended it
                self.store(trial, outcome.attrs)  # outside the lock
                self._storage.set_trial_system_attr(trial_id(trial), history.ATTR, outcome.history)
            with one_at_a_time(self._engine):
                record = self._storage.get_trial(trial_id(trial))
                if ended_from_outside(record):
                    raise TrialLost
                if record.state not in FINISHED:  # only the owner of a trial finishes it
                    if not self.worker.holds(trial_id(trial)):
                        raise TrialLost
                    if not record.state.is_finished():
                        record = self._tell(trial, outcome)
                self.worker.release(trial_id(trial))
                return record
        except UpdateFinishedTrialError as error:
            raise TrialLost from error

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> FrozenTrial:
        if outcome.death or outcome.beside:
            self._requeue(
                self._storage.get_trial(trial_id(trial)), TrialAttr.error.of(outcome.attrs), death=outcome.death
            )
            return self._storage.get_trial(trial_id(trial))
        match outcome.stop_reason:
            case "pruned" | "over_time":
                return self.study.tell(trial, state=TrialState.PRUNED)
            case "non_finite" | "error":
                return self.study.tell(trial, state=TrialState.FAIL)
            case _:
                return self.study.tell(trial, outcome.value)

    def requeue(self, trial: optuna.Trial, reason: str) -> None:
        """Fail a trial of this worker and requeue it. Raises TrialLost."""
        with one_at_a_time(self._engine):
            record = self._storage.get_trial(trial_id(trial))
            if record.state.is_finished():  # the interrupt came while its end was stored
                self.worker.release(trial_id(trial))
            elif not self.worker.holds(trial_id(trial)):
                raise TrialLost
            else:
                self._requeue(record, reason)
                self.worker.release(trial_id(trial))

    def why_lost(self, trial: optuna.Trial) -> str:
        """Return the reason why this worker lost a trial, as a phrase."""
        if ended_from_outside(self._storage.get_trial(trial_id(trial))):
            return "ended from outside"
        return "reassigned to another worker: no heartbeat from this one"

    def requeue_orphans(self) -> list[Orphan]:
        """Requeue every running trial without a living worker; return these trials.

        A trial that another program started stays with that program.
        """
        if not self.worker.orphans():
            return []
        with one_at_a_time(self._engine), self.on_study():
            return self._requeue_orphans()

    def _requeue_orphans(self) -> list[Orphan]:
        trials = {orphan: self._storage.get_trial(orphan.trial_id) for orphan in self.worker.orphans()}
        orphans = [orphan for orphan, trial in trials.items() if not is_foreign(trial)]
        for orphan in orphans:
            self.worker.release(orphan.trial_id)  # first: a worker that only slept can then no longer end the trial
            trial = self._storage.get_trial(orphan.trial_id)
            if trial.state == TrialState.RUNNING:
                self._requeue(trial, orphan.reason, death="error")
                self.note(f"trial {orphan.number} was left running: {orphan.reason}")
        return orphans

    def _requeue(self, trial: FrozenTrial, reason: str, *, death: Cause | None = None) -> None:
        """Fail a trial and enqueue a successor with the same parameters and seed, which gives the same result.

        `death` is the cause if a process died: this worker, or the one that trained for it. After RETRIES deaths there
        is no successor, since the trial itself may be the cause; nor after a second timeout. The successor comes first:
        after a crash in between, the next worker finds a running trial that already has one.
        """
        sampled = (
            trial.params if TrialAttr.config.held_by(trial.user_attrs) else {}
        )  # before that, params may be incomplete
        params = {**(fixed_params(trial) or {}), **sampled}
        deaths = (_whole(trial, TrialAttr.deaths) or 0) + (death is not None)
        timeouts = (_whole(trial, TrialAttr.timeouts) or 0) + (death == "timeout")
        again = deaths <= RETRIES and timeouts <= _TIMEOUTS
        succeeded = {_whole(other, TrialAttr.retry_of) for other in self._trials()}
        if again and params and trial.number not in succeeded:
            attrs = {key: trial.user_attrs[key] for key in _INHERITED if key in trial.user_attrs}
            attrs |= {
                TrialAttr.retry_of.key: trial.number,
                TrialAttr.deaths.key: deaths,
                TrialAttr.lineage.key: lineage(trial),
            }
            attrs |= {TrialAttr.timeouts.key: timeouts} if timeouts else {}
            attrs.setdefault(TrialAttr.ordinal.key, self._next_ordinal())  # its worker died before it set one
            self.study.enqueue_trial(params, user_attrs=attrs)
        if timeouts > _TIMEOUTS:
            reason = f"{reason}; it hung before, and was tried once again"
        elif not again:
            reason = f"{reason}; that was the last of {RETRIES} retries"
        mark: dict[str, Any] = {TrialAttr.stop_reason.key: "error", TrialAttr.error.key: reason}
        mark |= {REQUEUED: True} if again else {TrialAttr.cause.key: death}
        self.store(trial, mark)
        # `Study` cannot write to a trial of another process.
        self._storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)

    def _next_ordinal(self) -> int:
        """Return the first free ordinal; that of a requeued trial without a successor is free.

        Seeds are derived from the ordinal, so an interrupted study continues as if it had run through. A sampler that
        restarted with one seed would repeat its first suggestions.
        """
        trials = self._trials()
        succeeded = {_whole(trial, TrialAttr.retry_of) for trial in trials}
        used = {
            _whole(trial, TrialAttr.ordinal)
            for trial in trials
            if not TrialAttr.requeued.held_by(trial.user_attrs) or trial.number in succeeded
        }
        return next(ordinal for ordinal in range(len(used) + 1) if ordinal not in used)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)


def lineage(trial: FrozenTrial | optuna.Trial) -> int:
    """Return the number of the first trial in a row of retries; the trial's own if it is no retry."""
    number = _whole(trial, TrialAttr.lineage)
    return trial.number if number is None else number


def _whole(trial: FrozenTrial | optuna.Trial, attr: Attr[int]) -> int | None:
    """Return an int from a trial's user attributes; None if it is missing, or another program stored something else."""
    value = attr.get(trial.user_attrs)
    return value if isinstance(value, int) else None
