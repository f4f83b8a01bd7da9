"""Where studies live: which URLs are understood, what a broken database says, who may search, and no passwords."""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import optuna
import psycopg
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from stored import query, write

import face3d_tune
from face3d_tune.errors import NoStudiesError, StorageError
from face3d_tune.storage import few_round_trips, server_lock
from face3d_tune.storage.database import Storage
from face3d_tune.storage.failures import reason_of
from face3d_tune.storage.server_lock import one_at_a_time

PASSWORD = "tops3cret/&é"
QUOTED = "tops3cret%2F%26%C3%A9"

HOLDER = """
import sys, time
from face3d_tune.storage.database import Storage
with Storage.parse(sys.argv[1]).searching():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["sqlite_url", "postgres_url"], ids=["sqlite", "postgres"])
def storage_url(request):
    """Each kind of storage in turn, with nothing in it."""
    return request.getfixturevalue(request.param)


def error_of(action):
    with pytest.raises(StorageError) as caught:
        action()
    return caught.value


def open_and_close(url, *, create=False):
    with Storage.parse(url).opened(create=create):
        pass


def delete_a_study(url):
    with Storage.parse(url).opened() as opened:
        opened.delete_study(1)


def search_and_end(url):
    with Storage.parse(url).searching():
        pass


def url_of(path):
    return f"sqlite:///{path.as_posix()}"


@contextmanager
def held_by_another_process(url):
    """Another process holds the right to search until the block ends; yields that process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(face3d_tune.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# URLs


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_way_to_say_postgresql_means_the_driver_that_is_installed(scheme):
    place = Storage.parse(f"{scheme}://me:{QUOTED}@db.example:5433/studies")
    assert place.url.drivername == "postgresql+psycopg"
    assert (place.url.username, place.url.password) == ("me", PASSWORD)
    assert (place.url.host, place.url.port, place.url.database) == ("db.example", 5433, "studies")
    assert place.sqlite_file is None


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("sqlite:///face3d_tune.db", "face3d_tune.db"),
        ("sqlite:////data/a b.db", "/data/a b.db"),
        ("sqlite:///C:/data/x.db", "C:/data/x.db"),
        ("  sqlite:///结果.db\n", "结果.db"),
    ],
)
def test_a_sqlite_url_names_a_file(text, file):
    place = Storage.parse(text)
    assert place.sqlite_file == Path(file)
    assert str(place) == text.strip()


@pytest.mark.parametrize("text", ["nonsense", "", "face3d_tune.db", "postgresql://me:x@host:port/db"])
def test_text_that_is_no_url_is_refused_with_the_two_forms_that_work(text):
    error = error_of(lambda: Storage.parse(text))
    assert error.message == "the storage is not a database URL"
    assert error.hint == "use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"


@pytest.mark.parametrize("kind", ["mysql", "mysql+pymysql", "redis", "postgresql2"])
def test_another_kind_of_database_is_refused_by_its_name_alone(kind):
    error = error_of(lambda: Storage.parse(f"{kind}://me:{QUOTED}@host/db"))
    assert error.message == f"storage {kind!r} is not supported"


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused_since_studies_would_be_lost(text):
    assert error_of(lambda: Storage.parse(text)).message == f"storage {text} is in memory: its studies would be lost"


# Passwords


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{QUOTED}@127.0.0.1:9/db",
        f"postgresql://me@127.0.0.1:9/db?password={QUOTED}",
        f"postgresql://me@127.0.0.1:9/db?sslmode=prefer&sslpassword={QUOTED}",
    ],
)
def test_no_text_about_a_storage_shows_its_password(url):
    place = Storage.parse(url)
    refused = error_of(lambda: open_and_close(url))  # nothing listens on port 9
    for text in (str(place), repr(place), f"{place}", refused.message, refused.hint, str(refused), repr(refused)):
        assert "tops3cret" not in text
        assert QUOTED not in text
    assert "***" in str(place)
    assert "tops3cret" in url  # what is looked for would be found


def test_a_server_that_is_down_is_named_with_what_to_check():
    error = error_of(lambda: open_and_close(f"postgresql://me:{QUOTED}@127.0.0.1:9/db", create=True))
    assert error.message.startswith("storage postgresql+psycopg://me:***@127.0.0.1:9/db cannot be reached: ")
    assert "port 9" in error.message
    assert error.hint == "check that the server runs, and host, port, user, password and database name"


def test_a_driver_that_repeats_the_password_is_not_quoted_with_it():
    Storage.parse(f"postgresql://me:{QUOTED}@127.0.0.1:9/db?sslpassword=other5ecret")
    said = sqlalchemy.exc.OperationalError("", {}, Exception(f"bad password {PASSWORD!s} or other5ecret\nmore"))
    assert reason_of(said) == "bad password *** or ***"


def test_a_server_that_refuses_a_user_or_has_no_such_database_says_so_without_the_password(postgres_server):
    place = sqlalchemy.make_url(postgres_server.get_uri("postgres"))
    for changed, reason in (
        (place.set(database="nowhere", password=PASSWORD), 'database "nowhere" does not exist'),
        (place.set(username="nobody", password=PASSWORD), 'role "nobody" does not exist'),
    ):
        url = changed.render_as_string(hide_password=False)
        for create in (False, True):
            error = error_of(lambda url=url, create=create: open_and_close(url, create=create))
            assert "cannot be reached" in error.message
            assert reason in error.message
            assert "tops3cret" not in f"{error.message} {error.hint}"


# What is not there, or not what it should be


def test_without_create_a_missing_file_is_an_error_and_no_file_appears(tmp_path):
    error = error_of(lambda: open_and_close(url_of(tmp_path / "typo.db")))
    assert error.message == f"storage {url_of(tmp_path / 'typo.db')}: file does not exist"
    assert error.hint == "make one with `face3d-tune run`, or name another with --storage"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", [lambda url: open_and_close(url, create=True), search_and_end])
def test_a_missing_folder_is_an_error_and_is_not_made(tmp_path, action):
    error = error_of(lambda: action(url_of(tmp_path / "typo" / "studies.db")))
    assert error.message.endswith(f"folder {tmp_path / 'typo'} does not exist")
    assert error.hint == "create it first"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there a path from the root begins with a drive")
def test_three_slashes_where_four_were_meant_are_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = tmp_path.relative_to("/").as_posix()
    url = f"sqlite:///{there}/studies.db"
    meant = f"three slashes name a file from here, four name it from the root: sqlite:////{there}/studies.db"
    for create in (True, False):  # the folder is there from the root, and not from here
        assert error_of(lambda create=create: open_and_close(url, create=create)).hint == meant
    open_and_close(f"sqlite:////{there}/studies.db", create=True)
    (tmp_path / there).mkdir(parents=True)
    assert error_of(lambda: open_and_close(url)).hint == meant  # the file is
    assert error_of(lambda: open_and_close("sqlite:///studies.db/x")).hint.startswith("make one with")
    assert error_of(lambda: open_and_close("sqlite:///nowhere/x.db", create=True)).hint == "create it first"


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////", "storage sqlite://// cannot be reached: Is a directory"),
        ("sqlite:///\udcff.db", "the storage has a name that is not UTF-8, which SQLite needs"),
    ],
    ids=ascii,
)
def test_what_can_be_no_file_of_sqlite_is_refused(url, message, create):
    error = error_of(lambda: open_and_close(url, create=create))
    assert (error.message, error.hint.startswith("use sqlite:///FILE")) == (message, True)


def test_two_slashes_name_a_host_which_sqlite_does_not_know():
    error = error_of(lambda: Storage.parse("sqlite://studies.db"))
    assert error.message == "storage sqlite://studies.db: SQLite knows no hosts"
    assert error.hint.endswith("sqlite:///FILE")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("a b.db", "a b.db"),
        ("a%20b.db", "a b.db"),
        ("50%41.db", "50A.db"),
        ("100%.db", "100%.db"),
        ("what%3F.db", "what?.db"),
        ("a%2520b.db", "a%20b.db"),
        ("{a}#b.db", "{a}#b.db"),
        ("a.db?timeout=9", "a.db"),
    ],
)
def test_a_name_in_a_sqlite_url_is_read_as_in_every_url_and_the_studies_lie_there(tmp_path, monkeypatch, typed, name):
    monkeypatch.chdir(tmp_path)
    with Storage.parse(f"sqlite:///{typed}").opened(create=True) as opened:
        optuna.create_study(study_name="kept", storage=opened)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_sqlite_url_that_may_mean_two_files_is_refused_with_both_spellings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a%20b.db").touch()  # as SQLAlchemy 2.0 made it
    error = error_of(lambda: Storage.parse("sqlite:///a%20b.db"))
    assert error.message == "storage sqlite:///a%20b.db may mean two files: a b.db, and a%20b.db, which exists"
    assert error.hint == "for the first write sqlite:///a b.db, for the second sqlite:///a%2520b.db"
    assert Storage.parse("sqlite:///a b.db").sqlite_file == Path("a b.db")
    assert Storage.parse("sqlite:///a%2520b.db").sqlite_file == Path("a%20b.db")


@pytest.mark.parametrize("typed", ["what?.db", "what?", "what?mode=ro&x"])
def test_a_question_mark_without_options_is_refused_with_the_spelling_for_a_name(typed):
    error = error_of(lambda: Storage.parse(f"sqlite:///{typed}"))
    assert "options follow a question mark" in error.message
    assert error.hint.endswith(f"write %3F: sqlite:///{typed.replace('?', '%3F')}")


@pytest.mark.parametrize("name", ["x" * 300, "a%00b"])
def test_a_file_name_that_no_system_takes_is_an_error(name):
    assert "cannot be reached: " in error_of(lambda: Storage.parse(f"sqlite:///{name}")).message


@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database_is_said_to_be_none_and_left_alone(tmp_path, create):
    path = tmp_path / "notes.db"
    path.write_text("my notes, " * 200, encoding="utf-8")
    error = error_of(lambda: open_and_close(url_of(path), create=create))
    assert error.message == f"storage {url_of(path)} cannot be used: file is not a database"
    assert path.read_text(encoding="utf-8") == "my notes, " * 200


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path):
    (tmp_path / "studies.db").mkdir()
    url = url_of(tmp_path / "studies.db")
    assert error_of(lambda: open_and_close(url)).message == f"storage {url} cannot be reached: Is a directory"
    assert error_of(lambda: open_and_close("sqlite:////")).message.endswith("cannot be reached: Is a directory")


def test_a_file_that_may_not_be_written_is_an_error(tmp_path, monkeypatch):
    # As root no permission stops a write, so SQLite itself is asked to open the file for reading only.
    url = url_of(tmp_path / "studies.db")
    open_and_close(url, create=True)
    read_only = Storage(sqlalchemy.make_url(f"sqlite:///file:{(tmp_path / 'studies.db').as_posix()}?mode=ro&uri=true"))
    monkeypatch.setattr(Storage, "sqlite_file", property(lambda self: tmp_path / "studies.db"))
    error = error_of(lambda: create_a_study(read_only))
    assert "failed: attempt to write a readonly database" in error.message
    assert error.hint == "check the path, and that the file and its folder may be written"


def create_a_study(place):
    with place.opened(create=True) as storage:
        optuna.create_study(storage=storage, study_name="s")


def test_a_lock_that_may_not_be_written_is_an_error(tmp_path):
    (tmp_path / "studies.db.lock").mkdir()
    error = error_of(lambda: search_and_end(url_of(tmp_path / "studies.db")))
    assert f"cannot write {tmp_path / 'studies.db.lock'}" in error.message


def test_a_database_of_something_else_holds_no_studies_and_gets_none(tmp_path):
    url = url_of(tmp_path / "other.db")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table flowers (name text)"))
    error = error_of(lambda: open_and_close(url))
    assert (type(error), error.message) == (NoStudiesError, f"storage {url} holds no studies")
    assert sqlalchemy.inspect(engine).get_table_names() == ["flowers"]
    engine.dispose()


def test_an_empty_database_on_a_server_holds_no_studies_and_gets_none(postgres_url):
    error = error_of(lambda: open_and_close(postgres_url))
    assert error.message == f"storage {Storage.parse(postgres_url)} holds no studies"
    engine = sqlalchemy.create_engine(Storage.parse(postgres_url).url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_database_of_another_optuna_is_refused_and_not_changed(storage_url):
    open_and_close(storage_url, create=True)
    engine = sqlalchemy.create_engine(Storage.parse(storage_url).url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update alembic_version set version_num = 'v99.0.0.a'"))
        connection.execute(sqlalchemy.text("update version_info set schema_version = 99, library_version = '99.0.0'"))
    for create in (False, True):
        error = error_of(lambda create=create: open_and_close(storage_url, create=create))
        assert error.message == f"storage {Storage.parse(storage_url)} was made by another version of Optuna"
        assert "pip install -U face3d-tune" in error.hint
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("select version_num from alembic_version")).all() == [("v99.0.0.a",)]
    engine.dispose()


def test_a_driver_that_is_not_installed_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = error_of(lambda: open_and_close("postgresql://me@127.0.0.1:9/db"))
    assert error.message == "storage postgresql+psycopg://me@127.0.0.1:9/db needs psycopg, which is not installed"
    assert error.hint == "pip install 'face3d-tune[postgres]'"


def test_a_key_that_is_missing_elsewhere_is_not_blamed_on_the_storage(sqlite_url):
    with pytest.raises(KeyError, match="elsewhere"), Storage.parse(sqlite_url).explained():
        raise KeyError("elsewhere")


def test_an_import_that_fails_during_a_search_is_not_blamed_on_the_storage(sqlite_url):
    with pytest.raises(ImportError, match="scipy"), Storage.parse(sqlite_url).opened(create=True):
        raise ImportError("No module named 'scipy'")


def test_a_database_that_fails_during_a_search_says_so_in_one_line(sqlite_url):
    def lose_a_table():
        with Storage.parse(sqlite_url).opened(create=True) as storage:
            study = optuna.create_study(storage=storage, study_name="s")
            with storage.engine.begin() as connection:
                connection.execute(sqlalchemy.text("drop table trials"))
            study.ask()

    error = error_of(lose_a_table)
    assert error.message == f"storage {sqlite_url} failed: no such table: trials"


# Opening


def test_a_storage_once_made_opens_without_create_and_keeps_its_studies(storage_url):
    with Storage.parse(storage_url).opened(create=True) as storage:
        optuna.create_study(storage=storage, study_name="kept")
    with Storage.parse(storage_url).opened() as storage:
        assert [study.study_name for study in optuna.get_all_study_summaries(storage)] == ["kept"]


def test_the_version_of_the_tables_that_optuna_makes_is_asked_once_a_process(sqlite_url, monkeypatch):
    open_and_close(sqlite_url, create=True)
    monkeypatch.setattr(RDBStorage, "get_head_version", lambda storage: pytest.fail("it runs every migration"))
    open_and_close(sqlite_url)


def test_when_a_storage_is_closed_its_connections_are_too(storage_url):
    opened, closed = [], []
    listeners = (("connect", lambda *_: opened.append(1)), ("close", lambda *_: closed.append(1)))
    for name, listener in listeners:
        sqlalchemy.event.listen(sqlalchemy.pool.Pool, name, listener)
    try:
        with Storage.parse(storage_url).opened(create=True) as storage:
            optuna.create_study(storage=storage)
        assert len(opened) == len(closed) > 0
    finally:
        for name, listener in listeners:
            sqlalchemy.event.remove(sqlalchemy.pool.Pool, name, listener)


def test_many_who_open_one_empty_server_at_once_all_can(postgres_url):
    everyone, errors = threading.Barrier(6), []

    def open_it():
        everyone.wait()
        try:
            open_and_close(postgres_url, create=True)
        except StorageError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Who may search


def test_a_second_process_may_not_search_in_one_sqlite_file_until_the_first_is_dead(sqlite_url):
    with held_by_another_process(sqlite_url) as process:
        error = error_of(lambda: search_and_end(sqlite_url))
        who = f"process {process.pid} on {socket.gethostname()}"
        assert error.message == f"storage {sqlite_url}: another `face3d-tune run` is searching in this file ({who})"
        assert "--storage sqlite:///other.db" in error.hint
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait()
        search_and_end(sqlite_url)


@pytest.mark.parametrize(("owner", "whose"), [("alice", "alice"), (None, f"user {os.getuid()}")])
def test_a_lock_file_of_another_user_is_said_to_be_theirs(sqlite_url, monkeypatch, owner, whose):
    def refuse(path):
        path.touch()
        raise PermissionError(errno.EACCES, "Permission denied")

    def name(path):
        if owner is None:
            raise KeyError("uid not found")  # as in a container
        return owner

    monkeypatch.setattr("face3d_tune.storage.search_right.take", refuse)
    monkeypatch.setattr(Path, "owner", name)
    place = Storage.parse(sqlite_url)
    with pytest.raises(StorageError) as caught, place.searching():
        pass
    lock = f"{place.sqlite_file}.lock"
    assert caught.value.message.endswith(f": cannot write {lock}, which belongs to {whose}: Permission denied")


def test_a_search_that_ends_lets_the_next_one_in(sqlite_url):
    search_and_end(sqlite_url)
    search_and_end(sqlite_url)


def test_two_files_can_be_searched_at_once(tmp_path):
    with held_by_another_process(url_of(tmp_path / "a.db")):
        search_and_end(url_of(tmp_path / "b.db"))


def test_any_number_of_processes_may_search_on_a_server(postgres_url):
    with held_by_another_process(postgres_url):
        search_and_end(postgres_url)


def test_a_storage_can_be_read_while_another_process_searches_in_it(sqlite_url):
    open_and_close(sqlite_url, create=True)
    with held_by_another_process(sqlite_url):
        open_and_close(sqlite_url)


def test_a_block_that_one_process_of_a_server_is_in_keeps_the_others_out(postgres_url):
    engine = sqlalchemy.create_engine(Storage.parse(postgres_url).url)
    inside, order = threading.Event(), []

    def second():
        inside.wait()
        with one_at_a_time(engine):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_at_a_time(engine):
        inside.set()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    engine.dispose()
    assert order == ["first", "second"]
    assert server_lock._LOCK_KEY < 2**63  # a bigint


def test_a_storage_that_another_process_is_still_making_is_left_alone(sqlite_url):
    write(sqlite_url, "create table studies (study_id integer)")  # the first of Optuna's tables
    with pytest.raises(StorageError, match="holds no studies"), Storage.parse(sqlite_url).opened():
        pass
    # A table that a reader makes, the process that is making the storage could make no more.
    assert query(sqlite_url, "select name from sqlite_master") == [{"name": "studies"}]


def test_a_database_without_an_encoding_is_said_to_be_one_and_how_to_make_another(postgres_server):
    settings = "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0"
    postgres_server.psql(f"create database no_text {settings};")
    error = error_of(lambda: open_and_close(postgres_server.get_uri("no_text"), create=True))
    assert error.message == "database 'no_text' has the encoding SQL_ASCII, which cannot hold text"
    assert error.hint == "make one in UTF8: createdb --encoding UTF8 --template template0 NAME"


def test_a_right_that_is_missing_is_named(postgres_url, postgres_server):
    postgres_server.psql("create role weak login;")
    weak = postgres_url.replace("postgres:@", "weak:@")
    hint = (
        "its owner can grant usage, create on schema public to weak; grant all on all tables in schema public to weak; "
        "grant all on all sequences in schema public to weak"
    )
    error = error_of(lambda: open_and_close(weak, create=True))
    assert error.message == f"storage {Storage.parse(weak)} cannot be used: its user may not create tables"
    assert error.hint == hint
    open_and_close(postgres_url, create=True)
    with Storage.parse(postgres_url).opened() as opened:
        optuna.create_study(storage=opened, study_name="faces")
    error = error_of(lambda: open_and_close(weak))
    assert error.message == f"storage {Storage.parse(weak)} cannot be used: its user may not read the tables of studies"
    assert error.hint == hint
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("grant select on all tables in schema public to weak")
    error = error_of(lambda: delete_a_study(weak))
    assert error.message == f"storage {Storage.parse(weak)} failed: permission denied for table study_directions"
    assert error.hint == hint
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        for grant in hint.removeprefix("its owner can ").split("; "):
            owner.execute(grant)
    open_and_close(weak, create=True)


def test_a_connection_that_is_lost_on_its_way_back_prints_no_traceback(postgres_url, caplog):
    """The pool of SQLAlchemy writes one where the rollback fails, too."""
    with Storage.parse(postgres_url).connected() as engine:
        engine.connect().close()
        engine.pool.logger.error("Exception during reset or similar")
    assert caplog.records == []


def test_psycopg_repeats_nothing_of_a_lost_connection_and_says_all_else(postgres_url, caplog):
    open_and_close(postgres_url, create=True)
    for line in ("error ignored terminating %r: %s", "something else about %r: %s"):
        logging.getLogger("psycopg").warning(line, "a pipeline", "the connection is lost")
    assert [record.message for record in caplog.records] == [
        "something else about 'a pipeline': the connection is lost"
    ]


@pytest.mark.parametrize("rested", [False, True])
def test_a_connection_is_tried_before_its_use_only_after_a_long_rest(postgres_url, monkeypatch, rested):
    with psycopg.connect(postgres_url) as other, Storage.parse(postgres_url).connected() as engine:
        with engine.connect() as database:
            number = database.execute(sqlalchemy.text("select pg_backend_pid()")).scalar_one()
        monkeypatch.setattr(few_round_trips, "_RESTED", -1.0 if rested else 60.0)
        with engine.connect():
            (last,) = other.execute("select query from pg_stat_activity where pid = %s", [number]).fetchone()
    assert (last == "select 1") == rested


@pytest.mark.parametrize("poll", [True, False], ids=["poll", "without, as on Windows"])
def test_a_socket_that_was_closed_is_noticed_without_asking(monkeypatch, poll):
    if not poll:
        monkeypatch.delattr(few_round_trips.select, "poll")
    ours, theirs = socket.socketpair()
    with ours:
        assert not few_round_trips._readable(ours.fileno())
        theirs.close()
        assert few_round_trips._readable(ours.fileno())


def test_tables_of_another_program_with_the_names_of_ours_are_an_error_in_one_line(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("create table alembic_version (number integer)")
    error = error_of(lambda: open_and_close(postgres_url))
    assert error.message == f'storage {Storage.parse(postgres_url)} cannot be used: column "version_num" does not exist'


def test_a_server_with_some_of_the_tables_gets_the_others(postgres_url):
    """As a server has them whose other tables came from a copy that ended early."""
    open_and_close(postgres_url, create=True)
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("drop table alembic_version")
    with Storage.parse(postgres_url).opened(create=True) as opened:
        assert opened.study_names() == []
