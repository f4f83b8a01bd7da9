"""Messages to services: a real server takes them, and one that hangs or fails holds up nothing and shows no token."""

import importlib
import json
import time

import pytest
from command_line import call
from webhook import PATIENCE, Server

from face3d_tune.errors import ConfigError
from face3d_tune.search.notifier import Message, Notifier, Service
from face3d_tune.system.safe_text import forget, redact

MESSAGE = Message("a title", ("line 1", "line 2"), "success")


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()
    forget()


def tell(notifier, *messages):
    for message in messages:
        notifier.tell(message)
    notifier.close(PATIENCE)


@pytest.mark.parametrize("scheme", ["json", "http"])
def test_a_webhook_gets_the_message_as_json(server, scheme):
    notes = []
    tell(Notifier([server.url("hook", scheme)], notes.append), MESSAGE)
    ((path, got),) = server.got
    assert path == "/hook"
    assert (got["title"], got["message"], got["type"]) == ("a title", "line 1\nline 2", "success")
    assert notes == []


def test_a_service_that_fails_is_named_once_without_its_token(server):
    notes = []
    tell(Notifier([server.url("fails/t0ken1234"), server.url("taken")], notes.append), MESSAGE, MESSAGE, MESSAGE)
    assert sorted(path for path, _ in server.got) == ["/fails/t0ken1234"] * 3 + ["/taken"] * 3
    (note,) = notes
    assert note.startswith("--notify json://*** failed: Failed to send JSON")
    assert "500" in note
    assert "t0ken1234" not in note


def test_a_service_that_hangs_holds_up_no_other_and_is_waited_for_once(server):
    notes = []
    notifier = Notifier([server.url("hangs/t0ken1234"), server.url("taken")], notes.append)
    began = time.monotonic()
    for _ in range(40):
        notifier.tell(MESSAGE)
    assert time.monotonic() - began < PATIENCE / 2, "to tell waits for nothing"
    while sum(path == "/taken" for path, _ in server.got) < 20:
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.001)
    notifier.close(0.01)
    assert notes[0] == "--notify json://*** failed: it takes no messages"
    assert len(notes) <= 2, "once for each service"


def test_nothing_listens():
    notes = []
    tell(Notifier(["json://127.0.0.1:9/t0ken1234"], notes.append), MESSAGE)
    assert notes == ["--notify json://*** failed: A Connection error occurred sending JSON notification to 127.0.0.1."]
    forget()


@pytest.mark.parametrize(
    ("url", "plugin"),
    [
        ("mailtos://me:password@gmail.com?to=you@example.org", "NotifyEmail"),
        ("dingtalk://abcdef123456", "NotifyDingTalk"),
        ("https://oapi.dingtalk.com/robot/send?access_token=abcdef123456", "NotifyDingTalk"),
        ("feishu://abcdef12-3456-7890-abcd-ef1234567890", "NotifyFeishu"),
        ("https://open.feishu.cn/open-apis/bot/v2/hook/abcdef12-3456-7890-abcd-ef1234567890", "NotifyFeishu"),
        ("wecombot://693a91f6-7aaa-4bc4-97a0-0ec2sifa5aaa", "NotifyWeComBot"),
        ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=693a91f6-7aaa-4bc4-97a0-0ec2sifa5aaa", "NotifyWeComBot"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "NotifySlack"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "NotifySlack"),
        ("tgram://123456789:ABCdefghijklmnop/12315544", "NotifyTelegram"),
        ("https://example.org/hook", "NotifyJSON"),
    ],
)
def test_every_service_of_the_documentation_is_known(url, plugin):
    service = Service(url)
    assert type(service._sender).__name__ == plugin
    assert service.name == f"{url.partition('://')[0]}://***"
    forget()


@pytest.mark.parametrize("url", ["nonsense://t0ken1234", "json://", "t0ken1234", ""])
def test_what_is_no_url_of_a_service_is_refused_without_showing_it(url):
    with pytest.raises(
        ConfigError, match=r"^--notify (nonsense://\*\*\*|json://\*\*\*|\*\*\*) is not the URL of a serv"
    ):
        Service(url)
    forget()


def test_without_apprise_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    whole = importlib.import_module

    def without(name):
        if name == "apprise":
            raise ImportError(name)
        return whole(name)

    monkeypatch.setattr("face3d_tune.search.notifier.import_module", without)
    answer = call("run", "--notify", "json://127.0.0.1:9/t0ken1234", cwd=tmp_path)
    assert (answer.code, answer.err) == (
        2,
        "error: --notify needs apprise\nhint: pip install 'face3d-tune[notify]'\n",
    )


@pytest.mark.parametrize(
    ("url", "hidden", "shown"),
    [
        ("json://127.0.0.1:8080/t0ken1234/hook?key=v4lue", ["t0ken1234", "v4lue"], ["127.0.0.1", "hook"]),
        ("dingtalk://s3cret12@t0ken1234/13800000000", ["s3cret12", "t0ken1234", "13800000000"], []),
        ("mailtos://someone:pa55@gmail.com", ["pa55"], ["gmail.com"]),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajk/#general", ["T1JJ3T3L2", "A1BRTD4JD", "TIiajk"], ["general"]),
        ("tgram://123456789:ABCdef/12315544", ["123456789", "ABCdef", "12315544"], []),
    ],
)
def test_no_part_of_a_url_that_may_be_a_token_is_printed(url, hidden, shown):
    Service(url)
    said = redact(f"cannot reach {url}; " + "; ".join([*hidden, *shown]))
    assert not any(each in said for each in hidden)
    assert all(each in said for each in shown)
    forget()


def test_the_doctor_sends_a_test_message_and_says_whether_it_was_taken(server, tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 0.0)
    words = ("doctor", "--json", "--notify", server.url("taken"))
    found = json.loads(call(*words, cwd=tmp_path).out)
    assert found[-1] == {"name": "notify", "level": "ok", "said": "taken by json://***", "advice": None}
    ((_, got),) = server.got
    assert got["title"] == "face3d-tune: test message"
    answer = call("doctor", cwd=tmp_path, FACE3D_TUNE_NOTIFY=f"{server.url('taken')} {server.url('fails/t0ken1234')}")
    assert answer.code == 1
    assert "problem  notify     --notify json://*** failed: Failed to send JSON" in answer.out
    assert "t0ken1234" not in answer.out + answer.err
