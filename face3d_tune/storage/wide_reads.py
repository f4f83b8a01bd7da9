"""The trials of a study by six wide queries, whatever their number.

Optuna makes an object of every row: 400,000 of them for the epochs of 10,000 trials, which take it half a minute.
"""

import json
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, DateTime, Integer, String, column, literal_column, select, table

from face3d_tune.storage import times
from face3d_tune.system.collector import collector_paused

_TRIALS = table(
    "trials",
    column("trial_id", Integer),
    column("study_id", Integer),
    column("number", Integer),
    column("state", String),
    column("datetime_start", DateTime),
    column("datetime_complete", DateTime),
)
Rows = Callable[..., Iterable[Any]]  # of a table that begins with `trial_`, with these columns, under a condition

_FEW = 500  # trials that a query names by id
_ROWS = 10_000  # taken from the driver at once
_SHORT = 64  # characters of a text or number that many trials may share
_ATTR = "key, value_json"
_NOT_FINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}


def read_trials(
    database: Connection,
    study_id: int,
    after: int,
    among: Collection[int],
    states: Collection[TrialState] | None,
    *,
    curves: bool = True,
    unread: Collection[str] = (),
) -> list[FrozenTrial]:
    """Read the trials of a study, in the order of their ids.

    Distributions are shared between trials, so leave them as they are.

    Args:
        database: The connection.
        study_id: Of the study.
        after: Trials with higher ids are read,
        among: and those with these ids.
        states: Of the trials to read; None: any.
        curves: Whether to read intermediate values and system attributes of finished trials too: half of the time.
        unread: Keys of system attributes that are not read.
    """
    chosen = f"t.study_id = {int(study_id)} and (t.trial_id > {int(after)} or t.trial_id in ({_ids(among)}))"
    if states is not None:
        names = ", ".join(f"'{state.name}'" for state in states)
        chosen += f" and t.state in ({names or 'null'})"
    rows = database.execute(select(_TRIALS.alias("t")).where(literal_column(chosen)).order_by(column("trial_id"))).all()
    trials = {
        row.trial_id: FrozenTrial(
            number=row.number,
            state=TrialState[row.state],
            value=None,
            datetime_start=times.local(row.datetime_start),
            datetime_complete=times.local(row.datetime_complete),
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=row.trial_id,
        )
        for row in rows
    }
    with_curves = trials if curves else {key: row for key, row in trials.items() if not row.state.is_finished()}
    with collector_paused() if len(trials) > _FEW else nullcontext():
        for fill, part in ((_fill, trials), (partial(_fill_curves, unread=unread), with_curves)):
            if part:
                fill(part, partial(_rows, database, chosen if len(part) > _FEW else f"t.trial_id in ({_ids(part)})"))
    return list(trials.values())


def _fill(trials: dict[int, FrozenTrial], rows: Rows) -> None:
    """Add parameters, values and user attributes to the trials; one that began since is not among them."""
    params = sorted(rows("params", "param_id, param_name, param_value, distribution_json"), key=lambda row: row[1])
    for trial_id, _, name, value, text in params:
        distribution = _distribution(text)
        if trial := trials.get(trial_id):
            trial.params[name] = distribution.to_external_repr(value)
            trial.distributions[name] = distribution
    values: dict[int, dict[int, float]] = {}
    for trial_id, objective, value, kind in rows("values", "objective, value, value_type"):
        values.setdefault(trial_id, {})[objective] = _NOT_FINITE.get(kind, value)
    for trial_id, of_trial in values.items():
        if trial := trials.get(trial_id):
            trial.values = [of_trial[objective] for objective in sorted(of_trial)]
    _fill_attrs({trial_id: trial.user_attrs for trial_id, trial in trials.items()}, rows("user_attributes", _ATTR))


def _fill_curves(trials: dict[int, FrozenTrial], rows: Rows, unread: Collection[str]) -> None:
    """Add intermediate values and system attributes, but those with the keys `unread`, to the trials."""
    attrs = rows("system_attributes", _ATTR, "".join(f" and a.key <> '{key}'" for key in unread))
    _fill_attrs({trial_id: trial.system_attrs for trial_id, trial in trials.items()}, attrs)
    steps = {trial_id: trial.intermediate_values for trial_id, trial in trials.items()}
    for trial_id, step, value, kind in rows("intermediate_values", "step, intermediate_value, intermediate_value_type"):
        if trial_id in steps:
            steps[trial_id][step] = _NOT_FINITE.get(kind, value)


def _fill_attrs(attrs: dict[int, dict[str, Any]], rows: Iterable[Any]) -> None:
    """Add attributes to those of the trials; short texts and numbers are made once."""
    keys: dict[str, str] = {}
    values: dict[str, Any] = {}
    for trial_id, key, text in rows:
        if trial_id in attrs:
            attrs[trial_id][keys.setdefault(key, key)] = _value(text, keys, values)


@lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    """Return a distribution from JSON, one object for all trials."""
    return json_to_distribution(text)


def _value(text: str, keys: dict[str, str], values: dict[str, Any]) -> Any:
    if text.startswith("{"):
        return {keys.setdefault(key, key): value for key, value in json.loads(text).items()}
    if len(text) > _SHORT or text.startswith("["):
        return json.loads(text)
    if text not in values:
        values[text] = json.loads(text)
    return values[text]


def _rows(database: Connection, chosen: str, name: str, columns: str, only: str = "") -> Iterable[Any]:
    question = f"select a.trial_id, {columns} from trial_{name} a join trials t on t.trial_id = a.trial_id"
    for rows in database.exec_driver_sql(f"{question} where ({chosen}){only}").partitions(_ROWS):
        yield from rows


def _ids(trial_ids: Iterable[int]) -> str:
    """Return ids as SQL; as parameters, a database would take only some thousands."""
    return ", ".join(str(int(trial_id)) for trial_id in trial_ids) or "null"
