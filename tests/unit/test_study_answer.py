"""The answer on a study has the fields of optuna-dashboard's own, whatever the study holds."""

import json
import threading
import time
from types import SimpleNamespace
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from stored_study import add_many, add_trial, many_trials, our_study

from face3d_tune.dashboard import shown_study, study_answer
from face3d_tune.dashboard.gzip_pieces import Piece
from face3d_tune.dashboard.shown_study import ShownStudy
from face3d_tune.dashboard.study_additions import StudyAdditions
from face3d_tune.dashboard.study_answer import StudyAnswer
from face3d_tune.errors import StorageError

LR = FloatDistribution(1e-5, 1e-1, log=True)
UNIT = CategoricalDistribution(["degrees", "radians", None])
SPACE = {"lr": LR, "layers": IntDistribution(1, 8), "unit": UNIT}
CURVE = {1: 0.1, 2: float("nan"), 3: float("inf"), 10: float("-inf"), 4: 1e-300}


@pytest.fixture(params=["maximize", "minimize"])
def study(sqlite, request, tmp_path):
    """A study of another program with all that optuna-dashboard shows."""
    study = optuna.create_study(study_name="theirs", storage=sqlite, direction=request.param)
    study._storage.set_study_system_attr(study._study_id, "study:metric_names", ["accuracy"])
    study.set_user_attr("notes", {"a": ["b"] * 500})
    params = {"params": {"lr": 0.001, "layers": 3, "unit": None}, "distributions": SPACE}
    for value in (0.3, 0.9, 0.1):
        study.add_trial(
            create_trial(value=value, intermediate_values=CURVE, user_attrs={"n": value, "s": "t"}, **params)
        )
    study.add_trial(create_trial(value=float("inf"), state=TrialState.PRUNED, intermediate_values={3: 0.5}))
    wider = {"lr": FloatDistribution(1e-6, 1.0, log=True)}
    study.add_trial(create_trial(value=0.4, params={"lr": 0.5}, distributions=wider, user_attrs={"n": "no number"}))
    study.add_trial(
        create_trial(
            state=TrialState.FAIL,
            user_attrs={"error": "x" * 3000},
            params={"layers": 1},
            distributions={"layers": SPACE["layers"]},
        )
    )
    study.enqueue_trial({"lr": 0.01, "layers": 2})
    study.add_trial(create_trial(state=TrialState.WAITING))
    running = study.ask()
    running.suggest_float("lr", 1e-5, 1e-1, log=True)
    running.report(0.25, 1)
    optuna_dashboard.save_note(study, "# the study's")
    optuna_dashboard.save_note(running, "a running trial's " * 200)
    store = FileSystemArtifactStore(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    for owner in (study, running):
        upload_artifact(artifact_store=store, file_path=str(tmp_path / "a.txt"), study_or_trial=owner)
    study._storage.set_study_system_attr(study._study_id, "dashboard:note_ver", 3)
    first = study.get_trials()[0]._trial_id
    study._storage.set_study_system_attr(study._study_id, f"dashboard:{first}:note_ver", 2)
    study._storage.set_study_system_attr(study._study_id, f"dashboard:{first}:note_str:0", "a finished trial's")
    upload = {"artifact_id": "1-2", "filename": "b", "mimetype": "text/plain", "encoding": None}
    study._storage.set_study_system_attr(study._study_id, f"dashboard:artifacts:{first}:1-2", json.dumps(upload))
    return study


def of_upstream(storage, study_id, after=0):
    """optuna-dashboard's own answer."""
    found = []
    app = optuna_dashboard.wsgi(optuna.storages.get_storage(storage))
    environ = {"PATH_INFO": f"/api/studies/{study_id}", "QUERY_STRING": f"after={after}"}
    setup_testing_defaults(environ)
    body = b"".join(app(environ, lambda status, *_: found.append(status)))
    assert found == ["200 OK"], body
    return comparable(json.loads(body))


def comparable(answer):
    """The answer with NaN as text, and choices and columns in an order of their own: optuna-dashboard has none."""
    for space in (answer["intersection_search_space"], answer["union_search_space"]):
        for row in space:
            if "choices" in row["distribution"]:
                row["distribution"]["choices"].sort(key=str)
    return json.loads(json.dumps(answer).replace("NaN", '"NaN"'))


def text_of(pieces):
    return json.loads(b"".join(piece.text() for piece in pieces))


def of_ours(storage, study_id, after=0, additions=None):
    cached = optuna.storages.get_storage(storage)
    return comparable(text_of(StudyAnswer(cached, study_id).pieces(after, additions or StudyAdditions())))


@pytest.mark.parametrize("size", [100, 2])
def test_every_field_is_optuna_dashboards_own(study, sqlite, monkeypatch, size):
    monkeypatch.setattr(study_answer, "_SIZE", size)
    theirs = of_upstream(sqlite, study._study_id)
    assert {trial["state"] for trial in theirs["trials"]} == {"Complete", "Pruned", "Fail", "Waiting", "Running"}
    assert theirs["best_trials"][0]["values"] == [0.9 if study.direction.name == "MAXIMIZE" else 0.1]
    assert [trial["number"] for trial in theirs["trials"] if trial["note"]["body"]] == [0, 6]
    assert [trial["number"] for trial in theirs["trials"] if trial["artifacts"]] == [0, 6]
    assert of_ours(sqlite, study._study_id) == theirs


@pytest.mark.parametrize("size", [100, 2])
def test_later_trials_are_those_that_optuna_dashboard_answers(study, sqlite, monkeypatch, size):
    monkeypatch.setattr(study_answer, "_SIZE", size)
    for after in (1, 2, 5, 7, 8, 1000):
        assert of_ours(sqlite, study._study_id, after) == of_upstream(sqlite, study._study_id, after)


def test_a_study_without_trials_is_answered_as_optuna_dashboard_does(sqlite):
    study = optuna.create_study(storage=sqlite)
    assert of_ours(sqlite, study._study_id) == of_upstream(sqlite, study._study_id)


def test_a_study_of_several_objectives_or_of_preferences_is_left_to_optuna_dashboard(sqlite):
    several = optuna.create_study(storage=sqlite, directions=["minimize", "maximize"])
    preferred = optuna.create_study(storage=sqlite)
    preferred._storage.set_study_system_attr(preferred._study_id, "preference:is_preferential", True)
    for study in (several, preferred):
        assert StudyAnswer(optuna.storages.get_storage(sqlite), study._study_id).pieces(0, StudyAdditions()) is None


# What was made once


@pytest.fixture
def hundreds(sqlite):
    """250 finished trials and a running one."""
    study = our_study(sqlite, "faces")
    add_many(study, sqlite, many_trials(250))
    add_trial(study, "RUNNING", [0.3], history=False)
    return study


@pytest.fixture
def made(monkeypatch):
    """The sizes of the pieces of trials that were compressed, as they are."""
    sizes = []
    whole = Piece.of.__func__

    def of(cls, text):
        sizes.append(text.count(b'"trial_id":'))
        return whole(cls, text)

    monkeypatch.setattr(Piece, "of", classmethod(of))
    return sizes


def made_now(made, ask):
    made.clear()
    ask()
    return [size for size in made if size > 1]


def test_finished_trials_are_made_into_json_once(hundreds, sqlite, made):
    answer = StudyAnswer(optuna.storages.get_storage(sqlite), hundreds._study_id)
    assert made_now(made, lambda: answer.pieces(0, StudyAdditions())) == [100, 100, 51]
    assert made_now(made, lambda: answer.pieces(0, StudyAdditions())) == [51]
    assert made_now(made, lambda: answer.pieces(250, StudyAdditions())) == [51]


def test_only_trials_whose_additions_changed_are_made_again(hundreds, sqlite, made):
    answer = StudyAnswer(optuna.storages.get_storage(sqlite), hundreds._study_id)
    before = StudyAdditions(note="n", trial_notes={7: "best"})
    answer.pieces(0, before)
    after = StudyAdditions(note="n", trial_notes={107: "best"})
    assert made_now(made, lambda: answer.pieces(0, before)) == [51]
    found = []
    assert made_now(made, lambda: found.extend(answer.pieces(0, after))) == [100, 100, 51]
    assert [trial["number"] for trial in text_of(found)["trials"] if trial["note"]["body"]] == [107]
    noted = StudyAdditions(note="n", trial_notes={107: "best"}, excluded={150: "by a person"})
    assert made_now(made, lambda: found.extend(answer.pieces(0, noted))) == [100, 51]


def test_a_note_that_a_person_writes_on_a_finished_trial_is_shown(hundreds, sqlite):
    cached = optuna.storages.get_storage(sqlite)
    answer = StudyAnswer(cached, hundreds._study_id)
    answer.pieces(0, StudyAdditions())
    trial = hundreds.get_trials(deepcopy=False)[42]
    for key, value in (("note_ver", 1), ("note_str:0", "look")):
        sqlite.set_study_system_attr(hundreds._study_id, f"dashboard:{trial._trial_id}:{key}", value)
    shown = text_of(answer.pieces(0, StudyAdditions()))["trials"][42]["note"]
    assert shown == {"version": 1, "body": "look"}


def test_a_trial_that_ends_and_one_that_comes_are_shown(hundreds, sqlite):
    answer = StudyAnswer(optuna.storages.get_storage(sqlite), hundreds._study_id)
    assert text_of(answer.pieces(250, StudyAdditions()))["trials"][0]["state"] == "Running"
    hundreds.tell(250, 0.99)
    hundreds.ask()
    later = text_of(answer.pieces(250, StudyAdditions()))
    assert [trial["state"] for trial in later["trials"]] == ["Complete", "Running"]
    assert later["best_trials"][0]["number"] == 250
    hundreds.set_user_attr("new", 7)
    assert {"key": "new", "value": "7"} in text_of(answer.pieces(0, StudyAdditions()))["user_attrs"]


def test_columns_of_all_trials_are_named_when_later_ones_alone_are_asked_for(hundreds, sqlite):
    cached = optuna.storages.get_storage(sqlite)
    whole, later = (
        text_of(StudyAnswer(cached, hundreds._study_id).pieces(after, StudyAdditions(note="n"))) for after in (0, 250)
    )
    assert whole["union_user_attrs"] == later["union_user_attrs"]
    assert "cosine |yaw| 0-15°" in {column["key"] for column in later["union_user_attrs"]}


# Additions that take long


@pytest.fixture
def slow(sqlite, monkeypatch):
    """A study whose additions are stale at once, and worked out when the test lets them."""
    monkeypatch.setattr(shown_study, "FRESH", 0.0)
    monkeypatch.setattr(shown_study, "SLOW", 0.0)
    monkeypatch.setattr(shown_study, "_SHARE", 0.0)
    study, go_on, begun = our_study(sqlite, "faces"), threading.Semaphore(1), []

    def work_out(study_id):
        begun.append(StudyAdditions(note=f"version {len(begun) + 1}"))
        assert go_on.acquire(timeout=60)
        return begun[-1]

    shown = ShownStudy(optuna.storages.get_storage(sqlite), study._study_id, work_out)
    return SimpleNamespace(shown=shown, go_on=go_on, begun=begun)


def note_once(slow, note):
    """Whether the additions have this note, now or soon."""
    until = time.monotonic() + 60
    while slow.shown.additions().note != note and time.monotonic() < until:
        time.sleep(0.001)
    return slow.shown.additions().note == note


def test_a_visitor_gets_those_of_before_while_new_ones_are_worked_out_once(slow):
    assert [slow.shown.additions().note for _ in range(5)] == ["version 1"] * 5
    slow.go_on.release()
    assert note_once(slow, "version 2")
    slow.go_on.release(10)


def test_after_a_change_a_visitor_waits_for_those_of_the_changed_study(slow):
    slow.shown.additions()
    slow.shown.forget()
    slow.go_on.release(10)
    assert slow.shown.additions().note == "version 2"


def test_additions_worked_out_while_the_study_was_changed_are_not_kept(slow):
    slow.shown._work_out, whole = lambda study_id: (slow.shown.forget(), whole(study_id))[1], slow.shown._work_out
    slow.go_on.release(10)
    assert slow.shown.additions().note == "version 1"
    slow.shown._work_out = whole
    assert slow.shown.additions().note == "version 2"


def test_additions_overtaken_by_a_change_while_they_were_worked_out_behind_a_visitor_are_not_kept(slow):
    slow.shown.additions()
    before = {*threading.enumerate()}
    slow.shown.additions()
    (behind,) = {*threading.enumerate()} - before
    slow.shown.forget()
    slow.go_on.release()
    behind.join(60)
    slow.go_on.release(10)
    assert slow.shown.additions().note == "version 3"


def test_a_storage_that_does_not_answer_behind_a_visitor_is_asked_again_later(slow):
    slow.shown.additions()
    failed, whole = threading.Event(), slow.shown._work_out

    def away(study_id):
        failed.set()
        raise StorageError("the storage does not answer")

    slow.shown._work_out = away
    assert slow.shown.additions().note == "version 1"
    assert failed.wait(60)
    slow.shown._work_out = whole
    slow.go_on.release(10)
    assert note_once(slow, "version 2")


# Many visitors


def test_visitors_who_wait_for_one_answer_share_the_next(hundreds, sqlite, monkeypatch):
    begun, go_on, answers = [], threading.Event(), []
    whole = StudyAnswer.pieces

    def pieces(answer, after, additions):
        begun.append(after)
        assert go_on.wait(60)
        return whole(answer, after, additions)

    monkeypatch.setattr(StudyAnswer, "pieces", pieces)
    shown = ShownStudy(optuna.storages.get_storage(sqlite), hundreds._study_id, lambda study_id: StudyAdditions())

    def visit(after):
        answers.append(len(text_of(shown.pieces(after))["trials"]))

    visitors = [threading.Thread(target=visit, args=(200,)) for _ in range(10)]
    for visitor in visitors:
        visitor.start()
    until = time.monotonic() + 60
    while not begun and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)  # for the others to come
    go_on.set()
    for visitor in visitors:
        visitor.join()
    assert answers == [51] * 10
    assert len(begun) <= 3  # the first, and the next for all who came meanwhile
    visit(0)
    assert (answers[-1], begun[-1]) == (251, 0)
