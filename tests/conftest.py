"""What tests share: small data, a quick study file, real storages. Everything is made in temporary folders.

What takes long to load is imported by the fixtures that need it: the process that shares out the tests needs none.
"""

import os
import shutil
from pathlib import Path

import blas  # noqa: F401 - before NumPy is loaded
import garbage
import memory
import pytest
from chromium import BROWSERS, QUIET, executable
from shared_out import SharedOut

QUICK_STUDY = """
[study]
description = "A search of seconds, for tests"
presets = ["baseline", "recommended", "aggressive", "conservative", "quickstart"]

[budget]
trials = 6
epochs = 2

[sampler]
name = "tpe"
multivariate = true
constant_liar = true
n_startup_trials = 5

[pruner]
name = "none"

[fixed]
batch_size = 8
nhead = 2
num_layers = 1
early_stopping_patience = 15
use_mixed_precision = true

[space]
lr = { low = 1e-5, high = 3e-3, scale = "log" }
cosine_weight = { low = 0.3, high = 1.0 }
scheduler_min_lr = { low = 1e-8, high = 1e-5, scale = "log" }
dropout = { low = 0.0, high = 0.5 }
use_pose_attention = [false, true]
pose_unit = ["degrees", "radians"]
"""


ROOT = Path(__file__).parent
BUCKET = "checkpoints"  # of the S3 that imitates one


def pytest_configure(config):
    memory.use()
    config.pluginmanager.register(garbage)
    if not hasattr(config, "workerinput"):  # it is no worker
        config.pluginmanager.register(SharedOut())


def pytest_collection_modifyitems(items):
    """Say which tests are quick."""
    slow = {ROOT / "integration", ROOT / "browser"}
    for item in items:
        if item.path.parent not in slow and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)  # threads that spin for each other make small models slower, not faster


@pytest.fixture(scope="session", autouse=True)
def _in_this_process():
    """Starting other processes costs seconds a search; tests that are about them ask for the batched engine.

    Nor is anything kept of trials, but where that is what a test is about.
    """
    os.environ["PYTHONPATH"] = str(ROOT.parent)  # what other processes load is what is tested here
    os.environ["FACE3D_TUNE_ENGINE"] = "plain"
    os.environ["FACE3D_TUNE_ARTIFACTS"] = "none"
    os.environ["FACE3D_TUNE_LANG"] = "en"  # whoever runs the tests


@pytest.fixture(scope="session", autouse=True)
def _new_studies_in_no_time():
    from searches import in_no_time

    with in_no_time():
        yield


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Six small files: 12 people with 6 views each, 16 numbers per embedding. Do not write into it."""
    from fake_data import write_data

    return write_data(tmp_path_factory.mktemp("data") / "files")


@pytest.fixture(scope="session")
def data(data_folder):
    from face3d_tune.data import face_data

    return face_data.load(data_folder)


@pytest.fixture(scope="session")
def few_people(tmp_path_factory):
    """Data for many short trainings: an epoch of the five who train has three batches of eight, and a pair is left."""
    from fake_data import write_data

    from face3d_tune.data import face_data

    return face_data.load(write_data(tmp_path_factory.mktemp("few") / "files", people=9, views=5))


@pytest.fixture
def quick_study(tmp_path) -> Path:
    """A study file whose trials take a second."""
    path = tmp_path / "quick.toml"
    path.write_text(QUICK_STUDY, encoding="utf-8")
    return path


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    return f"sqlite:///{(tmp_path / 'studies.db').as_posix()}"


@pytest.fixture(scope="session")
def postgres_server():
    """A real PostgreSQL that ends with the tests."""
    from servers import server

    with server() as started:
        yield started


@pytest.fixture(scope="session")
def own_server():
    """Another one, with few connections, which a test may stop, fill and restart."""
    from servers import server

    with server("max_connections = 12") as started:
        yield started


@pytest.fixture
def postgres_url(postgres_server) -> str:
    """An empty database of its own, as a user would type it."""
    return postgres_server.new_database()


@pytest.fixture
def documented_server(postgres_server) -> str:
    """The folder of the server's socket; it has the user and the databases that the documentation makes."""
    databases = ("face3d_tune", "face3d_tune_restored")
    postgres_server.psql("create role face3d_tune login;")
    for database in databases:
        postgres_server.psql(f"create database {database} owner face3d_tune;")
    yield str(postgres_server.folder)
    for database in databases:
        postgres_server.psql(f"drop database {database} with (force);")
    postgres_server.psql("drop role face3d_tune;")


@pytest.fixture(scope="session")
def sqlite_without_studies(tmp_path_factory) -> Path:
    """A storage with all its tables, to be copied: making them is most of what a test with a new one would take."""
    from face3d_tune.storage.database import Storage

    path = tmp_path_factory.mktemp("sqlite") / "studies.db"
    with Storage.parse(f"sqlite:///{path.as_posix()}").opened(create=True):
        return path


@pytest.fixture(scope="session")
def postgres_without_studies(postgres_server) -> str:
    """The same on the server: the name of a database."""
    from face3d_tune.storage.database import Storage

    url = Storage.parse(postgres_server.new_database())
    with url.opened(create=True):
        return url.url.database


@pytest.fixture
def postgres_tables_url(postgres_server, postgres_without_studies) -> str:
    """A database of its own, with its tables and without studies."""
    return postgres_server.new_database(like=postgres_without_studies)


@pytest.fixture
def near_server(monkeypatch) -> None:
    """Whatever else this machine does: a server's answer is never used again but under the lock."""
    monkeypatch.setattr("face3d_tune.storage.answers._GOOD", -1)


@pytest.fixture
def far_server(monkeypatch) -> None:
    """Whatever else this machine does: a server's answer is used again during the whole test."""
    monkeypatch.setattr("face3d_tune.storage.answers._GOOD", 1e9)


@pytest.fixture(params=["sqlite", "postgres"])
def storage_url(request) -> str:
    """Each kind of storage in turn, with its tables and without studies."""
    from face3d_tune.storage.database import Storage

    if request.param == "postgres":
        return request.getfixturevalue("postgres_tables_url")
    url = request.getfixturevalue("sqlite_url")
    shutil.copyfile(request.getfixturevalue("sqlite_without_studies"), Storage.parse(url).sqlite_file)
    return url


@pytest.fixture
def quick(quick_study):
    from face3d_tune.study import study_file

    return study_file.read(str(quick_study))


@pytest.fixture
def storage(storage_url):
    from face3d_tune.storage.database import Storage

    with Storage.parse(storage_url).opened() as opened:
        yield opened


@pytest.fixture
def sqlite(sqlite_url, sqlite_without_studies):
    from face3d_tune.storage.database import Storage

    shutil.copyfile(sqlite_without_studies, Storage.parse(sqlite_url).sqlite_file)
    with Storage.parse(sqlite_url).opened() as opened:
        yield opened


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests of a worker."""
    from playwright.sync_api import expect, sync_playwright

    if executable() is None:
        missing = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable(), headless=True, args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="session")
def s3_server():
    """An S3 that keeps everything in memory, and the environment that leads boto3 to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """One bucket, with nothing in it."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL_S3": s3_server,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    while items := client.list_objects_v2(Bucket=BUCKET).get("Contents"):
        for item in items:
            client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()
