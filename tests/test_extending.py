"""What docs/extending.md shows works: its changes are applied to a copy of the project, and searched with."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from stored import of_optuna

from face3d_tune.study.study_file import read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
STUDY = """
[study]
presets = ["recommended", "radians"]
[budget]
trials = 3
epochs = 2
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-5, high = 1e-3, scale = "log" }
pose_unit = ["degrees", "radians"]
weight_decay = { low = 1e-6, high = 1.0, scale = "log" }
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with every change of the page."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("face3d_tune", "studies"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for kind, text in BLOCKS:
        if kind == "python":
            name, _, source = text.partition("\n")
            (copy / name.removeprefix("# ")).write_text(source, encoding="utf-8")
        if kind == "diff":
            subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=text, text=True, cwd=copy, check=True)
    return copy


# Runs commands and programs with the package of its folder, for a line of JSON each; the answer is what was printed.
SERVER = """if True:
    import contextlib, io, json, sys
    from face3d_tune.cli.main import main
    for line in sys.stdin:
        words, source = json.loads(line)
        printed, code = io.StringIO(), 0
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(source, {}) if source else main(words)
            except SystemExit as ended:
                code = ended.code
        print(json.dumps([code, printed.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def answer(extended, tmp_path_factory):
    """Asks the extended package, in one process for all tests; its folder is `answer.place`."""
    place = tmp_path_factory.mktemp("place")
    settings = {**os.environ, "PYTHONPATH": str(extended), "PYTHONIOENCODING": "utf-8"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=place, env=settings, **pipes) as server:

        def ask(words=(), source=None):
            server.stdin.write(json.dumps([[str(word) for word in words], source]) + "\n")
            server.stdin.flush()
            code, printed = json.loads(server.stdout.readline())
            assert code == 0, printed
            return printed

        ask.place = place
        assert ask(source="import face3d_tune; print(face3d_tune.__file__)").startswith(str(extended))
        yield ask
        server.stdin.close()


@pytest.fixture(scope="module")
def call(answer):
    """Runs the extended program; what it printed."""
    return lambda *words: answer(words)


@pytest.fixture(scope="module")
def python(answer):
    """What a program prints that imports the extended package."""
    return lambda source: answer(source=source)


@pytest.fixture(scope="module")
def study(answer, call, data_folder):
    """A search over the page's parameter, with the page's preset and pruner."""
    pruner, space = (text for kind, text in BLOCKS if kind == "toml" and "[study]" not in text)
    text = STUDY + space.removeprefix("[space]\n") + pruner.replace("epoch = 20", "epoch = 1")
    (answer.place / "all.toml").write_text(text, encoding="utf-8")
    call("run", "--study", "all.toml", "--study-name", "all", "--data-dir", data_folder)
    return optuna.load_study(
        study_name="all", storage=of_optuna(f"sqlite:///{(answer.place / 'face3d_tune.db').as_posix()}")
    )


def test_the_page_shows_what_it_speaks_of():
    assert [kind for kind, _ in BLOCKS] == ["toml", "diff", "python", "diff", "toml", "diff", "toml"]


def test_its_study_file_is_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(BLOCKS[0][1], encoding="utf-8")
    file = read(str(path))
    assert set(file.space) == {"lr", "dropout", "pose_unit"}
    assert list(file.presets) == ["baseline", "recommended", "mine"]


def test_its_preset_prints_its_command(call):
    assert "--weight_decay 0.01" in call("presets", "radians")


def test_its_preset_and_its_parameter_are_searched(study):
    recommended, radians, sampled = study.trials
    assert radians.user_attrs["config"]["pose_unit"] == "radians"
    assert recommended.user_attrs["config"]["scheduler_threshold"] == 1e-4  # what the script does
    assert 1e-5 <= sampled.params["scheduler_threshold"] <= 1e-2


def test_its_pruner_prunes_what_is_worse_than_no_model_and_nothing_else(study):
    line = study.user_attrs["no_model_cosine"]
    for trial in study.trials:
        worse = trial.intermediate_values[1] < line
        assert trial.state.name == ("PRUNED" if worse else "COMPLETE")
    assert any(trial.state.name == "PRUNED" for trial in study.trials)


def test_its_parameter_changes_when_the_rate_decays(python):
    asked = """if True:
        import torch
        from face3d_tune.config import TrialConfig
        from face3d_tune.training.base import Evaluation, Training
        Training.__abstractmethods__ = frozenset()
        for threshold in (1e-4, 0.5):
            config = TrialConfig(d_model=8, dim_feedforward=8, scheduler_patience=0, scheduler_threshold=threshold,
                                 loss_type="mse")
            training = Training(config, 0, "off", torch.optim.SGD([torch.zeros(1)], lr=config.lr))
            for loss in (1.0, 0.9):
                result = training.end_epoch(loss, Evaluation(loss, 0.0, {}), 0.0)
            print(result.next_lr)
    """
    # A fall from 1 to 0.9 counts unless half is asked for; then the rate is halved.
    assert python(asked).split() == ["0.0001", "5e-05"]


def test_its_parameter_is_named_by_export_where_no_flag_says_it(python):
    asked = """if True:
        from face3d_tune.config import TrialConfig
        from face3d_tune.script.export import commands
        from face3d_tune.data.provenance import DataUse
        use = DataUse(data_dir="x", feature_size=8, file_pose_unit="degrees", min_yaw=0.0, max_yaw=None)
        for threshold in (1e-4, 0.002):
            print(*commands(TrialConfig(d_model=8, dim_feedforward=8, scheduler_threshold=threshold), use).missing)
    """
    assert python(asked).splitlines() == [
        "",
        "scheduler_threshold = 0.002: train_transformer3D/train_3d.py has no --scheduler_threshold",
    ]
