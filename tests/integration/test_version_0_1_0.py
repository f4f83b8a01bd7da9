"""Studies, checkpoints and artifacts that version 0.1.0 wrote still work: see tests/version_0_1_0/README.md."""

import json
import shutil
import tarfile
from pathlib import Path

import optuna
import pytest
import torch
from command_line import call
from conftest import QUICK_STUDY
from stored import of_optuna

from face3d_tune.study import settings

WRITTEN = Path(__file__).parent.parent / "version_0_1_0"
INPUTS = 'inputs = ["view", "ridge", "kernel"]'
STORAGE = ("--storage", "sqlite:///studies.db")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("version_0_1_0")
    with tarfile.open(WRITTEN / "files.tar.xz") as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture
def place(unpacked, tmp_path) -> Path:
    """A copy of what 0.1.0 wrote, for one test."""
    return Path(shutil.copytree(unpacked, tmp_path / "written"))


def printed(answer):
    assert answer.code == 0, answer.err
    return answer.out


def is_part_of(old, new):
    """Whether `new` says everything that `old` says; keys may be added."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and is_part_of(old[key], new[key]) for key in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(is_part_of, old, new))
    return old == new


def test_status_prints_the_same_numbers(place):
    old = json.loads((WRITTEN / "status.json").read_text(encoding="utf-8"))
    assert is_part_of(old, json.loads(printed(call("status", *STORAGE, "--json", cwd=place))))


def test_export_prints_the_same_config_and_command(place):
    old = json.loads((WRITTEN / "export.json").read_text(encoding="utf-8"))
    words = ("export", *STORAGE, "--study-name", "finished")
    assert is_part_of(old, json.loads(printed(call(*words, "--format", "json", cwd=place))))
    assert printed(call(*words, cwd=place)) == (
        "python train_transformer3D/train_3d.py --data_dir data --d_model 16 --dim_feedforward 64 --nhead 8 "
        "--num_layers 4 --dropout 0.1 --batch_size 32 --epochs 4 --lr 0.0001 --weight_decay 1e-05 --mse_weight 0.5 "
        "--cosine_weight 0.5 --loss_type combined --scheduler_factor 0.5 --scheduler_patience 5 "
        "--scheduler_min_lr 0.0 --early_stopping_patience 0 --early_stopping_min_delta 1e-05\n"
    )


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_the_report_tells_of_the_best_trial_and_its_confirmation(place, form):
    told = printed(call("report", *STORAGE, "--study-name", "finished", "--format", form, "-o", "-", cwd=place))
    for number in ("0.28095193207263947", "0.6912562830580605") if form == "json" else ("0.2810", "0.6913", "0.1767"):
        assert number in told
    assert ("percentile bootstraps of version 0.1.0" in told) == (form != "json")


def test_run_resumes_the_killed_trial_at_its_next_epoch(place):
    words = ("--data-dir", "data", "--study", "one.toml", "--study-name", "interrupted", "--artifacts", "kept")
    answer = call("run", *STORAGE, *words, "--epochs", "40", "--trials", "1", "--json", cwd=place)
    printed(answer)
    (study,) = (
        each
        for each in json.loads(printed(call("status", *STORAGE, "--json", cwd=place)))["studies"]
        if each["study"] == "interrupted"
    )
    assert study["states"] == {"complete": 1, "pruned": 0, "fail": 1, "running": 0, "waiting": 0}
    assert study["best_value"] == pytest.approx(0.327480458550983, abs=1e-4)  # as 0.1.0 itself ended it
    stored = optuna.load_study(
        study_name="interrupted", storage=of_optuna(f"sqlite:///{(place / 'studies.db').as_posix()}")
    )
    assert stored.best_trial.user_attrs["resumed_epochs"] == 17


def test_run_refuses_other_conditions_as_it_would_for_a_study_of_its_own(place):
    words = ("--data-dir", "data", "--study", "one.toml", "--study-name", "interrupted")
    answer = call("run", *STORAGE, *words, "--epochs", "41", "--trials", "1", cwd=place)
    assert answer.code == 2
    assert "epochs" in answer.err


def run_a_wider_space(place):
    """Continue `finished` with a study file that searches what 0.1.0 did not have."""
    (place / "quick.toml").write_text(QUICK_STUDY.replace("[space]", f"[space]\n{INPUTS}"), encoding="utf-8")
    words = ("--data-dir", "data", "--study", "quick.toml", "--study-name", "finished")
    return call("run", *STORAGE, *words, "--epochs", "4", "--trials", "7", cwd=place)


def test_run_continues_a_study_whose_built_in_file_searches_more_since_then(place, monkeypatch):
    monkeypatch.setattr(settings, "STUDIES", Path())  # as if quick.toml were built in
    answer = run_a_wider_space(place)
    assert "0.2810" in printed(answer)
    said = "warning: study 'finished' was made before quick.toml searched inputs, and goes on without"
    assert said in answer.err.splitlines()


def test_run_refuses_a_file_of_the_users_own_that_searches_more(place):
    answer = run_a_wider_space(place)
    assert answer.code == 2
    assert "study 'finished' was made without space.inputs" in answer.err


def test_confirm_knows_its_first_evaluation_of_the_test_people(place):
    words = ("--study-name", "finished", "--data-dir", "data", "--top", "1", "--seeds", "2")
    again = printed(call("confirm", *STORAGE, *words, cwd=place))  # takes the stored trainings, and judges again
    assert "bootstrap" not in again
    told = printed(call("status", *STORAGE, "--json", cwd=place))
    (study,) = (each for each in json.loads(told)["studies"] if each["study"] == "finished")
    old = json.loads((WRITTEN / "status.json").read_text(encoding="utf-8"))["studies"][0]["confirmation"]
    assert is_part_of(old["candidates"], study["confirmation"]["candidates"])


def test_the_weights_kept_by_0_1_0_load(place):
    (path,) = place.glob("kept/finished-*/best/trial-0.pth")
    held = torch.load(path, weights_only=True)
    assert held["epoch"] in range(5)
    assert held["val_cosine_sim_history"][-1] == pytest.approx(0.28095193207263947, abs=1e-12)
    assert held["model_state_dict"]["input_projection.weight"].shape == (16, 16)


def test_a_number_that_changed_would_be_noticed():
    assert is_part_of({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2, "c": 3}], "d": 4})
    assert not is_part_of({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2.1}]})
    assert not is_part_of({"a": 1}, {})
