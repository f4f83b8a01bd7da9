"""Searches on a real PostgreSQL server: the command on it, and several workers at once on one study."""

import re
import threading
from collections import Counter

import optuna
import pytest
import sqlalchemy
import torch
from command_line import start
from optuna.trial import TrialState
from searches import open_search

from face3d_tune.cli.main import main
from face3d_tune.errors import TuneError
from face3d_tune.search.trial_run import Setup
from face3d_tune.storage.database import Storage
from face3d_tune.study import study_file
from face3d_tune.study.settings import Settings

DISTINCT = ["baseline", "recommended", "aggressive", "conservative"]  # quickstart equals recommended
PASSWORD = "tops3cret"


@pytest.fixture
def url(postgres_url):
    """With a password, which this server does not ask for, but which nothing may print."""
    return sqlalchemy.make_url(postgres_url).set(password=PASSWORD).render_as_string(hide_password=False)


def run_words(data_folder, quick_study, *more):
    return ["run", "--data-dir", str(data_folder), "--study", str(quick_study), "--device", "cpu", *more]


def succeed(words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0


def trials_of(url, name="quick"):
    with Storage.parse(url).opened() as opened:
        return optuna.load_study(study_name=name, storage=opened).trials


def test_a_search_runs_on_a_server_and_is_read_from_it_and_no_password_is_printed(
    url, data_folder, quick_study, capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    succeed(run_words(data_folder, quick_study, "--trials", "5", "--epochs", "1", "--storage", url))
    trials = trials_of(url)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    assert [trial.user_attrs["preset"] for trial in trials] == [*DISTINCT, None]
    succeed(["status", "--storage", url])
    succeed(["export", "--storage", url])
    printed = "".join(capfd.readouterr())
    assert "nothing to do" not in printed
    assert "postgresql+psycopg://postgres:***@" in printed
    following = printed.partition("\nNext, with this storage's URL in FACE3D_TUNE_STORAGE:\n")[2]
    assert "  face3d-tune export --study-name quick " in following  # can be pasted as it stands
    assert PASSWORD not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["quick.toml"]  # no SQLite file beside it


def test_the_server_may_be_named_by_the_environment_and_a_second_run_goes_on(
    url, data_folder, quick_study, capfd, monkeypatch
):
    monkeypatch.setenv("FACE3D_TUNE_STORAGE", url)
    succeed(run_words(data_folder, quick_study, "--trials", "1", "--epochs", "1"))
    assert [trial.state for trial in trials_of(url)] == [TrialState.COMPLETE] + [TrialState.WAITING] * 3
    succeed(run_words(data_folder, quick_study, "--trials", "2", "--epochs", "1"))
    assert [trial.state for trial in trials_of(url)] == [TrialState.COMPLETE] * 2 + [TrialState.WAITING] * 2
    succeed(run_words(data_folder, quick_study, "--trials", "2", "--epochs", "1"))
    printed = "".join(capfd.readouterr())
    assert "nothing to do" in printed
    assert PASSWORD not in printed


def test_workers_that_open_a_new_study_at_once_make_it_once_with_every_preset_once(url, data, quick_study):
    file, setup = study_file.read(str(quick_study)), Setup(data, torch.device("cpu"), "off")
    everyone, errors = threading.Barrier(5), []

    def open_it():
        everyone.wait()
        try:
            with Storage.parse(url).opened(create=True) as opened:
                open_search(opened, "quick", file, Settings("keypoint", 1, None), setup).enqueue_presets()
        except TuneError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [trial.user_attrs["preset"] for trial in trials_of(url)] == DISTINCT


def test_two_workers_share_a_study_without_doing_anything_twice(url, data_folder, quick_study, tmp_path):
    words = run_words(data_folder, quick_study, "--trials", "7", "--epochs", "1", "--storage", url)
    workers = [start(*words, cwd=tmp_path) for _ in "ab"]
    printed = ["".join(worker.communicate(timeout=120)) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed

    trials = trials_of(url)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(trials) in (7, 8)  # the other worker may be in its last trial when the seventh ends
    trained = [[int(number) for number in re.findall(r"^#(\d+) ", text, re.MULTILINE)] for text in printed]
    assert Counter(trained[0] + trained[1]) == Counter(range(len(trials)))
    counted = [re.findall(r"^(\d+) of 7 trials finished", text, re.MULTILINE) for text in printed]
    assert all(int(number) >= 7 for (number,) in counted), counted  # those of the other worker too
    presets = Counter(trial.user_attrs["preset"] for trial in trials)
    assert {name: presets[name] for name in DISTINCT} == dict.fromkeys(DISTINCT, 1)
    assert len({trial.user_attrs["seed"] for trial in trials}) == len(trials)
    sampled = [str(trial.params) for trial in trials if trial.user_attrs["preset"] is None]
    assert len(set(sampled)) == len(sampled)
    assert PASSWORD not in "".join(printed)
