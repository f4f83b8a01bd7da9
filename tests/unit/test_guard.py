"""Who may do what with the dashboard: which requests reach the application behind the guard, and how it answers."""

import json
import re
import socket
from io import BytesIO
from wsgiref.util import setup_testing_defaults

import pytest

from face3d_tune.dashboard.guard import DRAWN, HEALTH, Access, Guard, Public, is_loopback
from face3d_tune.errors import ConfigError

TOKEN = "0123456789abcdef"
SECRET = b"what studies hold"
POLICY = "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
HERE = Access("127.0.0.1", 8080)


def answer_of(
    access,
    method="GET",
    path="/dashboard",
    *,
    query="",
    gives=None,
    check=lambda: None,
    drawn=False,
    address="",
    **headers,
):
    """(status, headers, body); headers as WSGI has them, and `gives` are those of the application."""
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": BytesIO()}
    environ |= {"HTTP_HOST": f"127.0.0.1:{access.port}", "REQUEST_URI": address}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    environ = {name: value for name, value in environ.items() if value is not None}
    setup_testing_defaults(environ)
    if headers.get("host", "") is None:
        del environ["HTTP_HOST"]
    started = []

    def app(environ, start_response):
        if drawn:
            environ[DRAWN] = True
        start_response("200 OK", list((gives or {"Content-Type": "text/html"}).items()))
        return [SECRET]

    body = b"".join(Guard(app, access, check)(environ, lambda status, given, *_: started.append((status, dict(given)))))
    ((status, given),) = started
    return int(status.split()[0]), given, body


def test_a_visitor_on_this_machine_may_look():
    assert answer_of(HERE)[::2] == (200, SECRET)


@pytest.mark.parametrize("access", [HERE, Access("127.0.0.1", 8080, token=TOKEN)])
@pytest.mark.parametrize("path", ["/dashboard", HEALTH])
def test_an_answer_to_head_has_no_body_which_a_client_would_take_for_the_next_answer(access, path):
    status, _, body = answer_of(access, "HEAD", path)
    assert (status, body) == (answer_of(access, "GET", path)[0], b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "ANYTHING"])
def test_nothing_can_be_changed_unless_it_was_allowed(method):
    status, headers, body = answer_of(HERE, method)
    assert (status, headers["Content-Type"]) == (403, "application/json")
    assert "--allow-changes" in json.loads(body)["reason"]
    assert answer_of(Access("127.0.0.1", 8080, allow_changes=True), method)[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9090", "https://127.0.0.1.evil.example"]
)
def test_another_site_may_change_nothing_even_where_changes_are_allowed(origin):
    access = Access("127.0.0.1", 8080, allow_changes=True)
    assert answer_of(access, "POST", origin=origin)[0] == 403
    assert answer_of(access, "POST", origin="http://127.0.0.1:8080")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.0.7", "", None, "[", "::::"),
        *("evil.com@127.0.0.1", "127.0.0.1@evil.com", "127.0.0.1/evil", "127.0.0.1:8080/evil", "127.0.0.1?evil.com"),
        *("127.0.0.1#evil.com", "127.0.0.1\\evil.com", "127.0.0.1, evil.com", "127.0.0.1 evil.com", "127.0.0.1:80a"),
        *("evil.com:80@127.0.0.1:8080", "[::1]evil.com", "[::1", "[evil.com]", "localhost\x00.evil.com", "127.0.0.1\n"),
    ],
)
def test_a_request_to_another_name_is_refused_whatever_it_wants(host):
    for path in ("/", "/api/studies", "/artifacts/1/1/ab", "/static/bundle.js"):
        status, _, body = answer_of(HERE, path=path, host=host)
        assert (status, SECRET in body) == (421, False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1234", "[::1]", "[::1]:8080"])
def test_the_names_of_this_machine_for_itself_are_known_with_any_port(host):
    assert answer_of(HERE, host=host)[0] == 200


def test_the_name_that_it_listens_on_is_known():
    access = Access("gpu-3.lab", 8080, token=TOKEN)
    assert answer_of(access, host="gpu-3.lab:8080", authorization=f"Bearer {TOKEN}")[0] == 200
    assert answer_of(access, host="gpu-4.lab:8080", authorization=f"Bearer {TOKEN}")[0] == 421


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        ("http://127.0.0.1:8080/dashboard", "127.0.0.1:8080", 200),
        ("HTTP://localhost", None, 200),
        ("http://[::1]:8080/dashboard", "evil.example", 200),
        ("http://evil.example/dashboard", "127.0.0.1:8080", 421),
        ("http://127.0.0.1@evil.example/dashboard", "127.0.0.1:8080", 421),
        ("http://127.0.0.1:8080@evil.example/dashboard", "127.0.0.1:8080", 421),
        ("http:///dashboard", "127.0.0.1:8080", 421),
    ],
)
def test_the_host_of_an_address_in_absolute_form_counts_and_not_the_header_beside_it(address, host, status):
    assert answer_of(HERE, host=host, address=address)[0] == status


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_listening_everywhere_it_is_known_by_address_and_by_this_machines_name_only(everywhere):
    access = Access(everywhere, 8080, token=TOKEN)
    for host, status in {
        "192.168.0.7:8080": 200,
        "[fe80::1]:8080": 200,
        f"{socket.gethostname()}:8080": 200,
        "evil.example": 421,
    }.items():
        assert answer_of(access, host=host, authorization=f"Bearer {TOKEN}")[0] == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer 0123456789abcdeX"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer "},
        {"cookie": f"face3d_tune_9090={TOKEN}"},
        {"cookie": "face3d_tune_8080="},
        {"cookie": "=;;\x00="},
        {"query": "token=wrong"},
        {"query": "token=%ff%fe"},
    ],
)
def test_without_the_token_nothing_is_shown(headers):
    status, _, body = answer_of(Access("127.0.0.1", 8080, token=TOKEN), **headers)
    assert (status, SECRET in body, TOKEN in body.decode()) == (401, False, False)


@pytest.mark.parametrize(
    "odd",
    ["a b=1", '{"a": 1}=x', "theme=é\xff", 'j={"open": true, "x": [1, 2]}', "=", 'k="unclosed', "a[0]=b", ",", "ä"],
)
def test_a_cookie_of_another_program_on_this_host_does_not_lock_the_browser_out(odd):
    access, ours = Access("127.0.0.1", 8080, token=TOKEN), f"face3d_tune_8080={TOKEN}"
    for cookies in (f"{odd}; {ours}", f"{ours}; {odd}", f"face3d_tune_8080=earlier; {odd}; {ours}"):
        assert answer_of(access, cookie=cookies)[::2] == (200, SECRET), cookies


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read_and_leaves_the_address():
    access = Access("127.0.0.1", 8080, token=TOKEN)
    status, headers, body = answer_of(access, path="/dashboard/studies/1", query=f"token={TOKEN}&a=b%20c")
    assert (status, headers["Location"], SECRET in body) == (303, "/dashboard/studies/1?a=b+c", False)
    cookie, *flags = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(flags)
    assert answer_of(access, cookie=f"other=1; {cookie}")[0] == 200


@pytest.mark.parametrize(("token", "set_again"), [(TOKEN, True), ("fedcba9876543210", False), ("", False)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_token_leaves_the_address_also_of_a_browser_that_has_the_cookie(method, token, set_again):
    access, cookie = Access("127.0.0.1", 8080, token=TOKEN), f"face3d_tune_8080={TOKEN}"
    status, headers, _ = answer_of(access, method, "/dashboard", query=f"token={token}&a=b", cookie=cookie)
    assert (status, headers["Location"], "Set-Cookie" in headers) == (303, "/dashboard?a=b", set_again)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ({}, "This dashboard needs a token"),
        ({"query": "token=wrong"}, "This token is not the right one"),
        ({"query": "token="}, "This token is not the right one"),
        ({"cookie": "face3d_tune_8080=earlier"}, "This token is not the right one"),
    ],
)
def test_without_the_right_token_a_person_gets_a_page_to_type_it_and_a_program_json(shown, said):
    access = Access("127.0.0.1", 8080, token=TOKEN)
    status, headers, body = answer_of(access, accept="text/html,application/xhtml+xml,*/*;q=0.8", **shown)
    assert (status, headers["Content-Type"]) == (401, "text/html; charset=utf-8")
    page = body.decode()
    assert f"<h1>{said}</h1>" in page
    assert re.search(r"[Oo]pen the address that <code>face3d-tune dashboard</code> printed", page)
    assert '<form action="/">' in page
    assert "script" not in page
    assert headers["Content-Security-Policy"] == f"default-src 'none'; style-src 'unsafe-inline'; {POLICY}"
    assert headers["Cache-Control"] == "no-store"
    for accept in ("*/*", "application/json", None):
        status, headers, body = answer_of(access, accept=accept, **shown)
        assert (status, headers["Content-Type"]) == (401, "application/json")
        assert "it ends in `?token=…`" in json.loads(body)["reason"]


def test_a_name_that_is_not_ours_is_shown_as_text():
    _, _, body = answer_of(Access("<b>", 1), host="evil.example", accept="text/html")
    assert b"<h1>Another name was expected</h1>" in body
    assert b"&#x27;evil.example&#x27;" in body


def test_an_address_with_a_token_does_not_lead_to_another_site():
    _, headers, _ = answer_of(Access("127.0.0.1", 8080, token=TOKEN), path="//evil.example/", query=f"token={TOKEN}")
    assert not headers["Location"].startswith("//")


def test_a_script_may_show_the_token_as_bearer():
    assert answer_of(Access("127.0.0.1", 8080, token=TOKEN), authorization=f"Bearer {TOKEN}")[::2] == (200, SECRET)


def test_a_token_does_not_allow_changes():
    access = Access("127.0.0.1", 8080, token=TOKEN)
    assert answer_of(access, "DELETE", authorization=f"Bearer {TOKEN}")[0] == 403


@pytest.mark.parametrize("path", ["/dashboard", "/api/studies", "/artifacts/1/1/ab"])
def test_no_answer_may_be_framed_sniffed_or_read_by_another_site(path):
    _, headers, _ = answer_of(HERE, path=path, gives={"access-control-allow-origin": "*", "content-type": "text/plain"})
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/api/studies", "/csv/1", "/artifacts/1/1/ab"])
def test_a_browser_keeps_nothing_of_a_study_for_the_next_person_at_the_machine(path):
    assert answer_of(HERE, path=path)[1]["Cache-Control"] == "no-store"
    assert "Cache-Control" not in answer_of(HERE, path="/static/bundle.js")[1]


@pytest.mark.parametrize("own", [None, "script-src 'self'"])
def test_a_page_may_be_framed_by_none_send_forms_home_only_and_have_no_other_base(own):
    _, headers, _ = answer_of(HERE, gives={"Content-Security-Policy": own} if own else {})
    assert headers["Content-Security-Policy"] == (f"{own}; {POLICY}" if own else POLICY)


@pytest.mark.parametrize("kind", ["image/png", "text/plain", "text/csv; charset=utf-8", "IMAGE/JPEG"])
def test_pictures_texts_and_tables_are_shown(kind):
    _, headers, _ = answer_of(HERE, path="/artifacts/1/1/ab", gives={"Content-Type": kind})
    assert headers["Content-Type"] == kind
    assert "Content-Disposition" not in headers
    assert headers["Content-Security-Policy"] == f"sandbox; default-src 'none'; {POLICY}"


@pytest.mark.parametrize(
    "kind", ["text/html", "image/svg+xml", "text/javascript", "application/xhtml+xml", "text/xml", ""]
)
def test_every_other_artifact_is_a_download_of_no_kind(kind):
    _, headers, _ = answer_of(HERE, path="/artifacts/1/1/ab", gives={"Content-Type": kind})
    assert (headers["Content-Type"], headers["Content-Disposition"]) == ("application/octet-stream", "attachment")


def test_a_picture_that_we_drew_is_shown_and_may_do_nothing_but_have_colours():
    _, headers, _ = answer_of(HERE, path="/artifacts/1/1/ab", gives={"Content-Type": "image/svg+xml"}, drawn=True)
    assert headers["Content-Type"] == "image/svg+xml"
    assert headers["Content-Security-Policy"] == f"sandbox; default-src 'none'; style-src 'unsafe-inline'; {POLICY}"


def test_no_visitor_can_say_that_we_drew_a_picture():
    _, headers, _ = answer_of(HERE, path="/artifacts/1/1/ab", gives={"Content-Type": "image/svg+xml"}, **{DRAWN: "1"})
    assert headers["Content-Type"] == "application/octet-stream"


def test_the_pages_own_scripts_keep_their_kind():
    _, headers, _ = answer_of(HERE, path="/static/bundle.js", gives={"Content-Type": "text/javascript"})
    assert headers["Content-Type"] == "text/javascript"


def test_whether_it_is_well_is_told_to_anybody_and_nothing_else():
    access = Access("0.0.0.0", 8080, token=TOKEN)
    status, _, body = answer_of(access, path=HEALTH, host="10.1.2.3.probe")
    assert (status, json.loads(body)) == (200, {"status": "ok"})


def test_it_is_not_well_while_the_storage_is_away():
    def away():
        raise ConnectionError("postgresql://me:tops3cret@db")

    status, _, body = answer_of(HERE, path=HEALTH, check=away)
    assert (status, json.loads(body)) == (503, {"status": "ConnectionError"})


def behind_proxy(*urls):
    return Access("127.0.0.1", 8080, True, TOKEN, tuple(map(Public.parse, urls)))


def test_behind_a_proxy_that_keeps_the_host_header_it_goes_by_its_public_names():
    access = behind_proxy("https://Tune.example.org", "http://gpu.lab:8443/", "https://[2001:db8::7]")
    bearer = f"Bearer {TOKEN}"
    for host in ("tune.example.org", "tune.example.org:443", "gpu.lab:8443", "[2001:db8::7]", "127.0.0.1:8080"):
        assert answer_of(access, host=host, authorization=bearer)[0] == 200, host
    for host in ("example.org", "tune.example.org.evil.example", "evil.example", "x.tune.example.org"):
        assert answer_of(access, host=host, authorization=bearer)[0] == 421, host


@pytest.mark.parametrize("host", ["tune.example.org", "127.0.0.1:8080"])  # a proxy keeps the Host header, or does not
def test_a_page_under_the_public_name_may_change_something_and_other_programs_of_that_host_may_not(host):
    access = behind_proxy("https://tune.example.org:443")
    for origin, status in {
        "https://tune.example.org": 200,
        "https://tune.example.org:9090": 403,
        "https://evil.example": 403,
        "null": 403,
    }.items():
        asked = {"host": host, "origin": origin, "authorization": f"Bearer {TOKEN}"}
        assert answer_of(access, "POST", **asked)[0] == status, origin


@pytest.mark.parametrize(
    "typed",
    [
        *("tune.example.org", "ftp://tune.example.org", "https://", "https://tune.example.org/face3d", "https://a b"),
        *(
            "https://me@tune.example.org",
            "https://tune.example.org?x",
            "https://tune.example.org/#x",
            "",
            "https://[x]",
        ),
    ],
)
def test_a_public_address_is_a_scheme_and_a_name_and_nothing_else(typed):
    with pytest.raises(ConfigError, match="expected https://NAME, without a path"):
        Public.parse(typed)


def test_only_loopback_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "gpu-3.lab", "", "localhost.evil.example")))
