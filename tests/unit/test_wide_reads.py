"""Trials read by a few wide queries are those that Optuna reads, on both databases."""

import gc
import json
from datetime import datetime

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import event
from stored_study import add_many, many_trials, our_study, study_of, trial_of

from face3d_tune.storage import far_storage, wide_reads
from face3d_tune.storage.database import Storage
from face3d_tune.storage.optuna_internals import stored_trial_attr
from face3d_tune.system.collector import collector_paused

pytestmark = pytest.mark.slow

EVERY = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "layers": IntDistribution(1, 8),
    "pose_unit": CategoricalDistribution(["degrees", "radians", None]),
}
PARAMS = {"lr": 0.1 / 3, "layers": 3, "pose_unit": None}


def of_every_kind():
    """Trials with every value that a column may hold."""
    text = 'line\nquote" ü 人' + "x" * 2000
    attrs = {"text": text, "none": None, "number": 1e-300, "list": [1, {"a": "b"}], "dict": {"k": [text]}, "": ""}
    ended = datetime(2026, 7, 1, 12, 30, 1, 250000)
    whole = {"user_attrs": attrs, "system_attrs": {"note": {"a": 1}}, "params": PARAMS, "distributions": EVERY}
    values = {1: 0.1 + 0.2, 2: float("inf"), 3: float("-inf"), 4: float("nan"), 60: -0.0}
    trials = [
        create_trial(value=0.5, intermediate_values=values, **whole),
        create_trial(value=float("inf"), **whole),
        create_trial(value=float("-inf"), state=TrialState.PRUNED, intermediate_values={5: 1.5}),
        create_trial(state=TrialState.FAIL, user_attrs={"error": "x"}),
        create_trial(state=TrialState.RUNNING, params={"lr": 0.01}, distributions={"lr": EVERY["lr"]}),
        create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"lr": 0.01}}),
    ]
    trials[0].datetime_start, trials[0].datetime_complete = datetime(2026, 1, 1), ended
    return trials


def as_optuna_reads(storage, study, states=None, included=(), after=-1):
    return optuna.storages.RDBStorage._get_trials(storage, study._study_id, states, set(included), after)


def told(trials):
    """All of the trials, in a form in which NaN equals NaN and -0.0 differs from 0.0."""
    return [
        {
            name: repr(sorted(value.items()) if isinstance(value, dict) and name != "_distributions" else value)
            for name, value in vars(trial).items()
        }
        for trial in trials
    ]


@pytest.fixture
def study(storage):
    """One study among others of the same storage, whose ids lie between those of the others."""
    other = optuna.create_study(storage=storage, study_name="other")
    study = optuna.create_study(storage=storage, study_name="faces")
    for trial in of_every_kind():
        other.add_trial(trial_of("COMPLETE", 0.6))
        study.add_trial(trial)
    return study


def test_every_field_of_every_trial_is_the_one_that_optuna_reads(storage, study):
    read = storage._get_trials(study._study_id, None, set(), -1)
    assert [trial.state.name for trial in read] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
    assert told(read) == told(as_optuna_reads(storage, study))
    assert read[0].params == PARAMS
    assert read[0].intermediate_values[2] == float("inf")


def test_a_key_that_looks_like_a_value_stays_a_key(sqlite):
    attrs = {"1": {"null": 1, "1": "1", "true": True}, "null": None, "true": True, '"x"': "x", "number": 1}
    study = study_of(trial_of("COMPLETE", 0.6), storage=sqlite)
    study.add_trial(create_trial(value=0.5, user_attrs={"number": 1, "none": None}))
    study.add_trial(create_trial(value=0.5, user_attrs=attrs, system_attrs=attrs))
    read = study.get_trials()[-1]
    assert read.user_attrs == read.system_attrs == attrs


def test_of_many_trials_too_which_are_read_by_study_and_not_by_id(storage, study, monkeypatch):
    monkeypatch.setattr(wide_reads, "_FEW", 2)
    assert told(storage._get_trials(study._study_id, None, set(), -1)) == told(as_optuna_reads(storage, study))


@pytest.mark.parametrize("few", [0, 500])
def test_only_later_trials_and_those_asked_for_are_read(storage, study, monkeypatch, few):
    monkeypatch.setattr(wide_reads, "_FEW", few)
    ids = [trial._trial_id for trial in study.get_trials(deepcopy=False)]
    read = storage._get_trials(study._study_id, None, {ids[0], ids[2]}, ids[3])
    assert [trial.number for trial in read] == [0, 2, 4, 5]
    assert told(read) == told(as_optuna_reads(storage, study, None, {ids[0], ids[2]}, ids[3]))


@pytest.mark.parametrize("few", [0, 500])
def test_only_trials_of_these_states_are_read(storage, study, monkeypatch, few):
    monkeypatch.setattr(wide_reads, "_FEW", few)
    for states in ((TrialState.COMPLETE,), (TrialState.FAIL, TrialState.RUNNING), ()):
        read = storage._get_trials(study._study_id, states, set(), -1)
        assert told(read) == told(as_optuna_reads(storage, study, states))


@pytest.mark.parametrize(
    ("question", "study"),
    [("get_all_trials", 7), ("get_study_directions", 7), ("get_study_id_from_name", "gone")],
)
def test_a_study_that_is_gone_is_missed_as_optuna_misses_it(storage, question, study):
    with pytest.raises(KeyError, match="Record does not exist"):
        getattr(storage, question)(study)


def test_a_trial_that_is_stored_while_others_are_read_is_left_for_the_next_time(sqlite, sqlite_url, monkeypatch):
    """Between two tables another process may store a trial, with rows in each of those that are still to be read."""
    monkeypatch.setattr(wide_reads, "_FEW", 0)
    study = optuna.create_study(storage=sqlite, study_name="faces")
    study.add_trial(of_every_kind()[0])
    before = told(sqlite._get_trials(study._study_id, None, set(), -1))
    late = []

    def store(*asked):
        if not late and "trial_params" in asked[2]:
            late.append(of_every_kind()[0])
            with Storage.parse(sqlite_url).opened() as other:
                optuna.load_study(study_name="faces", storage=other).add_trial(late[0])

    event.listen(sqlite.engine, "before_cursor_execute", store)
    with sqlite.engine.connect() as database:
        read = wide_reads.read_trials(database, study._study_id, -1, (), None)
    assert told(read) == before
    assert len(late) == 1
    assert len(sqlite._get_trials(study._study_id, None, set(), -1)) == 2


def test_without_curves_all_else_is_there_and_the_curve_of_a_running_trial(sqlite, sqlite_url):
    study = study_of(trial_of("COMPLETE", 0.6), trial_of("RUNNING", curve=[0.3]), storage=sqlite)
    whole = study.get_trials()
    with Storage.parse(sqlite_url).opened(curves=False) as opened:
        read = optuna.load_study(study_name="faces", storage=opened).get_trials()
    assert read[1] == whole[1]
    assert (read[0].intermediate_values, read[0].system_attrs) == ({}, {})
    for name in ("number", "state", "value", "params", "distributions", "user_attrs", "datetime_start"):
        assert getattr(read[0], name) == getattr(whole[0], name)


@pytest.mark.parametrize("few", [0, 500])
def test_system_attributes_that_are_not_wanted_are_not_read_and_all_else_is(storage, study, monkeypatch, few):
    monkeypatch.setattr(wide_reads, "_FEW", few)
    monkeypatch.setattr(far_storage, "_FEW", max(few, 1))
    whole = study.get_trials()
    assert [trial.number for trial in whole if "note" in trial.system_attrs] == [0, 1]
    for trial in whole:
        trial.system_attrs.pop("note", None)
    storage.unread = frozenset({"note", "another"})
    assert told(storage._get_trials(study._study_id, None, set(), -1)) == told(whole)
    assert "fixed_params" in whole[5].system_attrs
    assert stored_trial_attr(study, whole, "note") == {0: {"a": 1}, 1: {"a": 1}}


def test_several_objectives_keep_their_order(sqlite):
    study = optuna.create_study(storage=sqlite, directions=["minimize", "maximize", "minimize"])
    study.add_trial(create_trial(values=[3.0, 1.0, 2.0]))
    (trial,) = study.get_trials()
    assert trial.values == [3.0, 1.0, 2.0]


def test_a_thousand_trials_take_as_many_queries_as_one(sqlite):
    asked = []
    event.listen(sqlite.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    for count in (1, 1000):
        study = our_study(sqlite, f"of {count}")
        add_many(study, sqlite, many_trials(count))
        asked.clear()
        assert len(study.get_trials(deepcopy=False)) == count
        assert len(asked) == 7, asked  # the study, its trials, and the five tables of what they hold


def test_an_object_that_trials_hold_is_no_others(sqlite):
    study = study_of(*[trial_of("COMPLETE", 0.6) for _ in range(2)], storage=sqlite)
    first, second = study.get_trials(deepcopy=False)
    first.user_attrs["config"]["lr"] = 7
    assert second.user_attrs["config"]["lr"] != 7
    assert json.dumps(second.user_attrs["overrides"]) == "{}"
    assert first.user_attrs["overrides"] is not second.user_attrs["overrides"]


def test_the_collector_is_on_again_after_the_last_pause_unless_it_was_off():
    assert gc.isenabled()
    with collector_paused():
        with pytest.raises(KeyError), collector_paused():
            raise KeyError
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
