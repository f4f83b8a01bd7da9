"""No command ever prints a password, however odd it is, wherever it was typed and whatever a driver repeats."""

import json
from urllib.parse import quote

import psutil
import psycopg
import pytest
from command_line import call

from face3d_tune.cli.main import COMMANDS

# Twenty passwords with what stands between their halves; no half may be seen.
HALVES = ("tops3cret", "w0rdtail")
BETWEEN = ["@", "@@", ":", "/", "?", "#", "&", "%", "%40", "=", "+", '"', "'", "\\", "[", "]", "$", "é", "://"]
BETWEEN.append("@host:5432/")
PASSWORDS = [HALVES[0] + each + HALVES[1] for each in BETWEEN]

# Every command, with words that lead it to its storage. {} is the URL, where it is no option.
LINES = {
    "run": "run --study quick.toml --data-dir data --json",
    "run, like": "run --study quick.toml --data-dir data --like {}",
    "watch": "watch",
    "status": "status --json",
    "confirm": "confirm",
    "dashboard": "dashboard --no-browser",
    "report": "report",
    "report, second": "report quick {}",
    "export": "export --format json",
    "train": "train --data-dir data",
    "judge": "judge --part test --data-dir data",
    "import": "import nowhere.pth --data-dir data",
    "doctor": "doctor --json --data-dir data",
    "try": "try lr=0.001",
    "stop": "stop",
    "exclude": "exclude 0",
    "copy": "copy {} sqlite:///new.db",
    "copy, second": "copy sqlite:///empty.db {}",
}
NOTIFY = ("run --study quick.toml --data-dir data --notify {}", "doctor --data-dir data --json --notify {}", "run {}")
ELSEWHERE = (  # where a URL does not belong
    "status {}",
    "presets {}",
    "completion {}",
    "data check {}",
    "data sample {}",
    "export --study-name {}",
    "export --script {}",
    "export --storage sqlite:///empty.db --trial {}",
    "report -o {}",
    "run --study {}",
    "run --trials {}",
    "run --data-dir {}",
    "run --device {}",
    "run --study quick.toml --data-dir data --artifacts {}",
    "import {}",
    "train --out {}",
    "train --preset {}",
    "{}",
)


@pytest.fixture
def place(tmp_path, data_folder, quick_study):
    """A folder with data and a study file; whatever connects is answered with all that it was given."""
    (tmp_path / "data").symlink_to(data_folder)
    return tmp_path


@pytest.fixture(autouse=True)
def a_driver_that_repeats_everything(monkeypatch):
    def connect(*args, **given):
        raise psycopg.OperationalError(f"connection failed: {args} {given}\nsecond line: {given.get('password')}")

    monkeypatch.setattr(psycopg.Connection, "connect", connect)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 0.0)  # doctor watches the cores for a moment


def check_nothing_shown(answer, words):
    for shown in (answer.out, answer.err):
        assert not any(half in shown for half in HALVES), (words, shown)


def ways(password):
    """The URL as a person types it, as it should be, and with the password in its query."""
    whole = quote(password, safe="")
    yield f"postgresql://me:{password}@127.0.0.1:9/db"
    yield f"postgresql://me:{whole}@127.0.0.1:9/db"
    yield f"postgresql://me@127.0.0.1:9/db?PASSWORD={whole}"


def words_for(line, url):
    words = [word.replace("{}", url) for word in line.split()]
    return words if "{}" in line else [*words, "--storage", url]


def test_the_lines_name_every_command_that_takes_a_storage():
    assert len(PASSWORDS) == len(set(PASSWORDS)) == 20
    without = {"presets", "data", "completion", "predict", "script"}
    assert {line.split()[0] for line in LINES.values()} == {command.name for command in COMMANDS} - without


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_command_that_cannot_reach_its_storage_shows_no_part_of_the_password(place, line):
    for number, password in enumerate(PASSWORDS):
        url = list(ways(password))[number % 3 if line.startswith(("run", "doctor", "train")) else 0]
        words = words_for(line, url)
        answer = call(*words, *(["--debug"] if number % 2 else []), cwd=place)
        check_nothing_shown(answer, words)
        assert answer.code in (1, 2), words
        assert "unexpected" not in answer.err


def test_no_part_of_any_password_in_any_place_of_a_url_is_shown(place):
    for number, password in enumerate(PASSWORDS):
        whole, debug = quote(password, safe=""), ["--debug"] if number % 2 else []
        more = [f"postgresql://me@127.0.0.1:9/db?{key}={whole}" for key in ("password", "sslpassword", "pasword")]
        more += [f"sqlite://me:{password}@host/x.db", f"mysql://me:{password}@host/db", f"me:{password}@host"]
        for url in (*ways(password), *more, f"postgresql://me/x:{password}@host/db"):
            typed = call("status", "--storage", url, *debug, cwd=place)
            check_nothing_shown(typed, url)
            assert typed.code == 2, url
            if url not in more:
                check_nothing_shown(call("status", *debug, cwd=place, FACE3D_TUNE_STORAGE=url), url)


@pytest.mark.parametrize("line", ELSEWHERE)
def test_a_url_that_was_typed_in_the_wrong_place_is_shown_without_its_password(place, line):
    for password in PASSWORDS:
        for url in list(ways(password))[:2]:
            words = words_for(line, url)
            answer = call(*words, "--debug", cwd=place)
            check_nothing_shown(answer, words)
            assert answer.code == 2, (words, answer.err)


@pytest.mark.parametrize("line", NOTIFY)
@pytest.mark.parametrize("form", ["nonsense://{}", "json://127.0.0.1:9/{}", "dingtalk://{}", "mailtos://me:{}@host:x"])
def test_no_part_of_the_url_of_a_service_is_shown_whether_it_can_be_told_or_not(place, line, form):
    url = form.replace("{}", "".join(HALVES) if "@" in form else "/".join(HALVES))
    variables = {"FACE3D_TUNE_NOTIFY": url} if "notify" in line else {}
    unreachable = ["--storage", "postgresql://127.0.0.1:9/db"]
    for words in (line.replace("{}", url).split(), line.partition(" --notify")[0].replace("{}", url).split()):
        answer = call(*words, *unreachable, "--debug", cwd=place, **variables)
        check_nothing_shown(answer, words)
        assert answer.code in (1, 2), (words, answer.err)
        assert "error: unexpected" not in answer.err


def test_a_password_in_a_variable_of_libpq_or_of_s3_is_not_shown_either(place, monkeypatch):
    def connect(**given):
        raise psycopg.OperationalError(f"tried {PASSWORDS[0]} and key9876543210")

    monkeypatch.setattr(psycopg.Connection, "connect", connect)
    for debug in ([], ["--debug"]):
        answer = call(
            *("status", "--storage", "postgresql://me@127.0.0.1:9/db", *debug),
            cwd=place,
            PGPASSWORD=PASSWORDS[0],
            AWS_SECRET_ACCESS_KEY="key9876543210",
        )
        check_nothing_shown(answer, debug)
        assert "tried *** and ***" in answer.err


def test_credentials_in_a_bucket_s_url_are_refused_and_not_shown(place):
    for password in PASSWORDS:
        url = f"s3://AKIA1234:{password}@bucket/prefix"
        for line in ("run --study quick.toml --data-dir data", "dashboard --no-browser"):
            answer = call(*line.split(), "--artifacts", url, cwd=place)
            check_nothing_shown(answer, url)
            assert "artifacts s3://AKIA1234:***@bucket/prefix: neither credentials nor options" in answer.err
        found = json.loads(call("doctor", "--json", "--data-dir", "data", "--artifacts", url, cwd=place).out)
        assert not any(half in str(found) for half in HALVES)


def test_the_hint_says_how_to_encode_it(place):
    answer = call("status", "--storage", "postgresql://u:p@ssw0rd@host/db", cwd=place)
    assert answer.err.splitlines() == [
        "error: storage postgresql://u:***@host/db: the password is not encoded, so it is unclear where it ends",
        "hint: write @ in it as %40, : as %3A, / as %2F, ? as %3F; or omit it and set PGPASSWORD",
    ]


def test_a_user_whose_password_is_his_name_still_reads_what_is_wrong(place, monkeypatch):
    def connect(**given):
        raise psycopg.OperationalError('FATAL: role "postgres" does not exist')

    monkeypatch.setattr(psycopg.Connection, "connect", connect)
    answer = call("status", "--storage", "postgresql://postgres:postgres@127.0.0.1/postgres", cwd=place)
    assert answer.err.startswith(
        "error: storage postgresql+psycopg://postgres:***@127.0.0.1/postgres cannot be reached: "
        'FATAL: role "postgres" does not exist\n'
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_tab_key_shows_no_password(place, shell):
    for url in ways(PASSWORDS[0]):
        environment = {"_FACE3D_TUNE_COMPLETE": f"{shell}_complete", "COMP_CWORD": "3", "FACE3D_TUNE_STORAGE": url}
        environment["COMP_WORDS"] = "face3d-tune status --study-name "
        check_nothing_shown(call(cwd=place, **environment), url)
