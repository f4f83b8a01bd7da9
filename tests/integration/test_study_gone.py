"""A study that is deleted or renamed while something works on it: one line, and nothing done to any other study."""

import json
import shlex
from contextlib import ExitStack
from types import SimpleNamespace

import bottle
import optuna
import optuna_dashboard
import pytest
import sqlalchemy
from command_line import call
from optuna.trial import TrialState
from searches import SAMPLED_ONLY, Scripted, Watch, file_of, search_in

from face3d_tune.errors import StudyGoneError
from face3d_tune.search.pruning import TrialReporter
from face3d_tune.search.retention import Retention
from face3d_tune.search.search import Search
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.storage.database import Storage

MOMENTS = {
    "before ask": (TrialQueue, "ask"),
    "before the claim": (TrialQueue, "_take"),
    "before sampling": (Search, "_begin"),
    "before a report": (TrialReporter, "deliver"),
    "before the pruner is asked": (TrialReporter, "_ask_pruner"),
    "before tell": (TrialQueue, "tell"),
    "in the middle of tell": (TrialQueue, "_tell"),
    "before its weights are kept": (Retention, "take"),
}
STUDY = SAMPLED_ONLY.replace('"tpe"', '"random"').replace("n_startup_trials = 2", "")


def place_on(request, kind):
    """A storage of this kind, opened for the search and once more for another program."""
    url = request.getfixturevalue({"sqlite": "sqlite_url", "postgres": "postgres_tables_url"}[kind])
    opened, theirs = (request.getfixturevalue("opens")(url) for _ in range(2))
    return SimpleNamespace(url=url, storage=opened, theirs=theirs)


@pytest.fixture
def opens():
    """Opens storages until the test ends."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(Storage.parse(url).opened(create=True))


def delete(url, name="quick"):
    """As another program does it."""
    with Storage.parse(url).opened() as opened:
        optuna.delete_study(study_name=name, storage=opened)


def at_first(monkeypatch, moment, act):
    owner, name = MOMENTS[moment]
    original, done = getattr(owner, name), []

    def wrapped(*arguments, **named):
        if not done:
            done.append(act())
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, wrapped)


def two_epochs(task, number):
    return 0.1, "finished" if number == 2 else None


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_study_deleted_at_any_moment_ends_its_search_with_one_line(
    request, tmp_path, data, monkeypatch, kind, moment
):
    place = place_on(request, kind)
    search = search_in(place.storage, file_of(tmp_path, STUDY), data)
    optuna.create_study(study_name="another", storage=place.storage)
    # By a connection that is there already: opening one would wait for the lock that this very search may hold.
    at_first(monkeypatch, moment, lambda: optuna.delete_study(study_name="quick", storage=place.theirs))
    slots = Scripted(2, two_epochs)
    with pytest.raises(
        StudyGoneError, match=r"^study 'quick' was deleted meanwhile; this storage holds another$"
    ) as raised:
        search.run(5, Watch(), slots=slots)
    assert raised.value.exit_code == 2
    assert "checkpoints are kept" in raised.value.hint
    assert slots.saves is True


def test_a_study_that_takes_the_number_of_a_deleted_one_is_left_alone(sqlite, tmp_path, data):
    """SQLite gives the numbers of studies and trials again."""
    search, watch, strangers = search_in(sqlite, file_of(tmp_path, STUDY), data), Watch(), []

    def replace(number, result):
        if not strangers:
            optuna.delete_study(study_name="quick", storage=sqlite)
            strangers.append(optuna.create_study(study_name="stranger", storage=sqlite))
            trials = [strangers[0].ask() for _ in range(3)]
            assert (strangers[0]._study_id, trials[0]._trial_id) == (search.study._study_id, 1)
            with pytest.raises(StudyGoneError):
                search.queue.requeue_orphans()  # as the thread does that gives signs of life

    watch.epoch_ended = replace
    with pytest.raises(StudyGoneError, match=r"^study 'quick' was deleted meanwhile; this storage holds stranger$"):
        search.run(5, watch, slots=Scripted(2, two_epochs))
    left = [(trial.state, trial.user_attrs, trial.intermediate_values) for trial in strangers[0].trials]
    assert left == [(TrialState.RUNNING, {}, {})] * 3


def test_a_study_deleted_in_the_last_epoch_of_a_trial_does_not_leave_the_search_waiting(sqlite, tmp_path, data):
    """Scripted slots fail where nothing trains any more and something waits for it."""
    search, watch = search_in(sqlite, file_of(tmp_path, STUDY), data), Watch()

    def play(task, number):
        if number == 2:
            optuna.delete_study(study_name="quick", storage=sqlite)
        return two_epochs(task, number)

    with pytest.raises(StudyGoneError, match=r"this storage holds no study$"):
        search.run(5, watch, slots=Scripted(1, play))


def test_a_search_interrupted_after_its_study_was_deleted_says_so(sqlite, tmp_path, data):
    search, watch = search_in(sqlite, file_of(tmp_path, STUDY), data), Watch()

    def interrupt(number, result):
        optuna.delete_study(study_name="quick", storage=sqlite)
        raise KeyboardInterrupt

    watch.epoch_ended = interrupt
    with pytest.raises(StudyGoneError):
        search.run(5, watch, slots=Scripted(1, two_epochs))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_new_name_given_in_the_database_changes_nothing(request, tmp_path, data, kind):
    place, watch = place_on(request, kind), Watch()
    search = search_in(place.storage, file_of(tmp_path, STUDY), data)

    def rename(number, result):
        with place.storage.engine.begin() as database:
            database.execute(sqlalchemy.text("update studies set study_name = 'better'"))

    watch.epoch_ended = rename
    search.run(2, watch, slots=Scripted(1, two_epochs))
    assert [trial.state for trial in optuna.load_study(study_name="better", storage=place.theirs).trials] == [
        TrialState.COMPLETE
    ] * 2


def rename_in_the_dashboard(storage, name):
    """Ask its server, as the page does."""
    app = optuna_dashboard.wsgi(storage)
    study_id = storage.get_study_id_from_name("quick")
    body = json.dumps({"study_name": name}).encode()
    request = {"REQUEST_METHOD": "POST", "PATH_INFO": f"/api/studies/{study_id}/rename", "SERVER_PROTOCOL": "HTTP/1.1"}
    request |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "HTTP_ACCEPT_ENCODING": ""}
    request |= {"wsgi.input": bottle.BytesIO(body), "wsgi.errors": None, "wsgi.url_scheme": "http", "SERVER_NAME": "x"}
    said = []
    b"".join(app(request, lambda status, headers, error=None: said.append(status)))
    assert said == ["201 Created"]


def test_a_study_renamed_in_the_dashboard_is_named_and_goes_on_under_its_new_name(sqlite, tmp_path, data):
    """The dashboard copies it, with its own id, and deletes the old one."""
    file, watch = file_of(tmp_path, STUDY), Watch()
    search, renamed = search_in(sqlite, file, data), []

    def rename(number, result):
        if number == 1 and not renamed:
            renamed.append(rename_in_the_dashboard(sqlite, "a better name"))

    watch.epoch_ended = rename
    with pytest.raises(StudyGoneError, match=r"^study 'quick' was renamed to 'a better name' meanwhile$") as raised:
        search.run(3, watch, slots=Scripted(1, two_epochs))
    assert shlex.split(raised.value.hint.partition(": ")[2]) == ["--study-name", "a better name"]
    again = search_in(sqlite, file, data, name="a better name")
    again.run(3, Watch(), slots=Scripted(1, two_epochs))
    assert again.finished() == 3
    assert [trial.state.name for trial in again.study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


STUDY_IN_SECONDS = STUDY + "\n[study]\npresets = []\n"


def test_the_command_line_says_it_in_one_line(tmp_path, data_folder, monkeypatch):
    (tmp_path / "quick.toml").write_text(STUDY_IN_SECONDS, encoding="utf-8")
    at_first(monkeypatch, "before a report", lambda: delete(f"sqlite:///{tmp_path / 'face3d_tune.db'}"))
    words = ("run", "--study", "quick.toml", "--data-dir", data_folder, "--device", "cpu", "--epochs", 3)
    answer = call(*words, "--artifacts", "kept", cwd=tmp_path)
    assert answer.code == 2
    *_, error, hint = answer.err.splitlines()
    assert error == "error: study 'quick' was deleted meanwhile; this storage holds no study"
    assert (
        hint
        == "hint: its checkpoints are kept: restore the study from a backup, and `face3d-tune run` resumes from them"
    )
    assert (
        len([path for path in (tmp_path / "kept").rglob("trial-0.*")]) == 2
    )  # the epoch before, and the one then ended


@pytest.mark.parametrize("words", [("status",), ("report",), ("export",)], ids=" ".join)
def test_a_command_whose_study_is_deleted_while_it_reads_says_so(tmp_path, sqlite_url, data, monkeypatch, words):
    with Storage.parse(sqlite_url).opened(create=True) as opened:
        search_in(opened, file_of(tmp_path, STUDY), data).run(1, Watch(), slots=Scripted(1, two_epochs))
    original, deleted = optuna.Study.get_trials, []

    def get_trials(study, *arguments, **named):
        if not deleted:
            deleted.append(delete(sqlite_url))
        return original(study, *arguments, **named)

    monkeypatch.setattr(optuna.Study, "get_trials", get_trials)
    answer = call(*words, "--storage", sqlite_url, cwd=tmp_path)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"error: storage {sqlite_url}: what was being read there has been deleted",
        "hint: run the same command again",
    ]
