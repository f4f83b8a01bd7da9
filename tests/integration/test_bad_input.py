"""Whatever is wrong with what is typed: one line, a hint, exit code 2, no traceback, and nothing is lost or made."""

import contextlib
import json
import os
import shutil
import socket
import sqlite3

import optuna
import pytest
from command_line import call
from conftest import QUICK_STUDY
from fake_data import write_data
from stored import of_optuna

from face3d_tune.refit.full_training import FILES
from face3d_tune.study import status

PASSWORD = "s3cr3t-w0rd"
DOWN = f"postgresql://user:{PASSWORD}@127.0.0.1:{{closed_port}}/studies"
RUN = "run --study quick.toml --data-dir data"  # what the stored study was made with

STUDY_FILES = {
    "no_toml.toml": b"[study\n",
    "not_utf8.toml": b'[study]\ndescription = "\xff"\n',
    "unknown_key.toml": b'[space]\nlearning_rate = { low = 1e-5, high = 1e-3, scale = "log" }\n',
    "low_above_high.toml": b"[space]\ndropout = { low = 0.5, high = 0.1 }\n",
    "impossible.toml": b"[space]\ndropout = { low = 0.5, high = 1.5 }\n",
    "no_space.toml": b"[budget]\ntrials = 5\n",
    "sampler.toml": b'[sampler]\nname = "tpi"\n[space]\nlr = [1e-4]\n',
    "pruner.toml": b'[pruner]\nname = "median"\nn_warmup = 5\n[space]\nlr = [1e-4]\n',
    "outside.toml": b'[study]\npresets = ["baseline"]\n[space]\nlr = { low = 1e-3, high = 1e-2 }\n',
}

STORAGES = {  # what --storage names, and what is said about it
    "no URL": ("studies.db", "the storage is not a database URL"),
    "unsupported": (f"mysql://user:{PASSWORD}@host/name", "storage 'mysql' is not supported"),
    "in memory": ("sqlite://", "is in memory: its studies would be lost"),
    "no such folder": ("sqlite:///nowhere/studies.db", "nowhere"),
    "no database": ("sqlite:///text.db", "storage sqlite:///text.db cannot be used: file is not a database"),
    "newer": ("sqlite:///newer.db", "storage sqlite:///newer.db was made by another version of Optuna"),
    "down": (DOWN, "cannot be reached: connection failed: "),
    "bad port": (f"postgresql://user:{PASSWORD}@host:{PASSWORD}/studies", "the storage is not a database URL"),
}
ONLY_READERS = {  # `run` would make these
    "missing": ("sqlite:///mistyped.db", "storage sqlite:///mistyped.db: file does not exist"),
    "without studies": ("sqlite:///empty.db", "storage sqlite:///empty.db holds no studies"),
}
READERS = ("status", "export", "train", "dashboard --no-browser")

LINES = {
    # words
    "rum": "no command named 'rum'; did you mean 'run'?",
    "xyzzy": "no command named 'xyzzy'",
    "data convrt": "no command named 'convrt'; did you mean 'convert'?",
    "run --trails 5": "No such option '--trails'. (Did you mean one of: '--trials', '--turn-angle'?)",
    "status --jsn": "No such option '--jsn'. Did you mean '--json'?",
    "export --shel cmd": "No such option '--shel'. (Did you mean one of: '--baseline', '--help', '--shell'?)",
    "train --epoch 1": "No such option '--epoch'. Did you mean '--epochs'?",
    "dashboard --prt 1": "No such option '--prt'. Did you mean '--port'?",
    "presets --data baseline": "No such option '--data'.",
    "data check --splt none": "No such option '--splt'. Did you mean '--split'?",
    "run 50": "unexpected extra argument (50)",
    "run --trials": "Option '--trials' requires an argument.",
    "data convert data": "Missing argument 'OUT'.",
    "data convert data new": "convert changes nothing without --pose-unit or --inputs",
    # values
    "run --trials 0": "'--trials': 0 is not in the range",
    "run --trials many": "'--trials': 'many' is not a valid integer",
    "run --epochs 0": "'--epochs': 0 is not in the range",
    "run --target 2": "--target 2 is out of range: cosine is -1 to 1",
    "run --target nan": "'--target': nan is not a number",
    "run --seed -1": "'--seed': -1 is not in the range",
    "run --timeout soon": "'soon' is not a duration; expected seconds, or a number with s, m or h, such as 8h",
    "run --worker-timeout 1001h": "'1001h' is not a duration; expected seconds, or a number with s, m or h, such as 8h",
    "run --timeout 0": "'0' is not a duration",
    "run --min-yaw 181": "'--min-yaw': 181.0 is not in the range",
    "run --max-yaw nan": "'--max-yaw': nan is not a number",
    "run --split people": "'--split': 'people' is not one of 'person', 'none'",
    "run --layout flat": "'--layout': 'flat' is not one of 'keypoint', 'pose'",
    "run --amp on": "'--amp': 'on' is not one of",
    "run --device nonsense": "--device nonsense cannot be used",
    "run --device cuda:0,cpu": "--device cuda:0,cpu cannot be used: 'cpu' does not have the form cuda:N",
    "confirm --study-name quick --device cuda:1,cuda:1": "--device cuda:1,cuda:1 names cuda:1 twice",
    "train --study-name quick --device cuda:98,cuda:99": "--device cuda:98 cannot be used",
    "train --study-name quick --device cuda:99": "--device cuda:99 cannot be used",
    "train --trial -1": "'--trial': -1 is not in the range",
    "train --epochs 0": "'--epochs': 0 is not in the range",
    "export --format yaml": "'--format': 'yaml' is not one of",
    "export --shell fish": "'--shell': 'fish' is not one of",
    "presets --feature-size 0": "'--feature-size': 0 is not in the range",
    "dashboard --port 99999": "'--port': 99999 is not in the range",
    "data convert data new --pose-unit turns": "'--pose-unit': 'turns' is not one of 'degrees', 'radians'",
    # studies, trials and presets
    "export --study-name quik": "no study named 'quik'; did you mean 'quick'?",
    "train --study-name quik": "no study named 'quik'; did you mean 'quick'?",
    "export": "which study? this storage holds quick, unstarted",
    "train": "which study? this storage holds quick, unstarted",
    "export --study-name quick --trial 99": "study 'quick' has no trial 99",
    "train --study-name quick --trial 99": "study 'quick' has no trial 99",
    "export --study-name unstarted": "study 'unstarted' has no completed trial yet",
    "train --study-name unstarted": "study 'unstarted' has no completed trial yet",
    "export --study-name unstarted --trial 0": "trial 0 has not started",
    "train --study-name unstarted --trial 0": "trial 0 has not started",
    "presets agressive": "no preset named 'agressive'; did you mean 'aggressive'?",
    "train --preset agressive": "no preset named 'agressive'; did you mean 'aggressive'?",
    "train --preset baseline --trial 1": "--preset goes without --study-name and --trial",
    "train --study-name quick --split none": "--split goes with --preset only; a trial has its study's",
    "train --study-name quick --layout pose": "--layout goes with --preset only",
    "train --study-name quick --max-yaw 45": "--max-yaw goes with --preset only",
    # other conditions than the study's
    "run --study quick.toml --data-dir other": "study 'quick' was made on other data: data, 12 people",
    f"{RUN} --max-yaw 80": "study 'quick' was made on other data",
    f"{RUN} --split none": "study 'quick' was made on other data",
    f"{RUN} --epochs 9": "study 'quick' was made with epochs = 2, now it is 9",
    f"{RUN} --seed 7": "study 'quick' was made with seed = 42, now it is 7",
    f"{RUN} --layout pose": "study 'quick' was made with layout = keypoint, now it is pose",
    "train --study-name quick --data-dir other": "study 'quick' was made on other data",
    # study files
    "run --study defualt": "no study named 'defualt'; did you mean 'default'?",
    "run --study nowhere.toml": "nowhere.toml: No such file or directory",
    "run --study no_toml.toml": "no_toml.toml: not valid TOML",
    "run --study not_utf8.toml": "not_utf8.toml: not UTF-8 at byte",
    "run --study unknown_key.toml": "unknown_key.toml: space.learning_rate is unknown",
    "run --study low_above_high.toml": "low_above_high.toml: space.dropout: low = 0.5 is above high = 0.1",
    "run --study impossible.toml": "impossible.toml: space.dropout = 1.5 is out of range",
    "run --study no_space.toml": "no_space.toml: [space] is empty",
    "run --study outside.toml": "outside.toml: presets.baseline.lr = 0.0001 is outside the search space",
    "run --study sampler.toml --data-dir data": "sampler.toml: sampler.name = 'tpi' is unknown; did you mean 'tpe'?",
    "run --study pruner.toml --data-dir data": "pruner.toml: pruner.n_warmup is unknown; did you mean",
    # data
    "run --study quick.toml --data-dir nowhere": "nowhere: no such folder",
    "run --study quick.toml --data-dir text.db": "text.db: not a folder",
    "run --study quick.toml --data-dir broken": "front_feature.npy: missing",
    "train --study-name quick --data-dir nowhere": "nowhere: no such folder",
    "train --preset baseline --data-dir broken": "front_feature.npy: missing",
    "data convert broken new --pose-unit radians": "front_feature.npy: missing",
    "data convert nowhere new --pose-unit radians": "nowhere: no such folder",
    # places to write to, and to listen on
    "data sample data": "data already has front_feature.npy",
    "data convert data other --pose-unit radians": "other already has front_feature.npy",
    "data sample text.db": "text.db cannot be written",
    "train --study-name quick --out taken": "taken holds an earlier training; use --force, or another --out",
    "train --study-name quick --out text.db": "--out text.db cannot be used: text.db is no folder",
    "train --study-name quick --out text.db/new": "--out text.db/new cannot be used: text.db is no folder",
    "dashboard --no-browser --port {occupied_port}": "cannot listen on 127.0.0.1:",
    "dashboard --no-browser --port 0 --host 192.0.2.1 --token auto": "cannot listen on 192.0.2.1:0",
    # the users' script
    "export --study-name quick --script nowhere.py": "nowhere.py cannot be read: No such file or directory",
    "presets baseline --script quick.toml": "quick.toml",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_folder):
    """A folder with a finished study, one that has not begun, and everything that can be wrong beside them."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(data_folder, folder / "data")
    write_data(folder / "other", seed=1)
    shutil.copytree(data_folder, folder / "broken")
    (folder / "broken" / "front_feature.npy").unlink()
    presets = ', "recommended", "aggressive", "conservative", "quickstart"'
    (folder / "quick.toml").write_text(QUICK_STUDY.replace(presets, ""), encoding="utf-8")  # one is enough
    for name, content in STUDY_FILES.items():
        (folder / name).write_bytes(content)
    (folder / "text.db").write_text("This is no database.\n" * 99, encoding="utf-8")
    (folder / "taken").mkdir()
    (folder / "taken" / FILES[0]).write_bytes(b"an earlier training")
    for words in (f"{RUN} --trials 1", f"{RUN} --timeout 0.001 --study-name unstarted"):
        assert call(*words.split(), cwd=folder).code == 0
    (folder / "face3d_tune.db").rename(folder / "studies.db")
    shutil.copy(folder / "studies.db", folder / "newer.db")
    with contextlib.closing(sqlite3.connect(folder / "newer.db")) as newer, newer:
        newer.execute("update alembic_version set version_num = 'v99.0.0.a'")
    with contextlib.closing(sqlite3.connect(folder / "empty.db")) as empty, empty:
        empty.execute("create table something (else_ integer)")
    return folder


@pytest.fixture(scope="module")
def ports():
    """A port on which something listens, and one on which nothing does."""
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            closed_port = closed.getsockname()[1]
        yield {"occupied_port": occupied.getsockname()[1], "closed_port": closed_port}


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    """A dashboard that starts by mistake ends at once, where it would keep the tests waiting."""
    monkeypatch.setattr("face3d_tune.dashboard.server.Server.serve_forever", lambda server: None)


@pytest.fixture
def type_in(place, ports):
    """Type a line; whatever it does, studies and files must be the same afterwards."""

    def type_line(line, **environment):
        words = line.format(**ports).split()
        return call(*words, cwd=place, FACE3D_TUNE_STORAGE="sqlite:///studies.db", **environment)

    before = stored(place), files(place)
    yield type_line
    assert (stored(place), files(place)) == before


def stored(folder):
    """Every row of every table."""
    with contextlib.closing(sqlite3.connect(folder / "studies.db")) as database:
        return list(database.iterdump())


def files(folder):
    """Every file with its size, but for the locks that stay behind where a search looked at a file."""
    paths = (path for path in folder.rglob("*") if path.suffix != ".lock")
    return {path: path.stat().st_size if path.is_file() else None for path in paths}


def check_refusal(answer, said):
    assert answer.code == 2, answer.err
    assert answer.out == ""
    error, hint = answer.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")
    assert answer.err.count("error:") == 1
    for unwanted in ("Traceback", "Usage:", "error: unexpected", PASSWORD):
        assert unwanted not in answer.err


@pytest.mark.parametrize("line", LINES)
def test_bad_input_is_answered_with_one_line_and_a_hint(type_in, line):
    check_refusal(type_in(line), LINES[line])


@pytest.mark.parametrize(
    ("given", "made_with"),
    [("--epochs 9", "--epochs 2"), ("--seed 7", "--seed 42"), ("--layout pose", "--layout keypoint")],
)
def test_an_option_that_a_study_was_made_without_is_answered_with_the_one_that_continues_it(type_in, given, made_with):
    hint = f"hint: continue it with {made_with}, or start another study with --study-name NEW\n"
    assert type_in(f"{RUN} {given}").err.endswith(hint)


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("command", ["run", *READERS])
def test_a_storage_that_cannot_be_used_is_answered_with_one_line_and_a_hint(type_in, command, kind):
    url, said = STORAGES[kind]
    line = f"{RUN} --trials 9" if command == "run" else command
    check_refusal(type_in(f"{line} --storage {url}"), said)


@pytest.mark.parametrize("kind", ONLY_READERS)
@pytest.mark.parametrize("command", READERS)
def test_commands_that_read_make_no_storage(type_in, command, kind):
    url, said = ONLY_READERS[kind]
    check_refusal(type_in(f"{command} --storage {url}"), said)


@pytest.mark.parametrize("line", ["data check broken", "data check nowhere", "data check text.db"])
def test_data_check_lists_what_is_wrong_and_fails(type_in, line):
    answer = type_in(line)
    assert answer.code == 2
    assert answer.err.startswith("error: 1 problem in ")
    assert "error: " in answer.out


def test_a_folder_that_may_not_be_written_to_is_told_before_training(type_in, place, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # tests that run as root may write anywhere
    answer = type_in("train --study-name quick --out data")
    assert answer.code == 2
    assert answer.err.splitlines()[0] == "error: --out data cannot be used: data may not be written to"


@pytest.mark.parametrize(
    "line",
    [
        "export --study-name quik",
        "run --study nowhere.toml",
        "run --trials 0",
        f"status --storage {DOWN}",
        f"status --storage postgresql://user:{PASSWORD}@host:{PASSWORD}/studies",
    ],
)
def test_debug_shows_the_traceback_before_the_same_words(type_in, line):
    plain = type_in(line)
    answer = type_in(f"{line} --debug")
    assert answer.code == 2
    assert answer.err.startswith("Traceback (most recent call last):\n")
    assert answer.err.endswith(plain.err)
    assert PASSWORD not in answer.err


def test_an_error_of_ours_is_one_line_and_asks_for_a_report(type_in, monkeypatch):
    def fail(_):
        raise ValueError("of two lines,\nof which\n  this is one")

    monkeypatch.setattr(status, "summary", fail)
    answer = type_in("status")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        "error: unexpected ValueError: of two lines, of which this is one",
        "hint: run the same command with --debug for the traceback, and report it",
    ]
    debug = type_in("status --debug")
    assert debug.code == 1
    assert "in fail\n" in debug.err


def test_ctrl_c_is_no_error(type_in, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "summary", interrupt)
    answer = type_in("status")
    assert answer.code == 130
    assert answer.err.split() == ["interrupted"]


def test_a_study_of_another_program_is_named(type_in, place):
    study = optuna.create_study(study_name="theirs", storage=of_optuna(f"sqlite:///{place / 'theirs.db'}"))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    for line in ("export", "train", f"{RUN} --study-name theirs"):
        answer = call(*line.split(), "--storage", "sqlite:///theirs.db", cwd=place)
        assert answer.code == 2
        assert answer.err.startswith("error: study 'theirs' was not made by face3d-tune")
    answer = call("status", "--json", "--storage", "sqlite:///theirs.db", cwd=place)
    assert json.loads(answer.out)["studies"][0]["states"]["complete"] == 1
    (place / "theirs.db").unlink()


def test_a_study_that_cannot_be_searched_makes_no_storage(tmp_path):
    study = tmp_path / "bad.toml"
    study.write_text('[sampler]\nname = "guess"\n[space]\nlr = { low = 1e-5, high = 1e-3 }\n', encoding="utf-8")
    answer = call("run", "--study", "bad.toml", "--storage", "sqlite:///new.db", cwd=tmp_path)
    assert answer.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]
