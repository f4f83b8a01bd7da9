"""The dashboard's buttons: what the server answers them, and that it has none where nothing may be changed."""

import json
import re
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import optuna
import pytest
from served import serving
from stored_script import searched_script, study_of_script
from stored_study import study_of, trial_of

from face3d_tune.storage.workers import Worker

TOKEN = "0123456789abcdef"


@pytest.fixture
def study(sqlite):
    return study_of(
        trial_of("COMPLETE", 0.55, preset="baseline"),
        trial_of("COMPLETE", 0.7, minute=1),
        storage=sqlite,
    )


@contextmanager
def served(storage, **how):
    """Gives (status, content) of an address of a dashboard."""
    with serving(storage, **how) as server:

        def ask(path, content=None, **headers):
            data = None if content is None else json.dumps(content).encode()
            request = Request(f"http://127.0.0.1:{server.server_port}{path}", data)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                request.add_header(name.replace("_", "-"), value)
            try:
                with urlopen(request, timeout=30) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                return error.code, error.read().decode()

        yield ask


@pytest.fixture
def steer(sqlite, study):
    """Sends what a button sends; gives status, and the lines or the reason."""
    with served(sqlite, allow_changes=True) as ask:

        def send(action, study=study, **content):
            status, text = ask(f"/api/studies/{study._study_id}/steering{action}", content or None)
            told = json.loads(text)
            return status, told.get("lines", told.get("reason", told))

        send.ask = ask
        yield send


def test_a_config_is_queued_checked_and_completed_as_by_the_command(steer, study):
    status, lines = steer("/try", values="lr=2e-3 ", preset="baseline", like=None)
    assert (status, lines[0]) == (200, "queued as trial 2 of study 'faces': pose_unit = degrees, lr = 0.002")
    assert study.trials[2].user_attrs["tried"] == ["lr=2e-3", "--preset", "baseline"]
    assert steer("/try", values="", like=1)[1][0].startswith("queued as trial 3 of study 'faces': lr = 0.001")


@pytest.mark.parametrize(
    ("action", "content", "reason"),
    [
        ("/try", {"values": "lr=5"}, "lr = 5 is outside the search space, 1e-05 … 0.1 (log) (to try it, widen"),
        ("/try", {"values": "'"}, "the values cannot be read"),
        ("/try", {"values": " "}, "nothing to try; expected NAME=VALUE, a preset or a trial"),
        ("/try", {"values": "", "preset": "baseline", "like": 1}, "a preset and a trial both give the other values"),
        ("/try", {"values": 3}, "values should be a text"),
        ("/try", {"values": "", "like": "x"}, "like should be the number of a trial"),
        ("/exclude", {"trial": 9}, "study 'faces' has no trial 9 (it holds 0 to 1)"),
        ("/exclude", {"reason": "x"}, "no trial to exclude; expected its number"),
        ("/exclude", {"trial": 1, "undo": True}, "trial 1 of study 'faces' is not excluded"),
        ("/exclude", {"trial": 1, "reason": "x" * 30_000}, "expected a JSON object of at most 20000 bytes"),
    ],
)
def test_what_cannot_be_done_is_said(steer, study, action, content, reason):
    status, said = steer(action, **content)
    assert (status, said[: len(reason)]) == (400, reason)
    assert len(study.trials) == 2


def test_a_trial_is_excluded_for_a_reason_and_brought_back(steer, study):
    status, lines = steer("/exclude", trial=1, reason="old labels")
    assert re.sub("by .* at .*Z", "by X at T", lines[0]) == 'trial 1 is excluded by X at T: "old labels"'
    assert lines[0].startswith("trial 1 is excluded by the dashboard of ")
    assert (status, lines[1]) == (200, "the best is now trial 0: cosine 0.5500")
    assert steer("")[1]["excluded"] == {"1": lines[0]}
    assert steer("/exclude", trial=1, undo=True)[1][0] == "trial 1 counts again"
    assert steer("")[1]["excluded"] == {}


def test_the_page_of_optuna_shows_the_best_of_the_others(steer, study):
    def shown():
        return json.loads(steer.ask(f"/api/studies/{study._study_id}")[1])

    assert [trial["number"] for trial in shown()["best_trials"]] == [1]
    _, (line, _) = steer("/exclude", trial=1, reason="old labels")
    now = shown()
    assert [trial["number"] for trial in now["best_trials"]] == [0]
    assert {"key": "excluded", "value": line} in now["trials"][1]["user_attrs"]
    assert {"key": "excluded", "sortable": False} in now["union_user_attrs"]
    assert "**Excluded.** trial 1 is excluded by" in now["trials"][1]["note"]["body"]
    assert "    face3d-tune exclude 1 --undo --study-name faces" in now["trials"][1]["note"]["body"]
    assert "The best of the others is trial 0." in now["note"]["body"]
    assert "excluded" not in [attr["key"] for attr in now["user_attrs"]]
    steer("/exclude", trial=0)
    assert [trial["number"] for trial in shown()["best_trials"]] == [1]  # none counts, so Optuna's own


def test_a_search_is_stopped_for_its_workers(steer, study, sqlite):
    assert steer("/stop", now=False) == (200, ["no search of study 'faces' runs: nothing to stop"])
    worker = Worker(sqlite.engine, study._study_id, alone=True)
    worker.beat()
    status, (line, _) = steer("/stop", now=True)
    assert (status, line.partition(":")[2][:34]) == (200, " asked 1 worker(s) to stop at once")
    held = optuna.load_study(study_name="faces", storage=sqlite).user_attrs["stop"]
    assert (held["now"], held["by"].startswith("the dashboard of ")) == (True, True)
    state = steer("")[1]
    assert (len(state["workers"]), state["stop"].startswith("stopped by the dashboard of ")) == (1, True)


def test_a_study_of_a_script_is_steered_too(sqlite, steer):
    script = study_of_script(*searched_script("minimize"), direction="minimize", storage=sqlite)
    assert steer("", study=script)[1]["parameters"]
    assert steer("/exclude", study=script, trial=0)[0] == 200


def test_neither_a_foreign_study_nor_a_missing_one_is_steered(sqlite, steer):
    foreign = optuna.create_study(study_name="foreign", storage=sqlite)
    assert steer("", study=foreign) == (400, "study 'foreign' was not made by face3d-tune")
    assert steer.ask("/api/studies/99/steering/stop", {"now": True})[0] == 404


def test_a_form_of_another_site_and_a_link_change_nothing(steer, study):
    path = f"/api/studies/{study._study_id}/steering/exclude"
    assert steer.ask(path)[0] == 405
    assert steer.ask(path, {"trial": 1}, Content_Type="text/plain")[0] == 400
    assert steer.ask(path, {"trial": 1}, Origin="http://evil.example")[0] == 403
    assert steer.ask(path.removesuffix("/exclude"), {"trial": 1})[0] == 405
    assert "excluded" not in study.user_attrs


def test_without_permission_there_is_neither_button_nor_answer(sqlite, study):
    path = f"/api/studies/{study._study_id}/steering"
    with served(sqlite) as ask:
        assert ask(f"{path}/exclude", {"trial": 1})[0] == 403
        assert ask(path)[0] == 404
        assert "steering" not in ask("/dashboard/studies/1")[1]
        assert "api/studies" not in ask("/face3d-tune-steering.js")[1]
    with served(sqlite, allow_changes=True, token=TOKEN) as ask:
        assert ask(f"{path}/exclude", {"trial": 1})[0] == 401
        assert ask(f"{path}/exclude", {"trial": 1}, Authorization=f"Bearer {TOKEN}")[0] == 200
        page = ask("/dashboard/studies/1", Authorization=f"Bearer {TOKEN}")[1]
        assert '<script src="/face3d-tune-steering.js"></script>' in page
