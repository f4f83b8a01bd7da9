"""What a storage holds, read without SQLAlchemy and Optuna between, and studies that hold everything there is."""

import math
import re
import sqlite3
from contextlib import closing
from datetime import datetime

import optuna
import psycopg
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import NullPool

from face3d_tune.storage.database import Storage

OF_STUDIES = ("study_directions", "study_user_attributes", "study_system_attributes")
OF_TRIALS = (
    "trial_heartbeats",
    "trial_intermediate_values",
    "trial_params",
    "trial_system_attributes",
    "trial_user_attributes",
    "trial_values",
)


def of_optuna(url):
    """The storage as Optuna alone opens it; no connection stays open after a question."""
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def connect(url):
    if url.startswith("sqlite"):
        return closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.1))
    return closing(psycopg.connect(url))


def query(url, statement):
    """Rows as dictionaries."""
    with connect(url) as connection:
        cursor = connection.execute(statement)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def write(url, statement):
    with connect(url) as connection:
        connection.execute(statement)
        connection.commit()


def plain(row):
    """A row without ids, with what the two databases write differently written the same."""
    ids = re.compile(r"(param|\w*_value|\w*_attribute|\w*heartbeat|\w*direction|study|trial)_id")
    shown = {}
    for name, value in row.items():
        if name.startswith(("datetime", "heartbeat")) and isinstance(value, str):
            value = datetime.fromisoformat(value)
        if not ids.fullmatch(name):
            shown[name] = repr(value)
    return shown


def everything(url, name):
    """All that a storage holds about a study, in the order in which it was stored."""
    (study,) = query(url, f"select * from studies where study_name = '{name}'")
    mine = f"study_id = {study['study_id']}"
    held = {table: query(url, f"select * from {table} where {mine} order by 1") for table in OF_STUDIES}
    held["trials"] = query(url, f"select * from trials where {mine} order by trial_id")
    for table in OF_TRIALS:
        held[table] = query(
            url,
            f"select number as of_trial, {table}.* from {table} join trials using (trial_id) where {mine} order by 2",
        )
    return {table: [plain(row) for row in rows] for table, rows in held.items()}


def fill(url, *names):
    """Studies with everything that Optuna can store about one."""
    with Storage.parse(url).opened(create=True) as storage:
        for name in names:
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
            study.set_metric_names(["val_cosine"])
            study.set_user_attr("数据", {"path": "faces/人", "nested": [1, 2.5, None, "é"]})
            study.set_user_attr("settings", {"seed": 42})
            storage.set_study_system_attr(study._study_id, "dashboard:note", "# A note\n")
            for trial in every_kind_of_trial():
                study.add_trial(trial)
            study.enqueue_trial({"lr": 0.1}, user_attrs={"preset": "baseline"})
            running = study.ask()
            running.suggest_float("lr", 1e-5, 1e-1, log=True)
            running.report(0.1 + 0.2, 7)
            study.enqueue_trial({"lr": 0.01 / 3})
            storage.record_heartbeat(running._trial_id)


def every_kind_of_trial():
    space = {
        "lr": FloatDistribution(1e-5, 3e-3, log=True),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "patience": IntDistribution(1, 8),
        "unit": CategoricalDistribution(["degrees", "radians"]),
        "flag": CategoricalDistribution([False, True, None]),
    }
    params = {"lr": 0.1 / 300, "dropout": 0.30000000000000004, "patience": 3, "unit": "radians", "flag": None}
    curve = {0: 1 / 3, 2: math.nan, 1: math.inf, 10: -math.inf, 3: 5e-324}
    attrs = {"user_attrs": {"config": {"lr": 1e-7}, "名": "值"}, "system_attrs": {"fixed_params": params}}
    for state, value in (("COMPLETE", 0.1), ("COMPLETE", -math.inf), ("PRUNED", math.inf), ("FAIL", None)):
        known = {} if state == "FAIL" else {"params": params, "distributions": space}
        yield create_trial(state=TrialState[state], value=value, intermediate_values=curve, **known, **attrs)


def number_of_studies(url):
    return query(url, "select count(*) as number from studies")[0]["number"]
