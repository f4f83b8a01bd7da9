"""Evaluations on the test people are counted for the data, whichever study of a storage they are stored with."""

import optuna
from stored_study import confirmation_of, our_study

from face3d_tune.refit import evaluations

DATA, OTHERS = "0011223344556677", "f" * 16  # the first is that of `our_study`


def look(day, command="face3d-tune judge best_model.pth --part test"):
    return {"time": f"2026-01-0{day}T00:00:00+00:00", "command": command, "compared": ["best_model.pth"]}


def test_an_evaluation_is_stored_with_every_study_on_the_data_and_counted_once(sqlite):
    for name in ("one", "two"):
        our_study(sqlite, name)
    our_study(sqlite, "elsewhere", data_fingerprint=OTHERS)
    assert evaluations.record(sqlite, DATA, look(2)) == [look(2)]
    optuna.delete_study(study_name="one", storage=sqlite)
    assert evaluations.recorded(sqlite, DATA) == [look(2)]  # it outlives either study
    assert evaluations.recorded(sqlite, OTHERS) == []


def test_evaluations_of_confirm_and_of_other_commands_are_one_list_by_time(sqlite):
    our_study(
        sqlite, "confirmed", confirmation={**confirmation_of(), "looks": [look(1, "confirm"), look(3, "confirm")]}
    )
    assert evaluations.record(sqlite, DATA, look(4)) == [look(1, "confirm"), look(3, "confirm"), look(4)]
    assert evaluations.record(sqlite, DATA, look(2)) == [look(1, "confirm"), look(2), look(3, "confirm"), look(4)]


def test_two_commands_that_end_at_once_lose_neither(sqlite):
    study = our_study(sqlite, "one")
    evaluations.record(sqlite, DATA, look(1))
    stale = dict(study.user_attrs)
    evaluations.record(sqlite, DATA, look(2))
    for key, value in stale.items():  # what a command writes that has read before the other wrote
        study.set_user_attr(key, value)
    assert evaluations.recorded(sqlite, DATA) == [look(1), look(2)]


def test_without_a_study_on_the_data_nothing_is_recorded(sqlite):
    our_study(sqlite, "elsewhere", data_fingerprint=OTHERS)
    assert evaluations.record(sqlite, DATA, look(1)) is None
    assert evaluations.recorded(sqlite, OTHERS) == []
