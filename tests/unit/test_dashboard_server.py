"""How the dashboard is served: slow visitors, limits, odd requests, and studies that change while it is open."""

import json
import socket
import threading
import time
from contextlib import ExitStack

import optuna
import pytest
from command_line import call
from served import ask, begin, detail, ours, serving, theirs
from stored_study import add_trial

from face3d_tune.dashboard import http_server, server
from face3d_tune.dashboard.server import make_dashboard
from face3d_tune.errors import ConfigError
from face3d_tune.storage import optuna_internals
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage

TOKEN = "0123456789abcdef"
PROMPTLY = 5  # seconds, on a machine that does other things too


@pytest.fixture
def served(sqlite, tmp_path):
    with serving(sqlite, artifacts=Artifacts.parse(str(tmp_path / "kept"))) as made:
        yield made


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A server of one study, for tests that only ask."""
    folder = tmp_path_factory.mktemp("standing")
    with Storage.parse(f"sqlite:///{(folder / 'studies.db').as_posix()}").opened(create=True) as opened:
        ours(opened, 0.5)
        with serving(opened, artifacts=Artifacts.parse(str(folder / "kept"))) as made:
            yield made


# Studies that change while it is open


@pytest.mark.parametrize("make", [ours, theirs])
@pytest.mark.parametrize("later", [(), (0.3, 0.2), (0.3, 0.2, 0.1)])
def test_a_study_with_the_id_of_a_deleted_one_is_shown_as_what_it_is(served, sqlite, make, later):
    old = make(sqlite, 0.5, 0.6, name="olden")
    before, headers = detail(served)
    assert [trial["values"] for trial in before["trials"]] == [[0.5], [0.6]]
    optuna.delete_study(study_name="olden", storage=sqlite)
    new = make(sqlite, *later, name="new")
    assert new._study_id == old._study_id == 1
    after, changed = detail(served)
    assert (after["name"], [trial["values"] for trial in after["trials"]]) == ("new", [[value] for value in later])
    assert len(after["best_trials"]) == min(len(later), 1)
    seen = {column["key"] for column in after["union_user_attrs"]}
    assert not {"seen_0.5", "seen_0.6"} & seen
    assert "olden" not in after["note"]["body"]
    assert headers["X-Study-Key"] != changed["X-Study-Key"] == detail(served)[1]["X-Study-Key"]


def test_importances_are_those_of_the_study_with_this_id_now(served, sqlite):
    def study_of(name, parameter):
        study = optuna.create_study(storage=sqlite, study_name=name, direction="maximize")
        study.optimize(lambda trial: trial.suggest_float(parameter, 0, 1), n_trials=4)

    def importances():
        (shares,) = json.loads(ask(served, "/api/studies/1/param_importances")[2])["param_importances"]
        return [share["name"] for share in shares]

    study_of("olden", "x")
    assert importances() == ["x"]
    optuna.delete_study(study_name="olden", storage=sqlite)
    study_of("new", "y")  # with as many trials
    assert importances() == ["y"]


def test_every_page_of_a_deleted_study_is_not_found(served, sqlite):
    ours(sqlite, 0.5)
    best = detail(served)[0]["trials"][0]
    artifact = f"/artifacts/1/{best['trial_id']}/{best['artifacts'][0]['artifact_id']}"
    pages = ("/api/studies/1", "/api/studies/1/param_importances", "/csv/1", artifact)
    assert [ask(served, page)[0] for page in pages] == [200] * 4
    optuna.delete_study(study_name="faces", storage=sqlite)
    assert [ask(served, page)[0] for page in pages] == [404] * 4


def test_a_file_that_was_deleted_is_said_and_not_made_again_until_there_is_another(tmp_path):
    place = tmp_path / "studies.db"
    url = f"sqlite:///{place.as_posix()}"
    with Storage.parse(url).opened(create=True) as opened, serving(opened) as made:
        ours(opened, 0.5)
        assert len(detail(made)[0]["trials"]) == 1
        place.unlink()
        for page in ("/api/studies", "/api/studies/1", "/csv/1", "/healthz"):
            status, _, body = ask(made, page)
            assert (status, b"StorageError" in body) == (503, True), page
        assert ask(made, "/dashboard")[0] == 200
        assert not place.exists()
        with Storage.parse(url).opened(create=True) as other:
            ours(other, 0.1, 0.2)
        assert [trial["values"] for trial in detail(made)[0]["trials"]] == [[0.1], [0.2]]


def test_a_page_has_the_script_that_notices_another_study_however_it_is_asked_for(standing):
    for path in ("/dashboard", "/dashboard/", "/dashboard/studies/1/trials"):
        status, headers, body = ask(
            standing, path, If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT", Range="bytes=0-9"
        )
        assert (status, body.count(b'<head><script src="/face3d-tune.js"></script>')) == (200, 1)
        assert (int(headers["Content-Length"]), headers["Cache-Control"]) == (len(body), "no-cache")
    status, headers, body = ask(standing, "/face3d-tune.js")
    assert (status, headers["Content-Type"]) == (200, "text/javascript")
    assert b'"X-Study-Key"' in body


# Requests that optuna-dashboard fails on


@pytest.mark.parametrize("encoding", ["gzip", "identity", None])
def test_the_pages_program_is_there_for_clients_that_take_no_compressed_answers(standing, encoding):
    status, headers, body = ask(standing, "/static/bundle.js", Accept_Encoding=encoding)
    assert (status, headers.get("Content-Encoding")) == (200, "gzip" if encoding == "gzip" else None)
    assert len(body) == int(headers["Content-Length"]) > 1_000_000
    assert ask(standing, "/favicon.ico", Accept_Encoding=encoding)[0] == 200


@pytest.mark.parametrize("encoding", ["gzip", None])
@pytest.mark.parametrize(
    "path",
    [
        *("/static/../x", "/static/%2e%2e/x", "/static/..%2findex.html", "/static/..%5cx", "/static/%00", "/static/x"),
        *("/static/../../__init__.py", "/static/a/../bundle.js", f"/static/{'a' * 5000}", "/static/%ff", "/static/"),
        *("/nothing", "/api/nothing", "/api/studies/x", "/api/studies/-1", "/api/studies/0", "/api/studies/77"),
        *(f"/api/studies/{'9' * 20}", f"/api/studies/{'9' * 5000}", "/api/studies/%00", "/api/studies/01"),
        *("/api/studies/77/param_importances", "/csv/77", f"/csv/{'9' * 20}"),
        *("/artifacts/1/ab", "/artifacts/77/ab", "/artifacts/1/1/ab", "/artifacts/1/999/ab", "/artifacts/77/1/ab"),
        *(f"/artifacts/1/{'9' * 20}/ab", f"/artifacts/{'9' * 20}/1/ab", f"/artifacts/1/{'9' * 500}/ab"),
    ],
)
def test_what_is_not_there_is_not_found(standing, path, encoding):
    assert ask(standing, path, Accept_Encoding=encoding)[0] == 404


@pytest.mark.parametrize(
    "after", ["x", "", "-1", "1.5", "+1", "%00", "%ff", "1&after=x", "x&after=1", "9" * 20, "%D9%A3"]
)
def test_a_first_trial_that_is_no_number_is_a_bad_request(standing, after):
    status, _, body = ask(standing, f"/api/studies/1?after={after}")
    assert (status, json.loads(body)) == (400, {"reason": "`after` should be a whole number from 0"})


def test_a_plot_that_would_need_plotly_says_so(served, sqlite, monkeypatch):
    monkeypatch.setattr("face3d_tune.dashboard.request_filter.find_spec", lambda name: None)
    ours(sqlite, 0.5)
    with serving(sqlite) as made:
        status, _, body = ask(made, "/api/studies/1/plot/rank")
    assert status == 501
    assert "pip install plotly" in json.loads(body)["reason"]


@pytest.mark.parametrize("kind", ["empty", "running", "failed"])
def test_while_nothing_has_completed_every_page_of_the_study_answers(served, sqlite, kind):
    study = ours(sqlite)
    if kind != "empty":
        add_trial(study, "RUNNING" if kind == "running" else "FAIL", [])
    for page in ("", "/param_importances"):
        assert ask(served, f"/api/studies/1{page}")[0] == 200
    assert ask(served, "/csv/1")[0] == 200


def test_a_redirect_stays_on_the_site_that_was_asked_whatever_the_proxy_calls_it(sqlite):
    with serving(sqlite, token=TOKEN, public_urls=["https://tune.example.org"]) as made:
        asked = {"Host": "tune.example.org", "X_Forwarded_Host": "evil.example", "Authorization": f"Bearer {TOKEN}"}
        status, headers, _ = ask(made, "/", **asked)
    assert (status, headers["Location"]) == (302, "/dashboard")


def test_under_a_public_name_everyone_could_look_so_it_needs_a_token(sqlite):
    with pytest.raises(ConfigError, match=r"at https://tune\.example\.org .*; expected --token TEXT"):
        make_dashboard(sqlite, public_urls=["https://tune.example.org"])


# Slow visitors, and limits


def test_a_visitor_of_another_study_does_not_wait_until_a_large_one_is_read(sqlite, monkeypatch):
    ours(sqlite, 0.5, name="large")
    other = ours(sqlite, 0.6, name="other")
    asked, done = threading.Event(), threading.Event()
    read = optuna_internals.read_trials

    def slow(database, study_id, *rest, **how):
        if study_id != other._study_id:
            asked.set()
            assert done.wait(60)
        return read(database, study_id, *rest, **how)

    monkeypatch.setattr(optuna_internals, "read_trials", slow)
    with serving(sqlite) as made:
        visitors = [threading.Thread(target=detail, args=(made, 1)) for _ in range(2)]
        for visitor in visitors:
            visitor.start()
        assert asked.wait(60)
        started = time.monotonic()
        assert detail(made, other._study_id)[0]["name"] == "other"
        assert time.monotonic() - started < PROMPTLY
        done.set()
        for visitor in visitors:
            visitor.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /dashboard HTTP/1.1\r\nHost: 127.0",
        b"POST /api/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\nhalf",
        b"GET /static/bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",  # and never reads the answer
    ],
    ids=["idle", "slow header", "slow body", "slow reader"],
)
def test_fifty_slow_visitors_keep_nobody_waiting_and_cost_no_thread_each(standing, sent):
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(begin(standing, sent))
        started = time.monotonic()
        assert ask(standing, "/dashboard")[0] == ask(standing, "/api/studies/1")[0] == 200
        assert time.monotonic() - started < PROMPTLY
        assert threading.active_count() <= before + 1  # the one that reads ahead may not have ended


def test_a_connection_without_a_byte_is_closed_after_a_while(sqlite, monkeypatch):
    for setting in ("channel_timeout", "cleanup_interval"):
        monkeypatch.setitem(server._WAITRESS, setting, 0)
    with serving(sqlite) as made, begin(made, b"") as idle:
        assert idle.recv(1) == b""


def test_headers_and_bodies_have_a_limit(standing):
    assert ask(standing, "/dashboard", Cookie="a" * 30_000)[0] == 200  # as browsers with many programs on a host send
    assert ask(standing, "/dashboard", Cookie="a" * 70_000)[0] == 431
    length = {"Content_Length": str(10**6), "Content_Type": "application/json"}
    assert ask(standing, "/api/studies", "POST", **length)[0] == 413


def exchanged(made, sent):
    """Whatever is answered to a client that reads only after it has sent everything."""
    with begin(made, sent) as visitor:
        answer = b""
        while piece := visitor.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /dashboard HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: " + b"a" * 2**20, 431),
        (b"GET /dashboard HTTP/1.1\r\nno header\r\n\r\n" + b"a" * 2**20, 400),
        (b"POST /api/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1048576\r\n\r\n" + b"a" * 2**20, 413),
    ],
)
def test_a_client_that_sends_a_megabyte_too_much_reads_the_whole_refusal(standing, sent, status):
    for _ in range(10):
        head, _, body = exchanged(standing, sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status) or head.startswith(b"HTTP/1.0 %d " % status)
        assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
        assert body


def send_until_hung_up_on(visitor, piece, times, pause=0.0):
    for _ in range(times):
        visitor.sendall(piece)
        time.sleep(pause)


def test_a_refused_client_that_never_stops_sending_is_hung_up_on(standing, monkeypatch):
    monkeypatch.setattr(http_server, "_DROPPED", 2**20)
    with begin(standing, b"GET /\r\nno header\r\n\r\n") as visitor, pytest.raises(ConnectionError):
        send_until_hung_up_on(visitor, b"a" * 2**16, 2000)


def test_a_refused_client_that_stays_is_hung_up_on_after_a_while(sqlite, monkeypatch):
    for setting in ("channel_timeout", "cleanup_interval"):
        monkeypatch.setitem(server._WAITRESS, setting, 1)
    with serving(sqlite) as made, begin(made, b"GET /\r\nno header\r\n\r\n") as visitor:
        while visitor.recv(65536):
            pass
        with pytest.raises(ConnectionError):
            send_until_hung_up_on(visitor, b"a", 600, pause=0.1)


def test_no_answer_says_which_program_serves(standing):
    for path, headers in (
        ("/dashboard", {}),
        ("/x", {}),
        ("/dashboard", {"Host": "evil"}),
        ("/", {"Cookie": "a" * 70_000}),
    ):
        _, given, body = ask(standing, path, **headers)
        assert "Server" not in given
        assert b"waitress" not in body.lower()


def test_a_taken_port_is_one_line_and_leaves_nothing_open(sqlite):
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        before = threading.active_count()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: ") as refused:
            make_dashboard(sqlite, port=port)
        assert refused.value.hint == "use another --port (0 takes a free one) or --host"
        assert threading.active_count() == before


def test_it_ends_promptly_although_visitors_are_there_and_one_waits_for_its_answer(sqlite, monkeypatch):
    asked, release = threading.Event(), threading.Event()

    def slow(storage):
        asked.set()
        release.wait(60)
        return []

    monkeypatch.setattr("optuna.storages.RDBStorage.get_all_studies", slow)
    with ExitStack() as visitors:
        with serving(sqlite) as made:
            for sent in (*[b""] * 20, b"GET /api/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
                visitors.enter_context(begin(made, sent))
            assert asked.wait(30)
            started = time.monotonic()
        assert time.monotonic() - started < PROMPTLY
        release.set()


# The command


def test_the_command_says_what_visitors_behind_a_proxy_open_and_reads_it_from_the_environment(
    sqlite, tmp_path, monkeypatch
):
    monkeypatch.setattr(server.Server, "serve_forever", lambda made: None)
    known = {
        "FACE3D_TUNE_STORAGE": "sqlite:///studies.db",
        "FACE3D_TUNE_PUBLIC_URL": "https://a.example https://b.example/",
    }
    answer = call("dashboard", "--no-browser", "--port", 0, "--token", TOKEN, cwd=tmp_path, **known)
    assert answer.code == 0
    assert answer.out.splitlines()[1:] == [
        f"visitors open https://a.example/?token={TOKEN}",
        f"visitors open https://b.example/?token={TOKEN}",
    ]
    empty = {**known, "FACE3D_TUNE_PUBLIC_URL": ""}  # as Compose passes what is not set
    assert len(call("dashboard", "--no-browser", "--port", 0, cwd=tmp_path, **empty).out.splitlines()) == 1
