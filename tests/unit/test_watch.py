"""A search that is watched while its study is deleted, begun again, or lies in another file."""

import sys
from types import SimpleNamespace
from uuid import uuid4

import optuna
import pytest
from command_line import call
from stored_study import add_trial, our_study, recognised

from face3d_tune.storage.database import Storage

module = sys.modules["face3d_tune.cli.watch"]  # in the package the command has its name


@pytest.fixture
def watched(sqlite, tmp_path, monkeypatch):
    """Watches `faces`, and does one step at a time where it would sleep; its answer."""

    def watch(*steps):
        left = iter(steps)
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: next(left)()))
        answer = call("watch", cwd=tmp_path, FACE3D_TUNE_STORAGE="sqlite:///studies.db")
        assert next(left, None) is None, "it ended before the last step"
        return answer

    return watch


def search(storage, *cosines, trials=3):
    """A study of ours, some of whose trials have ended."""
    study = our_study(storage, "faces", id=uuid4().hex, effort={"trials": trials})
    for cosine in cosines:
        add_trial(study, "COMPLETE", [cosine])
    return study


def begin_again(storage, *cosines):
    optuna.delete_study(study_name="faces", storage=storage)
    search(storage, *cosines)


def test_a_study_that_was_deleted_and_begun_again_is_watched_from_its_first_trial(sqlite, watched):
    search(sqlite, 0.9, 0.8)
    answer = watched(lambda: begin_again(sqlite, 0.3), lambda: begin_again(sqlite, 0.1, 0.2, 0.15))
    said, again, *_, last = answer.out.splitlines()
    assert said == again == "study 'faces' was replaced by another of that name, which is watched from here on"
    assert last.startswith("study 'faces': 3 of 3 trials finished, 0 of them pruned; best cosine 0.2000, trial 1")
    assert (answer.code, answer.err) == (0, "")


def test_a_study_that_is_gone_is_said_once_and_waited_for(sqlite, watched):
    search(sqlite, 0.9)
    answer = watched(
        lambda: optuna.delete_study(study_name="faces", storage=sqlite),
        lambda: our_study(sqlite, "another"),
        lambda: search(sqlite, 0.1, 0.2, 0.3),
    )
    gone, replaced, last = answer.out.splitlines()
    assert gone == "study 'faces' is gone (deleted or renamed); waiting for a study of that name"
    assert "was replaced" in replaced
    assert "3 of 3 trials finished" in last


def test_a_file_that_is_gone_is_said_once_waited_for_and_not_made_anew(watched, sqlite, tmp_path):
    place = tmp_path / "studies.db"
    search(sqlite, 0.9)

    def nothing_there():
        assert not place.exists()

    def another_file():
        nothing_there()
        with Storage.parse(f"sqlite:///{place.as_posix()}").opened(create=True) as opened:
            search(opened, 0.1, 0.2, 0.3)

    answer = watched(place.unlink, nothing_there, another_file)
    gone, replaced, last = answer.out.splitlines()
    assert gone == "storage sqlite:///studies.db: file does not exist"
    assert "was replaced" in replaced
    assert "3 of 3 trials finished" in last
    assert "best cosine 0.3000, trial 2" in last


def test_a_search_that_only_goes_on_is_not_taken_for_another(sqlite, watched):
    study = search(sqlite)
    answer = watched(
        lambda: add_trial(study, "COMPLETE", [0.1]),
        lambda: study.set_user_attr("effort", {"trials": 2}),
        lambda: add_trial(study, "COMPLETE", [0.2]),
    )
    assert "was replaced" not in answer.out
    assert "2 of 2 trials finished" in answer.out


def test_it_ends_with_whom_the_best_recognises_no_better_than(sqlite, watched):
    recognised(storage=sqlite, effort={"trials": 3})
    said, last = watched().out.splitlines()
    assert said.startswith("The best trial raises the cosine, but recognises people no better than no model, ridge or")
    assert "best cosine 0.7000, trial 12" in last


def test_a_target_of_several_epochs_in_a_row_is_seen_although_finished_trials_are_read_without_epochs(sqlite, watched):
    effort = {"trials": 100, "target": 0.8, "target_epochs": 3}
    study = our_study(sqlite, "faces", effort=effort)
    add_trial(study, "COMPLETE", [0.9, 0.5, 0.5])  # one lucky epoch
    answer = watched(lambda: None, lambda: add_trial(study, "COMPLETE", [0.8, 0.9, 0.8]))
    assert answer.out.splitlines()[-1].startswith("study 'faces': 2 of 100 trials finished")
    assert answer.code == 0
