"""A storage that is read for days: what its cache may keep, and when another study has the place of one in it."""

import shutil
import sqlite3
from contextlib import ExitStack, closing
from uuid import uuid4

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event
from stored_study import add_trial, our_study

from face3d_tune.errors import StorageError
from face3d_tune.storage.database import Storage
from face3d_tune.study.storage_cache import StorageCache


@pytest.fixture
def fresh(sqlite):
    return StorageCache(sqlite, lambda cached: cached)


def values(look, study):
    return [trial.value for trial in look.storage.get_all_trials(study._study_id, deepcopy=False)]


def ours(storage, *cosines, own=None, name="faces"):
    study = our_study(storage, name, id=own or uuid4().hex)
    for cosine in cosines:
        add_trial(study, "COMPLETE", [cosine])
    return study


def theirs(storage, *values, name="theirs", direction="maximize"):
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    for value in values:
        trial = study.ask()
        study.tell(trial, value)
    return study


def delete(storage, study):
    optuna.delete_study(study_name=study.study_name, storage=storage)


def test_while_trials_come_and_end_the_cache_stays(fresh, sqlite):
    first = fresh.look()
    study = ours(sqlite)
    before = fresh.look()
    study.enqueue_trial({"lr": 1e-3})
    fresh.look()
    trial = study.ask()
    fresh.look()
    trial.report(0.5, 1)
    study.tell(trial, 0.6)
    add_trial(study, "COMPLETE", [0.7])
    study.set_user_attr("effort", {"trials": 60})
    theirs(sqlite, 1.0)
    look = fresh.look()
    assert first.storage is before.storage is look.storage
    assert look.keys[study._study_id] == before.keys[study._study_id]
    assert values(look, study) == [0.6, 0.7]


@pytest.mark.parametrize("later", [(), (0.3,), (0.3, 0.2), (0.3, 0.2, 0.1)])
@pytest.mark.parametrize("make", [ours, theirs])
def test_a_study_that_got_the_id_of_a_deleted_one_has_trials_of_its_own_only(fresh, sqlite, make, later):
    old = make(sqlite, 0.5, 0.6)
    seen = fresh.look()
    assert values(seen, old) == [0.5, 0.6]
    delete(sqlite, old)
    new = make(sqlite, *later)
    assert new._study_id == old._study_id  # as SQLite does it
    look = fresh.look()
    assert values(look, new) == list(later)
    assert look.keys[new._study_id] != seen.keys[old._study_id]


def test_the_own_id_of_a_study_is_enough_even_where_all_else_is_the_same(fresh, sqlite):
    old = ours(sqlite, 0.5)  # the stored start of trial 0 is the same in both
    seen = fresh.look()
    assert values(seen, old) == [0.5]
    delete(sqlite, old)
    new = ours(sqlite, 0.4, own="fedcba9876543210")
    assert values(fresh.look(), new) == [0.4]


@pytest.mark.parametrize("how", [{"direction": "minimize"}, {"name": "another"}])
def test_name_and_direction_of_a_study_without_trials_are_not_those_of_a_deleted_one(fresh, sqlite, how):
    old = theirs(sqlite)
    seen = fresh.look().storage
    assert seen.get_study_name_from_id(old._study_id) == "theirs"
    assert seen.get_study_directions(old._study_id) == old.directions
    delete(sqlite, old)
    new = theirs(sqlite, **how)
    now = fresh.look().storage
    assert now.get_study_name_from_id(new._study_id) == new.study_name
    assert now.get_study_directions(new._study_id) == new.directions


def test_a_deleted_study_is_gone_and_the_others_keep_their_keys(fresh, sqlite):
    kept, old = ours(sqlite, 0.5), theirs(sqlite, 1.0)
    seen = fresh.look()
    delete(sqlite, old)
    look = fresh.look()
    assert look.keys == {kept._study_id: seen.keys[kept._study_id]}
    assert values(look, kept) == [0.5]


@pytest.fixture
def in_file():
    """Opens the storage in a file."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(Storage.parse(f"sqlite:///{path.as_posix()}").opened(create=True))


def test_another_file_in_the_place_of_the_one_that_was_read_is_read_anew(in_file, tmp_path):
    place, other = tmp_path / "studies.db", tmp_path / "other.db"
    study = ours(in_file(place), 0.5)
    fresh = StorageCache(in_file(place), lambda cached: cached)
    assert values(fresh.look(), study) == [0.5]
    shutil.copy(place, other)
    add_trial(optuna.load_study(study_name="faces", storage=in_file(other)), "COMPLETE", [0.9])
    other.replace(place)
    assert values(fresh.look(), study) == [0.5, 0.9]


def test_a_backup_that_was_restored_into_the_file_and_went_on_is_read_anew(in_file, tmp_path):
    place, backup = tmp_path / "studies.db", tmp_path / "backup.db"
    study = theirs(in_file(place), 0.5)
    shutil.copy(place, backup)
    for value in (0.6, 0.7):
        study.tell(study.ask(), value)
    fresh = StorageCache(in_file(place), lambda cached: cached)
    assert values(fresh.look(), study) == [0.5, 0.6, 0.7]
    place.write_bytes(backup.read_bytes())  # device, inode, names and the first trial are what they were
    restored = optuna.load_study(study_name="theirs", storage=in_file(place))
    for value in (0.1, 0.2, 0.3):
        restored.tell(restored.ask(), value)
    assert values(fresh.look(), restored) == [0.5, 0.1, 0.2, 0.3]


def test_a_copy_that_went_on_elsewhere_is_read_anew_though_ids_names_and_starts_are_the_same(in_file, tmp_path):
    place, other = tmp_path / "studies.db", tmp_path / "other.db"
    study = theirs(in_file(place))
    asked = [study.ask() for _ in range(3)]  # all three run when the copy is made
    shutil.copy(place, other)
    for trial, value in zip(asked, (0.5, 0.6, 0.7), strict=True):
        study.tell(trial, value)
    elsewhere = optuna.load_study(study_name="theirs", storage=in_file(other))
    for trial, value in zip(asked, (0.6, 0.5, 0.7), strict=True):  # with the same sum
        elsewhere.tell(trial.number, value)
    fresh = StorageCache(in_file(place), lambda cached: cached)
    seen = fresh.look()
    assert values(seen, study) == [0.5, 0.6, 0.7]
    place.write_bytes(other.read_bytes())
    look = fresh.look()
    assert values(look, study) == [0.6, 0.5, 0.7]
    assert look.keys[study._study_id] != seen.keys[study._study_id]
    elsewhere = optuna.load_study(study_name="theirs", storage=in_file(place))
    elsewhere.tell(elsewhere.ask(), 0.8)
    assert fresh.look().storage is look.storage


CHANGES = {
    "parameters": "update trial_params set param_value = 0.02 where trial_id = {0} and param_name = 'lr'",
    "attributes": "update trial_user_attributes set value_json = '8' where trial_id = {0} and key = 'seed'",
    "curves": "update trial_intermediate_values set intermediate_value = 0.1 where trial_id = {0}",
    "one epoch more": "insert into trial_intermediate_values values (9999, {0}, 21, 0.1, 'FINITE')",
    "states": "update trials set state = 'PRUNED' where trial_id = {0}",
    "ends": "update trials set datetime_complete = '2026-01-01 00:00:59.000000' where trial_id = {0}",
}


def replaced(in_file, tmp_path, trials, change):
    """Return the looks at a file before and after another content took its place: the same but for one change."""
    place, other = tmp_path / "studies.db", tmp_path / "other.db"
    study = ours(in_file(place))
    for state, value in trials:
        add_trial(study, state, value)
    shutil.copy(place, other)
    with closing(sqlite3.connect(other)) as database, database:
        assert database.execute(change).rowcount == 1
    fresh = StorageCache(in_file(place), lambda cached: cached)
    seen = fresh.look()
    place.write_bytes(other.read_bytes())  # the inode stays
    return seen, fresh.look()


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_with_the_same_values_is_read_anew_if_anything_else_of_a_new_trial_differs(in_file, tmp_path, what):
    trials = [("COMPLETE", [0.5]), ("COMPLETE", [0.6]), ("FAIL", None), ("RUNNING", None)]
    seen, look = replaced(in_file, tmp_path, trials, CHANGES[what].format(2))
    assert look.storage is not seen.storage
    assert look.keys.keys() == seen.keys.keys()
    assert look.keys != seen.keys


@pytest.mark.parametrize("what", ["states", "ends"])
def test_state_and_end_of_a_failed_trial_are_compared_however_old_it_is(in_file, tmp_path, what):
    trials = [("FAIL", None)] + 30 * [("COMPLETE", [0.5])]
    seen, look = replaced(in_file, tmp_path, trials, CHANGES[what].format(1))
    assert look.storage is not seen.storage


def test_what_changes_in_a_search_that_goes_on_is_no_other_file(in_file, tmp_path):
    study = theirs(in_file(tmp_path / "studies.db"))
    running = study.ask()
    study.enqueue_trial({"lr": 1e-3})
    fresh = StorageCache(in_file(tmp_path / "studies.db"), lambda cached: cached)
    seen = fresh.look()
    for step in range(30):
        running.report(0.01 * step, step)
        running.set_user_attr("epochs_run", step)
        trial = study.ask()
        trial.suggest_float("lr", 0, 1)
        trial.report(0.5, 1)
        fresh.look()
        study.tell(trial, **({"state": TrialState.FAIL} if step % 3 else {"values": 0.5}))
        assert fresh.look().storage is seen.storage
    study.tell(running, 0.4)  # the oldest of all
    look = fresh.look()
    assert (look.storage, look.keys) == (seen.storage, seen.keys)


def test_a_file_that_was_deleted_is_an_error_and_not_a_new_empty_file(in_file, tmp_path):
    place = tmp_path / "studies.db"
    ours(in_file(place), 0.5)
    fresh = StorageCache(in_file(place), lambda cached: cached)
    fresh.look()
    place.unlink()
    with pytest.raises(StorageError, match=r"studies\.db: file does not exist"):
        fresh.look()
    assert not place.exists()
    again = ours(in_file(place), 0.1)
    assert values(fresh.look(), again) == [0.1]


def test_a_look_asks_the_same_few_questions_of_many_trials_as_of_few(fresh, sqlite):
    study = ours(sqlite, 0.5)
    fresh.look()
    asked = []
    event.listen(sqlite.engine, "before_cursor_execute", lambda *about: asked.append(about[2]))
    fresh.look()
    of_few = list(asked)
    study.add_trials([study.trials[0]] * 50)
    fresh.look()
    asked.clear()
    fresh.look()
    assert asked == of_few
    assert len(asked) <= 6


@pytest.fixture
def postgres(postgres_url):
    with Storage.parse(postgres_url).opened(create=True) as opened:
        yield opened


def test_a_replaced_study_is_noticed_on_postgresql_too(postgres):
    study = theirs(postgres, 0.5, 0.6)
    fresh = StorageCache(postgres, lambda cached: cached)
    seen = fresh.look()
    assert values(seen, study) == [0.5, 0.6]
    study.tell(study.ask(), 0.7)
    assert fresh.look().storage is seen.storage
    delete(postgres, study)
    again = theirs(postgres, 0.1)
    look = fresh.look()
    assert values(look, again) == [0.1]
    assert study._study_id not in look.keys
