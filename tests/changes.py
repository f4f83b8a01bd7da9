"""A recorder of what happens to the trials of a study on PostgreSQL, and the rules that every such record keeps.

Triggers write down each change of a trial's state and of its claim, in the order in which the server made them.
Afterwards `violations` says what is wrong with it all; it needs no database.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text
from sqlalchemy.engine import Engine

from face3d_tune.executor.tasks import RETRIES
from face3d_tune.study.trials import FINISHED, REQUEUED

_RECORDER = """
create table history (
    id bigserial primary key, at timestamptz default clock_timestamp(), step bigint default txid_current(),
    trial_id integer not null, state text, owner text
);
create function record_state() returns trigger language plpgsql as $$ begin
    insert into history (trial_id, state) values (new.trial_id, new.state);
    return null;
end $$;
create function record_claim() returns trigger language plpgsql as $$ begin
    insert into history (trial_id, owner) values (coalesce(new.trial_id, old.trial_id), coalesce(new.worker, ''));
    return null;
end $$;
create trigger state_made after insert on trials for each row execute function record_state();
create trigger state_changed after update of state on trials for each row
    when (old.state is distinct from new.state) execute function record_state();
create trigger claim_changed after insert or update or delete on face3d_tune_claims for each row
    execute function record_claim();
"""

# What may follow what; a trial of the queue begins as WAITING, one that is sampled as RUNNING.
_NEXT = {
    None: {"WAITING", "RUNNING"},
    "WAITING": {"RUNNING"},
    "RUNNING": {"COMPLETE", "PRUNED", "FAIL"},
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to a trial: it got a state, or an owner ('' when it lost that)."""

    trial_id: int
    state: str | None = None
    owner: str | None = None


def record(engine: Engine) -> None:
    """Write down from now on whatever happens to the trials in this database."""
    with engine.begin() as database:
        database.execute(text(_RECORDER))


def read(engine: Engine) -> list[Change]:
    """What was written down, in its order."""
    with engine.connect() as database:
        rows = database.execute(text("select step, trial_id, state, owner from history order by id")).all()
    return list(_settled([(step, Change(*change)) for step, *change in rows]))


def _settled(rows: Sequence[tuple[int, Change]]) -> Iterator[Change]:
    """Without states that nobody else could see: Optuna queues a trial by making it RUNNING and then WAITING."""
    last = {(step, change.trial_id): change for step, change in rows if change.state}
    return (change for step, change in rows if not change.state or last[step, change.trial_id] is change)


def violations(changes: Iterable[Change], trials: Sequence[FrozenTrial], total: int) -> list[str]:
    """Every rule that the history, or the study it led to, breaks; `total` is the budget of the search."""
    return [*_broken_paths(changes, trials), *broken_ends(trials, total)]


def broken_ends(trials: Sequence[FrozenTrial], total: int) -> list[str]:
    """Every rule that a study breaks in the end, whatever its history."""
    return [*_broken_totals(trials, total), *_broken_chains(trials)]


def _broken_paths(changes: Iterable[Change], trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """Waiting, running, one end; under one owner, who alone finishes."""
    numbers = {trial._trial_id: trial.number for trial in trials}
    state: dict[int, str] = {}
    owner: dict[int, str] = {}
    owners: dict[int, set[str]] = defaultdict(set)
    for change in changes:
        trial_id = change.trial_id
        name = f"trial {numbers.get(trial_id, f'with id {trial_id}, which is gone')}"
        before = state.get(trial_id)
        if change.state:
            if change.state not in _NEXT.get(before, ()):
                yield f"{name} became {change.state} when it was {before}"
            if change.state in ("COMPLETE", "PRUNED") and not owner.get(trial_id):
                yield f"{name} became {change.state} without an owner"
            state[trial_id] = change.state
        elif change.owner:
            if owner.get(trial_id):
                yield f"{name} had two owners at a time"
            if before != "RUNNING":
                yield f"{name} was claimed when it was {before}"
            owners[trial_id].add(change.owner)
            if len(owners[trial_id]) == 2:
                yield f"{name} had one owner after the other"
            owner[trial_id] = change.owner
        else:
            owner[trial_id] = ""
    for trial in trials:
        if state.get(trial._trial_id) != trial.state.name:
            yield f"trial {trial.number} is {trial.state.name}, but its history ends as {state.get(trial._trial_id)}"


def _broken_totals(trials: Sequence[FrozenTrial], total: int) -> Iterator[str]:
    """Numbers without gaps, the exact total, nothing that runs, and of each finished trial the whole curve."""
    if [trial.number for trial in trials] != list(range(len(trials))):
        yield f"the numbers are {[trial.number for trial in trials]}"
    finished = [trial for trial in trials if trial.state in FINISHED]
    if len(finished) != total:
        yield f"{len(finished)} trials are finished, not {total}"
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            yield f"trial {trial.number} is still RUNNING"
    for trial in finished:
        steps, attrs = sorted(trial.intermediate_values), trial.user_attrs
        if steps != list(range(1, attrs["epochs_run"] + 1)):
            yield f"trial {trial.number} trained {attrs['epochs_run']} epochs, but reported {steps}"
        elif trial.intermediate_values[attrs["best_epoch"]] != attrs["val_cosine"]:
            yield f"trial {trial.number} has a value that is not the one of its best epoch"


def _broken_chains(trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """What was put back has one successor, of the same seed; of a chain one is finished, and few have died."""
    successors: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        if (before := trial.user_attrs.get("retry_of")) is not None:
            successors[before].append(trial)
    for trial in trials:
        after = successors[trial.number]
        if len(after) > 1:
            yield f"trial {trial.number} was queued again {len(after)} times"
        if after and trial.state != TrialState.FAIL:
            yield f"trial {trial.number} was queued again, but it is {trial.state.name}"
        if not after and REQUEUED in trial.user_attrs and "config" in trial.user_attrs:
            yield f"trial {trial.number} was put back, but nothing continues it"
        if trial.user_attrs.get("deaths", 0) > RETRIES:
            yield f"trial {trial.number} was tried again after {trial.user_attrs['deaths']} deaths"
    chains = [_chain(trial, successors) for trial in trials if "retry_of" not in trial.user_attrs]
    seeds: dict[int, int] = {}
    ordinals: dict[int, int] = {}
    for chain in chains:
        first, last = chain[0].number, chain[-1]
        done = [trial.number for trial in chain if trial.state in FINISHED]
        if len(done) > 1:
            yield f"trials {done} continue one another, and both are finished"
        if REQUEUED in last.user_attrs:
            continue  # it died before it was anything; the next trial takes its place
        for name, values in (("seed", seeds), ("ordinal", ordinals)):
            held = {trial.user_attrs[name] for trial in chain if name in trial.user_attrs}
            if len(held) > 1:
                yield f"trial {first} and those that continue it have several {name}s: {sorted(held)}"
            for value in held:
                if values.setdefault(value, first) != first:
                    yield f"trials {values[value]} and {first} have the same {name}"


def _chain(trial: FrozenTrial, successors: dict[int, list[FrozenTrial]]) -> list[FrozenTrial]:
    """A trial and all that continue it."""
    return [trial, *(later for after in successors[trial.number] for later in _chain(after, successors))]
