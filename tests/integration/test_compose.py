"""docker-compose.yml: valid for Docker's own schema, and its services run as processes, for want of a Docker engine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import compose_file
import optuna
import pytest
from command_line import THEIRS
from forked import Run

import face3d_tune
from face3d_tune.storage.database import Storage
from face3d_tune.study.trials import FINISHED

PASSWORD = "tops3cret/&é $x"
TRIALS = 4
SHORT = ("--epochs", "3")  # that is not what these tests are about
PROGRAMS = {"face3d-tune": [sys.executable, "-m", "face3d_tune"], "python": [sys.executable]}  # also if not installed


class Container:
    """A service as a process: the words, variables, mounts and ports of the file; only where things are differs.

    `more` follows the words.
    """

    def __init__(self, service, folder, host, more=()):
        folder.mkdir()
        self.service, self.folder, self.more, self.process, self.starts = service, folder, more, None, 0
        self.places = {"@postgres/face3d_tune": f"@/face3d_tune?host={host}", "0.0.0.0": "127.0.0.1"}
        for volume in service.get("volumes", []):
            place, inside = volume.removesuffix(":ro").rsplit(":", 1)
            self.places[inside] = place
        for port in service.get("ports", []):
            _, published, inside = port.split(":")
            self.places[inside] = published
        kept = {key: value for key, value in os.environ.items() if not key.startswith((*THEIRS, "PG"))}
        ours = {key: self._placed(value) for key, value in service["environment"].items()}
        self.environment = {
            **kept,
            "HOME": str(folder),
            "PYTHONPATH": str(Path(face3d_tune.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            **ours,
        }

    def _placed(self, text):
        for inside, place in self.places.items():
            text = text.replace(inside, place)
        return text

    def _words(self, words):
        program, *rest = words
        return [*PROGRAMS[program], *map(self._placed, rest)]

    def tend(self):
        """Start it, or do with one that has ended what its restart policy says; whether it runs."""
        code = self.process.poll() if self.process else None
        again = {"on-failure": code != 0, "unless-stopped": True}[self.service["restart"]]
        if self.process is None or (code is not None and again):
            self.starts += 1
            words = self._words([*compose_file.entry_point(self.service), *self.service["command"]])
            assert words[:3] == PROGRAMS["face3d-tune"]
            with (self.folder / f"log{self.starts}").open("w") as log, open(os.devnull) as nothing:
                streams = (nothing.fileno(), log.fileno(), log.fileno())
                self.process = Run([*words[3:], *self.more], cwd=self.folder, env=self.environment, streams=streams)
        return self.process.poll() is None

    def answers(self):
        """Whether its port is open: asking is cheaper than the health check."""
        _, published, _ = self.service["ports"][0].split(":")
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", int(published))) == 0

    def healthy(self, **environment):
        """Whether the health check says so."""
        kind, *words = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        words, where = self._words(words), {"cwd": self.folder, "env": {**self.environment, **environment}}
        if words[:3] == PROGRAMS["face3d-tune"]:
            with Run(words[3:], **where) as asked:
                asked.communicate(timeout=60)
                return asked.returncode == 0
        return subprocess.run(words, **where, capture_output=True, timeout=60, check=False).returncode == 0

    def logs(self):
        return "".join(log.read_text(encoding="utf-8") for log in sorted(self.folder.glob("log*")))

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)


@pytest.fixture
def host(documented_server, postgres_server):
    """The folder of the server's socket, which now asks for the password."""
    rules = Path(documented_server) / "pg_hba.conf"
    before = rules.read_text(encoding="utf-8")
    rules.write_text(f"local all face3d_tune scram-sha-256\n{before}", encoding="utf-8")
    postgres_server.psql(f"alter role face3d_tune password '{PASSWORD}';")
    postgres_server.psql("select pg_reload_conf();")
    yield documented_server
    rules.write_text(before, encoding="utf-8")
    postgres_server.psql("select pg_reload_conf();")


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_the_files_are_valid_for_the_compose_specification():
    files = (compose_file.FILE, compose_file.CUDA)
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_mistake_in_the_file_would_be_noticed(tmp_path):
    mistaken = tmp_path / "docker-compose.yml"
    text = compose_file.FILE.read_text(encoding="utf-8")
    mistaken.write_text(text.replace("stop_grace_period", "stop_grace_time"), encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", mistaken]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert "stop_grace_time" in checked.stdout


@pytest.mark.skipif(os.name == "nt", reason="the server of the tests has a socket file, which Windows has not")
def test_the_services_as_processes_search_to_the_exact_total_under_the_dashboards_eyes(
    host, data_folder, tmp_path, monkeypatch
):
    chosen = {
        "POSTGRES_PASSWORD": PASSWORD,
        "DATA_DIR": str(data_folder),
        "ARTIFACTS_DIR": str(tmp_path / "artifacts"),
        "TRIALS": str(TRIALS),
        "SLOTS": "1",
        "DASHBOARD_PORT": str(free_port()),
    }
    (tmp_path / "artifacts").mkdir()
    services = compose_file.read(chosen)
    workers = [Container(services["worker"], tmp_path / f"worker{number}", host, SHORT) for number in (1, 2)]
    dashboard = Container(services["dashboard"], tmp_path / "dashboard", host)
    assert not workers[0].healthy()  # there is no study yet
    assert not dashboard.healthy()
    deadline, healthy = time.monotonic() + 240, False
    try:
        running = True
        while (running or not healthy) and time.monotonic() < deadline:
            running = any([container.tend() for container in workers])
            dashboard.tend()
            healthy = healthy or (dashboard.answers() and dashboard.healthy() and workers[0].healthy())
            time.sleep(0.2)
        assert not running, "".join(container.logs() for container in (*workers, dashboard))
        assert healthy
        assert dashboard.healthy()
        assert workers[0].healthy()
        assert not workers[0].healthy(PGPASSWORD="another")
    finally:
        for container in (*workers, dashboard):
            container.stop()
    assert not dashboard.healthy()
    assert [(worker.process.returncode, worker.starts) for worker in workers] == [(0, 1)] * 2, workers[0].logs()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with Storage.parse(f"postgresql://face3d_tune@/face3d_tune?host={host}").opened() as storage:
        study = optuna.load_study(study_name="default", storage=storage)
        assert [trial.state in FINISHED for trial in study.trials] == [True] * TRIALS
        assert study.user_attrs["data"]["source"] == str(data_folder)
    assert "tops3cret" not in "".join(container.logs() for container in (*workers, dashboard))
    assert not list(tmp_path.rglob("*.db"))


def test_the_file_for_cuda_changes_only_the_workers_torch_and_reserves_the_gpu():
    environment = {"POSTGRES_PASSWORD": "x"}
    cpu = compose_file.read(environment)
    cuda = compose_file.read(environment, compose_file.FILE, compose_file.CUDA)
    assert cuda["dashboard"] == cpu["dashboard"]
    worker = cuda["worker"]
    assert worker["command"] == cpu["worker"]["command"]
    assert worker["build"]["args"]["TORCH_INDEX"] == ""
    assert worker["image"] != cpu["worker"]["image"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_without_a_password_nothing_starts():
    with pytest.raises(KeyError, match="set POSTGRES_PASSWORD"):
        compose_file.read({})


def test_workers_end_when_the_search_does_and_start_again_when_they_fail():
    services = compose_file.read({"POSTGRES_PASSWORD": "x"})
    assert services["worker"]["restart"] == "on-failure"
    assert services["postgres"]["restart"] == services["dashboard"]["restart"] == "unless-stopped"
    assert all("healthcheck" in service for service in services.values())


def test_workers_share_data_and_artifacts_wherever_they_lie():
    assert compose_file.read({"POSTGRES_PASSWORD": "x"})["worker"]["volumes"][1] == "artifacts:/artifacts"
    chosen = {"POSTGRES_PASSWORD": "x", "DATA_DIR": "/d", "ARTIFACTS_DIR": "/a"}
    worker = compose_file.read(chosen)["worker"]
    assert worker["volumes"] == ["/d:/data:ro", "/a:/artifacts"]
    assert worker["environment"]["FACE3D_TUNE_DATA_DIR"] == "/data"
    assert worker["environment"]["FACE3D_TUNE_ARTIFACTS"] == "/artifacts"


def test_the_image_is_built_from_what_is_there_and_runs_as_no_root():
    worker = compose_file.read({"POSTGRES_PASSWORD": "x"})["worker"]
    lines = worker["build"]["dockerfile_inline"].splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert all((compose_file.ROOT / path).exists() for paths in copied for path in paths)
    last = lines[len(lines) - lines[::-1].index("FROM python:3.13-slim") :]  # the stage that becomes the image
    assert "USER tuner" in last
    assert not any("pip install" in line for line in last)
