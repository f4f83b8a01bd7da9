"""The private names of Optuna that this package depends on: a test fails for each one that a release changes."""

import sys
from importlib import import_module, metadata
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import inspect, text
from stored import of_optuna
from stored_study import add_trial, our_study

from face3d_tune.storage import optuna_internals
from face3d_tune.storage.database import Storage
from face3d_tune.storage.optuna_internals import (
    NO_RECORD,
    STUDIES,
    TABLES,
    TRIALS,
    StudyView,
    change_study_attr,
    engine_of,
    fixed_params,
    forget_importances,
    forget_trials,
    head_version,
    let_errors_out,
    newest_finished,
    params_in_memory,
    record_of,
    record_without_values,
    running_trial,
    startup_trials,
    storage_of,
    store_attrs,
    stored_attr,
    stored_trial_attr,
    study_id,
    trial_id,
    trials_as_sampled_from,
)


def changed(name, package="optuna"):
    """Say what to do about a private name that is no longer what it was."""
    return f"{package} {metadata.version(package)} changed {name}: mend {optuna_internals.__file__}"


@pytest.fixture
def study(sqlite):
    return our_study(sqlite, "faces")


def test_a_study_knows_its_storage_and_its_id(study, sqlite):
    assert hasattr(study, "_storage"), changed("Study._storage")
    assert isinstance(storage_of(study), BaseStorage), changed("Study._storage")
    assert hasattr(study, "_study_id"), changed("Study._study_id")
    assert study_id(study) == sqlite.get_study_id_from_name("faces"), changed("Study._study_id")


def test_a_study_in_a_database_knows_its_engine_and_reads_one_attribute(study, sqlite):
    assert engine_of(study) is sqlite.engine, changed("Study._storage._backend")
    assert engine_of(optuna.create_study()) is None
    study.set_user_attr("a", {"b": 1})
    assert (stored_attr(sqlite.engine, study, "a"), stored_attr(sqlite.engine, study, "c")) == ({"b": 1}, None)


@pytest.mark.parametrize("already", [{}, {"first": 1}], ids=["new", "there"])
def test_an_attribute_that_two_programs_change_at_one_moment_keeps_both_changes(storage, storage_url, already):
    """The other one stores its change after this one has read the attribute."""
    study, seen = our_study(storage, "faces"), []
    if already:
        study.set_user_attr("名", already)

    def change(stored):
        seen.append(stored)
        if len(seen) == 1:
            with Storage.parse(storage_url).opened() as theirs:
                optuna.load_study(study_name="faces", storage=theirs).set_user_attr("名", {**already, "theirs": "它"})
        return {**(stored or {}), "ours": 0.1}

    assert change_study_attr(storage.engine, study, "名", change) is True
    assert seen == [already or None, {**already, "theirs": "它"}]
    assert study.user_attrs["名"] == {**already, "theirs": "它", "ours": 0.1}
    assert stored_attr(storage.engine, study, "名") == study.user_attrs["名"]


def test_an_attribute_that_stays_is_not_written_and_one_of_a_deleted_study_is_not_left_behind(storage):
    study = our_study(storage, "faces")
    study.set_user_attr("a", [1])
    assert change_study_attr(storage.engine, study, "a", lambda stored: stored) is False
    assert change_study_attr(storage.engine, study, "none", lambda stored: stored) is False
    assert study.user_attrs["a"] == [1]
    assert "none" not in study.user_attrs

    def delete_it(stored):
        optuna.delete_study(study_name="faces", storage=storage)
        return "left behind"

    with pytest.raises(KeyError, match=NO_RECORD):
        change_study_attr(storage.engine, study, "none", delete_it)
    with storage.engine.connect() as database:
        assert database.execute(text("select count(*) from study_user_attributes")).scalar() == 0


def test_one_system_attribute_of_some_trials_is_read_also_in_memory(sqlite):
    for storage in (sqlite, None):
        study = optuna.create_study(storage=storage)
        for number in range(3):
            attrs = {"a": number, "b": 0} if number else {}
            study.add_trial(optuna.trial.create_trial(value=0.0, system_attrs=attrs))
        assert stored_trial_attr(study, study.get_trials(), "a") == {1: 1, 2: 2}
        assert stored_trial_attr(study, study.get_trials()[:2], "a") == {1: 1}


def test_a_storage_that_is_made_without_asking_has_all_that_optunas_own_has(sqlite_url):
    with Storage.parse(sqlite_url).opened(create=True) as made:
        own = of_optuna(sqlite_url)
        assert vars(made).keys() - {"curves"} == vars(own).keys(), changed("RDBStorage.__init__")
        assert vars(made._version_manager).keys() == vars(own._version_manager).keys(), changed("_VersionManager")
        assert made.get_head_version() == own.get_head_version() == head_version()


def test_a_trial_that_is_made_without_asking_has_all_that_optunas_own_has(study):
    study.enqueue_trial({"lr": 0.01})
    asked = study.ask()
    made = running_trial(study, record_of(asked), study.get_trials())
    assert vars(made).keys() == vars(asked).keys(), changed("Trial.__init__")
    assert made.suggest_float("lr", 1e-4, 1.0) == 0.01
    new = record_without_values(7, 3)
    assert (trial_id(new), new.number, new.state, new.params, new.user_attrs) == (7, 3, TrialState.RUNNING, {}, {})


def test_parameters_may_stay_in_memory(study):
    trial = study.ask()
    with params_in_memory(trial):
        value = trial.suggest_float("lr", 1e-4, 1.0)
    assert (record_of(trial).params, study.get_trials()[0].params) == ({"lr": value}, {})
    assert trial.suggest_float("lr", 1e-4, 1.0) == value


def test_a_cache_of_trials_can_be_emptied(study, sqlite):
    study.tell(study.ask(), 0.5)
    study.get_trials()
    assert [trial.number for trial in newest_finished(study)] == [0, 0], changed("_CachedStorage._studies")
    forget_trials(study)
    assert newest_finished(study) == [], changed("_CachedStorage")
    assert [trial.value for trial in study.get_trials()] == [0.5]


def test_a_trial_knows_its_id(study, sqlite):
    asked = study.ask()
    (frozen,) = study.get_trials()
    for trial, kind in ((asked, "Trial"), (frozen, "FrozenTrial")):
        assert hasattr(trial, "_trial_id"), changed(f"{kind}._trial_id")
        known = sqlite.get_trial_id_from_study_id_trial_number(study_id(study), trial.number)
        assert trial_id(trial) == known, changed(f"{kind}._trial_id")


def test_what_is_known_of_a_trial_that_was_asked_for_is_what_the_storage_holds(storage):
    study = our_study(storage, "faces")
    study.enqueue_trial({"lr": 0.01}, user_attrs={"preset": "baseline"})
    asked = study.ask()
    assert hasattr(asked, "_cached_frozen_trial"), changed("Trial._cached_frozen_trial")
    asked.set_user_attr("ordinal", 3)
    asked.suggest_float("lr", 1e-4, 1.0)
    known, held = record_of(asked), storage.get_trial(trial_id(asked))
    for name in ("number", "state", "params", "user_attrs", "system_attrs"):
        assert getattr(known, name) == getattr(held, name), changed("Trial._cached_frozen_trial")
    assert fixed_params(known) == {"lr": 0.01}


def test_many_attributes_of_a_trial_are_stored_at_once_as_optuna_stores_each(storage):
    study = our_study(storage, "faces")
    ours, theirs = study.ask(), study.ask()
    attrs = {"名": "值", "config": {"lr": 1e-7, "none": None}, "nan": [float("inf"), 0.1], "seed": 2**60}
    for change in (attrs, {"seed": 7, "late": True}):
        store_attrs(storage.engine, ours, change)
        for key, value in change.items():
            theirs.set_user_attr(key, value)
    assert ours.user_attrs == theirs.user_attrs == attrs | {"seed": 7, "late": True}
    first, second = study.get_trials()
    assert first.user_attrs == second.user_attrs == ours.user_attrs


def test_many_attributes_of_a_trial_that_ended_or_is_gone_are_refused_as_each_would_be(sqlite):
    study = our_study(sqlite, "faces")
    for store in (lambda trial: trial.set_user_attr("a", 1), lambda trial: store_attrs(sqlite.engine, trial, {"a": 1})):
        ended, gone = study.ask(), our_study(sqlite, "gone").ask()
        study.tell(ended, 0.5)
        with pytest.raises(UpdateFinishedTrialError, match=r"Trial#\d has already finished"):
            store(ended)
        optuna.delete_study(study_name="gone", storage=sqlite)
        with pytest.raises(KeyError, match=NO_RECORD):
            store(gone)
    assert all(trial.user_attrs == {} for trial in study.get_trials())


def test_a_queued_trial_holds_its_parameters(study):
    study.enqueue_trial({"lr": 1e-3})
    add_trial(study, "COMPLETE", [0.5])
    queued, other = study.get_trials()
    assert fixed_params(queued) == {"lr": 1e-3}, changed("the system attribute fixed_params")
    assert fixed_params(other) is None, changed("the system attribute fixed_params")


def test_samplers_read_the_trials_of_a_study_by_a_method_of_their_own(study):
    add_trial(study, "COMPLETE", [0.5])
    assert hasattr(study, "_get_trials"), changed("Study._get_trials")
    trials = trials_as_sampled_from(study)
    assert [trial.value for trial in trials] == [0.5], changed("Study._get_trials")


@pytest.mark.parametrize("sampler", [TPESampler(n_startup_trials=2), CmaEsSampler(n_startup_trials=2)])
def test_a_sampler_tells_how_long_its_startup_is(sampler):
    name = f"{type(sampler).__name__}._n_startup_trials"
    assert hasattr(sampler, "_n_startup_trials"), changed(name)
    assert startup_trials(sampler) == 2, changed(name)


def test_a_sampler_without_startup_has_none():
    assert startup_trials(RandomSampler()) == 0


class Noting(StudyView):
    """A view that notes by which names a sampler asks it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = set()

    def __getattribute__(self, name):
        if name in ("get_trials", "_get_trials"):
            self.asked.add(name)
        return super().__getattribute__(name)


def test_a_sampler_reads_trials_by_the_two_methods_of_a_view(study):
    """It would see the trials of the study itself if it read them by a third name."""
    for value in (0.4, 0.5, 0.6):
        add_trial(study, "COMPLETE", [value], params={"lr": value})
    view = Noting(study, lambda trials: [])
    space = {"lr": optuna.distributions.FloatDistribution(0.0, 1.0)}
    trial = study.get_trials()[0]
    TPESampler(n_startup_trials=1, seed=1).sample_relative(view, trial, space)
    sampled = TPESampler(n_startup_trials=1, seed=1).sample_independent(view, trial, "lr", space["lr"])
    unseen = TPESampler(n_startup_trials=1, seed=1).sample_independent(
        optuna.create_study(direction="maximize"), trial, "lr", space["lr"]
    )
    assert view.asked, changed("how samplers read a study")
    assert sampled == unseen, changed("how samplers read a study")


def test_a_view_hands_out_the_changed_trials(study):
    for state, value in (("COMPLETE", 0.5), ("FAIL", None)):
        add_trial(study, state, [value] if value else None)
    view = StudyView(study, lambda trials: list(reversed(trials)))
    assert [trial.number for trial in view.get_trials()] == [1, 0]
    assert [trial.number for trial in view.get_trials(states=(TrialState.COMPLETE,))] == [0]
    assert view.study_name == "faces"
    assert all(isinstance(trial, FrozenTrial) for trial in view.get_trials(deepcopy=False))


def test_a_deleted_study_is_missed_in_these_words(study, sqlite):
    optuna.delete_study(study_name="faces", storage=sqlite)
    with pytest.raises(KeyError) as error:
        _ = study.user_attrs
    assert error.value.args == (NO_RECORD,), changed("the text of the KeyError for what was deleted")


def test_tables_are_those_of_the_database(sqlite):
    held = set(inspect(sqlite.engine).get_table_names())
    assert {table.name for table in TABLES} == held - {"alembic_version"}, changed("the models of its tables")
    assert (STUDIES.name, TRIALS.name) == ("studies", "trials"), changed("the models of its tables")
    names = [table.name for table in TABLES]
    for table in TABLES:
        for key in table.foreign_keys:
            assert names.index(key.column.table.name) < names.index(table.name), changed("the order of its tables")


def test_importances_of_the_dashboard_are_forgotten():
    import_module("optuna_dashboard")
    name = "_importance.param_importance_cache"
    assert "optuna_dashboard._importance" in sys.modules, changed(name, "optuna-dashboard")
    module = sys.modules["optuna_dashboard._importance"]
    assert isinstance(getattr(module, "param_importance_cache", None), dict), changed(name, "optuna-dashboard")
    module.param_importance_cache["1:0"] = (1, [])
    forget_importances()
    assert not module.param_importance_cache, changed(name, "optuna-dashboard")


def test_a_study_whose_name_has_line_breaks_can_be_downloaded_and_an_error_is_raised(monkeypatch):
    name = "bottle._hval and Bottle.catchall"
    study = optuna.create_study(study_name="a\r\nX: y\0z")
    dashboard = optuna_dashboard.wsgi(storage_of(study))
    let_errors_out(dashboard)
    began = []

    def ask(path):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
        setup_testing_defaults(environ)
        return b"".join(dashboard(environ, lambda status, headers, *_: began.append((status, dict(headers)))))

    ask("/csv/0")
    ((status, headers),) = began
    assert (status, headers["Content-Disposition"]) == ("200 OK", "attachment; filename=a X-y z.csv"), changed(
        name, "optuna-dashboard"
    )
    monkeypatch.setattr(study._storage, "get_study_name_from_id", lambda study_id: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask("/csv/0")
