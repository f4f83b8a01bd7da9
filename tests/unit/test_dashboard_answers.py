"""What the dashboard answers when a request, or what a database holds, is odd: over real sockets, and never 500."""

import io
import json
import select
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from wsgiref.util import FileWrapper

import optuna
import pytest
from optuna.artifacts import upload_artifact
from served import ask, begin, detail, ours, serving, theirs
from stored_study import study_of, trial_of
from waitress import wasyncore

from face3d_tune.dashboard import best_trial as own_best
from face3d_tune.dashboard.honest_answers import HonestAnswers, header_value
from face3d_tune.dashboard.server import make_dashboard
from face3d_tune.errors import ArtifactError, StorageError
from face3d_tune.storage.artifacts import Artifacts
from face3d_tune.storage.database import Storage

DIGITS = b"9" * 5000
LINES = "odd\r\nSet-Cookie: a=b\n# heading"
ANY_JSON = ("abc", 2.5, True, None, -1, 0, 10**6, [1], {"a": 1}, "**x**\n# y")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A server whose studies are odd, that allows changes; `said` has its lines, `artifacts` the addresses of some."""
    folder, said = tmp_path_factory.mktemp("odd"), []
    store = Artifacts.parse(str(folder / "kept"))
    (folder / "note.txt").write_text("text")
    with Storage.parse(f"sqlite:///{(folder / 'studies.db').as_posix()}").opened(create=True) as opened:
        ours(opened, 0.5, name="faces")
        study = theirs(opened, 0.5, name=LINES)
        with serving(opened, artifacts=store, allow_changes=True, say=said.append) as made:
            made.said, made.storage, made.artifacts = said, opened, {}
            for kind in (LINES, "text/plain; 结果\0", "text/plain"):
                how = {"study_or_trial": study, "artifact_store": store.optuna_store, "mimetype": kind}
                key = upload_artifact(file_path=str(folder / "note.txt"), **how)
                made.artifacts[kind] = f"/artifacts/{study._study_id}/{key}"
            yield made


def exchange(made, request):
    """The status of the answer to the bytes of a request, its headers in small letters, and its body."""
    with begin(made, request) as visitor:
        answer = b""
        while piece := visitor.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1").lower(), body


def request_of(method, target, *fields, body=b"", host=b"127.0.0.1"):
    lines = [b" ".join([method, target, b"HTTP/1.1"]), b"Host: " + host, b"Connection: close", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# Requests


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize(
    ("target", "field", "status"),
    [
        (b"/dashboard", b"Content-Length: abc", 400),
        (b"/dashboard", b"Content-Length: -1", 400),
        (b"/dashboard", b"Content-Length: " + DIGITS, 400),
        (b"/dashboard", b"Content-Length: 1\r\nContent-Length: 1", 400),
        (b"/dashboard", b"no header", 400),
        (b"/dashboard", b"Transfer-Encoding: gzip", 501),
        (b"http://[/dashboard", b"A: b", 400),
        (b"/api/studies/" + DIGITS, b"A: b", 404),
        (b"/api/studies/" + DIGITS[:500], b"A: b", 404),
        (b"/artifacts/1/" + DIGITS[:500] + b"/ab", b"A: b", 404),
    ],
)
def test_a_malformed_request_is_answered_and_not_hung_up_on(odd, method, target, field, status):
    got, head, body = exchange(odd, request_of(method, target, field))
    assert (got, "waitress" in head) == (status, False)
    assert (body == b"") == (method == b"HEAD")


@pytest.mark.parametrize("path", [b"/api/trials/", b"/api/studies/1/"])
@pytest.mark.parametrize("digits", [20, 500, 5000])
def test_an_id_of_many_digits_is_not_found_where_something_would_be_changed_too(odd, path, digits):
    content = b'{"state": "complete", "values": [1]}'
    kind = (b"Content-Type: application/json", b"Content-Length: %d" % len(content))
    assert exchange(odd, request_of(b"POST", path + DIGITS[:digits] + b"/tell", *kind, body=content))[0] == 404


@pytest.mark.parametrize("name", [b"Accept-Encoding", b"Accept", b"Cookie", b"If-Modified-Since", b"Range", b"Origin"])
def test_a_header_that_is_no_text_is_left_out(odd, name):
    got, _, body = exchange(odd, request_of(b"GET", b"/static/bundle.js", name + b": \xff\xfe"))
    assert (got, len(body) > 1_000_000) == (200, True)


def test_a_client_that_waits_to_be_told_to_go_on_without_a_body_is_answered(odd):
    assert exchange(odd, request_of(b"GET", b"/api/studies", b"Expect: 100-continue"))[0] == 200


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"5", b"{", b"\xff", b"[" * 100_000, b'{"study_name": null}', b'{"study_name": "q"}'),
        *(b'{"study_name": 5, "directions": 5}', b'{"study_name": "q", "directions": [5]}', b'{"user_attrs": 5}'),
        *(b'{"state": 5}', b'{"state": "complete", "values": 5}', b'{"mode": "ChooseWorst", "candidates": "x"}'),
        *(b'{"version": "x", "body": 5}', b'{"file": 5}', b'{"like": ' + DIGITS[:4000] + b"}"),
    ],
)
def test_a_change_that_is_malformed_is_a_mistake_of_the_visitor(odd, content):
    places = (
        "POST /api/studies",
        "PUT /api/studies/1/note",
        "POST /api/studies/1/preference",
        "POST /api/trials/1/tell",
    )
    places += ("POST /api/trials/1/user-attrs", "POST /api/artifacts/1", "PUT /api/studies/1/99/note")
    places += ("POST /api/studies/1/steering/try", "POST /api/trials/77/tell")
    for place in places:
        method, target = place.encode().split()
        kind = (b"Content-Type: application/json", b"Content-Length: %d" % len(content))
        status, _, body = exchange(odd, request_of(method, target, *kind, body=content))
        assert 400 <= status < 500, (place, body)
        assert "reason" in json.loads(body)
        assert b"internal server error" not in body


def post(made, target, content):
    body = json.dumps(content).encode()
    kind = (b"Content-Type: application/json", b"Content-Length: %d" % len(body))
    status, _, answer = exchange(made, request_of(b"POST", target, *kind, body=body))
    return status, json.loads(answer)


@pytest.mark.parametrize("target", [b"/api/studies", b"//api/studies", b"/api/studies/1/rename"])
@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "nul\0", "line\u2028end", "half \ud800", "tab\t"])
def test_a_study_gets_no_name_that_a_line_cannot_show(odd, target, name):
    before = optuna.get_all_study_names(odd.storage)
    status, answer = post(odd, target, {"study_name": name, "directions": ["maximize"]})
    assert status == 400
    expected = f"the study's name has a character that no line can show: {name!r}; expected 1 to 200: give another"
    assert answer == {"reason": expected}
    assert optuna.get_all_study_names(odd.storage) == before


@pytest.mark.parametrize("target", [b"/api/studies", b"/api/studies/1/rename"])
@pytest.mark.parametrize(("name", "length"), [("", 0), ("   ", 0), ("é" * 201, 201)], ids=["empty", "spaces", "long"])
def test_a_study_gets_no_empty_name_and_none_that_no_page_has_room_for(odd, target, name, length):
    """`run` refuses them too, and PostgreSQL has no room for 513."""
    before = optuna.get_all_study_names(odd.storage)
    status, answer = post(odd, target, {"study_name": name, "directions": ["maximize"]})
    expected = f"the study's name has {length} characters: {name!r}; expected 1 to 200: give another"
    assert (status, answer) == (400, {"reason": expected})
    assert optuna.get_all_study_names(odd.storage) == before


def test_a_name_in_any_writing_is_taken_also_in_place_of_an_odd_one(sqlite):
    theirs(sqlite, 0.5, name=LINES)
    with serving(sqlite, allow_changes=True) as made:
        assert post(made, b"/api/studies", {"study_name": "人脸 é 👩‍🔬", "directions": ["maximize"]})[0] == 201
        assert post(made, b"/api/studies/1/rename", {"study_name": "x" * 200})[0] == 201
    assert sorted(optuna.get_all_study_names(sqlite)) == ["x" * 200, "人脸 é 👩‍🔬"]


@pytest.mark.parametrize("filled", [60_000, 70_000, 200_000])
def test_a_request_that_names_a_study_is_checked_or_refused_however_long_it_is(odd, filled):
    before = optuna.get_all_study_names(odd.storage)
    content = {"study_name": "two\nlines", "directions": ["maximize"], "more": "a" * filled}
    assert post(odd, b"/api/studies", content)[0] == 400
    assert optuna.get_all_study_names(odd.storage) == before


def test_a_trial_that_has_ended_cannot_be_ended_again(odd):
    content = b'{"state": "complete", "values": [1]}'
    kind = (b"Content-Type: application/json", b"Content-Length: %d" % len(content))
    status, _, body = exchange(odd, request_of(b"POST", b"/api/trials/1/tell", *kind, body=content))
    assert (status, b"has already finished" in body) == (409, True)


# HEAD


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/dashboard", "/api/studies", "/api/studies/1", "/api/meta", "/csv/1", "/healthz"),
        *("/static/bundle.js", "/nothing"),
    ],
)
def test_an_answer_to_head_ends_after_its_headers_so_that_the_next_on_the_connection_is_read_right(odd, path):
    wanted = ask(odd, path)[0]
    status, _, body = exchange(odd, request_of(b"HEAD", path.encode()))
    assert (status, body) == (wanted, b"")


def test_an_artifact_of_unknown_length_has_no_body_for_head_either(odd):
    for path in odd.artifacts.values():
        status, _, body = exchange(odd, request_of(b"HEAD", path.encode()))
        assert (status, body) == (200, b"")


def test_a_connection_goes_on_after_head(odd):
    first = request_of(b"HEAD", b"/api/studies").replace(b"Connection: close\r\n", b"")
    status, _, rest = exchange(odd, first + request_of(b"GET", b"/healthz"))
    assert (status, rest.startswith(b"HTTP/1.1 200 OK"), rest.endswith(b'{"status": "ok"}')) == (200, True, True)


# Addresses in absolute form


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        (b"http://127.0.0.1/api/studies", b"127.0.0.1", 200),
        (b"http://localhost:1234/api/studies", b"a.proxy", 200),
        (b"HTTP://127.0.0.1/api/studies", b"", 200),
        (b"http://evil.example/api/studies", b"127.0.0.1", 421),
        (b"http://127.0.0.1:80@evil.example/api/studies", b"127.0.0.1", 421),
    ],
)
def test_an_address_in_absolute_form_is_taken_and_its_host_is_the_one_that_counts(odd, address, host, status):
    got, _, body = exchange(odd, request_of(b"GET", address, host=host))
    assert (got, b"study_summaries" in body) == (status, status == 200)


# What a database holds


def test_a_study_whose_name_has_line_breaks_can_be_downloaded_and_its_name_stays_in_one_header(odd):
    status, head, body = exchange(odd, request_of(b"GET", b"/csv/2"))
    (disposition,) = (line for line in head.splitlines() if line.startswith("content-disposition"))
    assert (status, body.splitlines()[0]) == (200, b"Number,State,Value,Param x,UserAttribute seen_0.5")
    assert 'filename="odd_set-cookie-a_b__-heading.csv"' in disposition  # in small letters
    assert disposition.endswith("; filename*=utf-8''odd%20set-cookie-a%3db%20%23-heading.csv")
    assert not any(line.startswith("set-cookie") for line in head.splitlines())


def test_a_download_has_the_name_of_its_study_also_in_chinese_and_says_its_encoding(odd):
    study = theirs(odd.storage, 0.5, name="结果 二")
    _, headers, body = ask(odd, f"/csv/{study._study_id}")
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert headers["Content-Disposition"].endswith("; filename*=UTF-8''%E7%BB%93%E6%9E%9C-%E4%BA%8C.csv")
    assert body.startswith(b"Number,State,Value")


def test_an_artifact_of_a_type_with_line_breaks_is_a_download(odd):
    for kind, shown in ((LINES, False), ("text/plain; 结果\0", True), ("text/plain", True)):
        status, head, body = exchange(odd, request_of(b"GET", odd.artifacts[kind].encode()))
        assert (status, body) == (200, b"text")
        assert ("content-type: text/plain" in head) == shown
        assert "\nset-cookie" not in head


@pytest.mark.parametrize("key", ["best_epoch", "cosine_by_yaw", "folds", "numbers"])
def test_an_attribute_of_a_trial_that_is_anything_at_all_leaves_the_study_readable(odd, key):
    study = ours(odd.storage, name=key)
    study.add_trials([trial_of("COMPLETE", curve=[0.5], **{key: value}) for value in ANY_JSON])
    found, _ = detail(odd, study._study_id)
    assert [trial["values"] for trial in found["trials"]] == [[0.5]] * len(ANY_JSON)
    shown = [(trial["trial_id"], each["artifact_id"]) for trial in found["trials"] for each in trial["artifacts"]]
    assert {ask(odd, f"/artifacts/{study._study_id}/{trial}/{key}")[0] for trial, key in shown} <= {200}


@pytest.mark.parametrize("key", ["settings", "data", "effort"])
def test_an_attribute_of_a_study_that_is_anything_at_all_leaves_its_trials_readable(odd, key):
    for value in ("abc", [1]):
        study = ours(odd.storage, 0.5, name=f"{key} {value}")
        study.set_user_attr(key, value)
        found, _ = detail(odd, study._study_id)
        assert [trial["values"] for trial in found["trials"]] == [[0.5]]
    assert any("notes and figures could not be made" in line for line in odd.said)


@pytest.mark.parametrize(
    ("error", "method", "status", "said"),
    [
        (
            StorageError("sqlite:////home/me/secret.db is away"),
            "GET",
            503,
            "the storage does not answer (StorageError)",
        ),
        (ArtifactError("the bucket does not answer"), "GET", 502, "the bucket does not answer"),
        (KeyError("Record does not exist."), "PUT", 404, "the storage holds no such study or trial"),
        (ZeroDivisionError("x"), "GET", 409, "what the storage holds cannot be shown (ZeroDivisionError: x)"),
        (TypeError("x"), "PUT", 400, "the request is none that optuna-dashboard can carry out (TypeError)"),
    ],
)
def test_whatever_goes_wrong_is_answered_with_its_cause_also_after_the_answer_was_begun(error, method, status, said):
    def app(environ, start_response):
        start_response("200 OK", [])
        raise error

    began, lines = [], []
    asked = {"REQUEST_METHOD": method, "PATH_INFO": "/api/x"}
    for _ in range(2):
        body = b"".join(HonestAnswers(app, lines.append)(asked, lambda *given: began.append(given)))
    assert (int(began[-1][0].split()[0]), json.loads(body)) == (status, {"reason": said})
    assert ("Retry-After" in dict(began[-1][1])) == (status == 503)
    assert len(lines) == (2 if status == 409 else 0)  # once for each application


def test_a_failed_answer_is_closed_and_one_application_says_the_same_line_once():
    files, lines = [io.BytesIO(b"half an answer") for _ in range(2)], []
    left = iter(files)

    def app(environ, start_response):
        start_response("500 Internal Server Error", [])
        return FileWrapper(next(left))

    honest, began = HonestAnswers(app, lines.append), []
    for _ in files:
        honest({"REQUEST_METHOD": "GET", "PATH_INFO": "/api/x"}, lambda *given: began.append(given[0]))
    assert [file.closed for file in files] == [True, True]
    assert began == ["409 Conflict"] * 2
    assert lines == ["GET '/api/x': what the storage holds cannot be shown (no reason given)"]


def test_a_header_has_one_line_and_letters_that_http_knows():
    assert header_value("a\r\nb: c\0\t结é") == "a  b: c  ?é"


# A crowd


def test_sixty_visitors_at_once_are_all_answered(sqlite):
    ours(sqlite, 0.5)
    with serving(sqlite) as made, ThreadPoolExecutor(60) as visitors:
        paths = ("/dashboard", "/healthz", "/api/studies", "/api/studies/1") * 15
        assert list(visitors.map(lambda path: ask(made, path)[0], paths)) == [200] * 60


def test_the_server_accepts_a_crowd_in_one_turn_as_it_gets_few_while_its_threads_work(sqlite):
    """A visitor for whom the queue has no place waits a second, as does the operating system before it tries again."""
    with make_dashboard(sqlite) as made, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(begin(made, b""))
        wasyncore.loop(0, use_poll=hasattr(select, "poll"), map=made._sockets, count=1)
        assert len(made._waitress.active_channels) == 60


def test_while_another_program_has_locked_the_database_all_visitors_are_told_soon(odd):
    """It takes 2 s on a quiet machine. SQLite would wait for a minute, for one after the other."""
    paths = ("/healthz", "/api/studies", "/api/studies/1", "/csv/1", "/api/studies/1/param_importances") * 12
    assert {ask(odd, path)[0] for path in set(paths)} == {200}

    def visit(path):
        started = time.monotonic()
        status = ask(odd, path)[0]
        return status, time.monotonic() - started

    other = sqlite3.connect(odd.storage.engine.url.database, check_same_thread=False)
    try:
        other.execute("begin exclusive")
        with ThreadPoolExecutor(60) as visitors:
            answers = list(visitors.map(visit, paths))
    finally:
        other.close()
    assert {status for status, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < 20
    released = time.monotonic()
    while ask(odd, "/healthz")[0] != 200:
        assert time.monotonic() - released < 20


# Another file


def test_a_file_in_the_place_of_the_one_that_was_read_is_shown_though_all_its_ids_are_the_same(tmp_path):
    place, other = tmp_path / "studies.db", tmp_path / "other.db"
    for path, cosines in ((place, (0.5, 0.6)), (other, (0.7, 0.4))):
        with Storage.parse(f"sqlite:///{path.as_posix()}").opened(create=True) as opened:
            study = ours(opened, *cosines)
            study.set_user_attr("id", "0123456789abcdef")
    with Storage.parse(f"sqlite:///{place.as_posix()}").opened() as opened, serving(opened) as made:
        before, headers = detail(made)
        assert [trial["values"] for trial in before["trials"]] == [[0.5], [0.6]]
        place.write_bytes(other.read_bytes())  # as `cp` does: the same inode
        after, later = detail(made)
        assert [trial["values"] for trial in after["trials"]] == [[0.7], [0.4]]
        assert after["best_trials"][0]["values"] == [0.7]
        assert headers["X-Study-Key"] != later["X-Study-Key"]
        assert optuna.load_study(study_name="faces", storage=opened).best_value == 0.7


@pytest.mark.parametrize(
    ("error", "swallowed"), [(KeyError("config"), True), (RuntimeError("a mistake of ours"), False)]
)
def test_optunas_best_trial_stands_in_for_a_damaged_study_and_hides_no_other_error(monkeypatch, error, swallowed):
    study = study_of(trial_of("COMPLETE", 0.6))
    storage = study._storage

    def raising(_):
        raise error

    monkeypatch.setattr(own_best, "best_trial", raising)
    own_best.answer_with_own_best(storage)
    if swallowed:
        assert storage.get_best_trial(study._study_id).value == 0.6
    else:
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            storage.get_best_trial(study._study_id)
