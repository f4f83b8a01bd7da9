"""An ensemble that `train --seeds` keeps: its members, what it prints and stores, and how it resumes."""

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import call
from fake_data import unit
from trained import trained

from face3d_tune import seeds
from face3d_tune.cli.console import Console
from face3d_tune.cli.train_ensemble import train_ensemble
from face3d_tune.config import TrialConfig
from face3d_tune.data.face_data import load
from face3d_tune.errors import ConfigError, TrainingError
from face3d_tune.executor.child import Share
from face3d_tune.executor.plan import Plan
from face3d_tune.refit.ensemble_folder import Members, seeds_of
from face3d_tune.study import presets
from face3d_tune.training import baseline_file, kernel_ridge, ridge
from face3d_tune.training.plain import Trainer

CPU = torch.device("cpu")
PLAN = Plan("plain", (Share(CPU, 1),), "")
CONFIG = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=1, epochs=2, batch_size=8, lr=1e-2)
TINY = {name: getattr(CONFIG, name) for name in ("d_model", "dim_feedforward", "nhead", "num_layers", "lr")}


def members(folder, data, count=2, config=CONFIG):
    return Members(folder, config, seeds_of(5, count), data)


def train(wanted, epoch=lambda job, result: None):
    ended = []
    wanted.train(PLAN, "off", lambda number, trained: ended.append(number), epoch)
    return ended


def history(place):
    return json.loads((place / "history.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, data_folder):
    """An ensemble of two members. Do not change it."""
    made = members(tmp_path_factory.mktemp("ensemble"), load(data_folder))
    told = train(made)
    return SimpleNamespace(members=made, told=told, judgement=made.judge(PLAN, {}), folder=made.folder, data=made.data)


def about(wanted):
    return json.loads((wanted.folder / "ensemble.json").read_text(encoding="utf-8"))


def test_the_first_seed_is_the_given_one_and_more_members_leave_the_others_as_they_are():
    assert seeds_of(5, 1) == [5]
    assert seeds_of(5, 3) == [*seeds_of(5, 2), seeds.derive(5, "member", 3)]
    assert len(set(seeds_of(5, 4))) == 4


def test_each_member_is_the_training_of_its_seed(of_two):
    assert of_two.told == [1, 2]
    for number, seed in enumerate(of_two.members.seeds, 1):
        place, alone = of_two.members.place(number), trained(of_two.data, CONFIG, seed)
        assert sorted(path.name for path in place.iterdir()) == ["best_model.pth", "curve.svg", "history.json"]
        held = history(place)
        assert [each["val_loss"] for each in held["epochs"]] == [each.val_loss for each in alone.history]
        assert (held["seed"], held["validation"]["cosine"]) == (seed, pytest.approx(alone.best.val_cosine, abs=1e-6))
        checkpoint = torch.load(place / "best_model.pth", weights_only=True)
        assert checkpoint["best_val_loss"] == alone.best.val_loss
        assert checkpoint["args"]["save_dir"] == str(place)
        assert checkpoint["args"]["data_fingerprint"] == of_two.data.fingerprint()


def test_members_ensemble_baselines_and_both_blends_are_judged_on_validation_people(of_two):
    names = [row.name.partition(", 0")[0].partition(", 1")[0] for row in of_two.judgement.rows]
    assert names == ["no model", "ridge", "kernel ridge", "member 1", "member 2", "ensemble of 2", "blend", "blend"]
    assert of_two.judgement.part == "validation"
    assert about(of_two)["validation"] == json.loads(json.dumps(of_two.judgement.to_dict()["rows"]))


def test_the_folder_says_which_files_and_weights_belong_together(of_two):
    held = about(of_two)
    files = [*held["members"], *held["baselines"].values()]
    assert [each["file"] for each in files] == [
        *("member-1/best_model.pth", "member-2/best_model.pth"),
        *("ridge.npz", "kernel.npz"),
    ]
    for each in files:
        assert each["sha256"] == hashlib.sha256((of_two.folder / each["file"]).read_bytes()).hexdigest()
    assert [each["seed"] for each in held["members"]] == of_two.members.seeds
    weights = {row["baseline"]: row["weight"] for row in held["validation"] if row["kind"] == "blend"}
    assert weights == {
        "ridge": held["baselines"]["ridge"]["weight"],
        "kernel ridge": held["baselines"]["kernel"]["weight"],
    }
    assert TrialConfig(**held["config"]) == CONFIG


def test_the_baselines_of_the_folder_predict_without_training_people(of_two):
    data, pairs = of_two.data, of_two.data.parts["validation"]
    rows = pairs[:, 1]
    for kind, method in (("ridge", ridge), ("kernel", kernel_ridge)):
        held = baseline_file.load(of_two.folder / f"{kind}.npz")
        made = held.predict(data.video_features[rows], data.landmarks[rows], data.poses[rows])
        np.testing.assert_allclose(made, unit(method.fit(data).predict(data, "validation")), rtol=0, atol=1e-5)


def test_only_missing_members_are_trained(tmp_path, data, monkeypatch):
    def interrupt(job, result):
        if job.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(members(tmp_path, data), interrupt)
    before = (tmp_path / "member-1" / "best_model.pth").read_bytes()
    assert members(tmp_path, data).missing() == [2]
    assert train(members(tmp_path, data)) == [2]
    assert train(members(tmp_path, data)) == []
    assert train(members(tmp_path, data, 3)) == [3]
    assert (tmp_path / "member-1" / "best_model.pth").read_bytes() == before
    with pytest.raises(ConfigError, match="member-3 would be one member too many for --seeds 2"):
        members(tmp_path, data).missing()


def test_members_of_another_training_are_refused_and_removed_on_request(tmp_path, data):
    train(members(tmp_path, data))
    other = members(tmp_path, data, config=replace(CONFIG, lr=1e-3))
    with pytest.raises(ConfigError, match="member-1 holds a training with another config, seed or data"):
        other.missing()
    (tmp_path / "member-1" / "mine.txt").write_text("mine", encoding="utf-8")
    other.remove()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]
    assert other.missing() == [1, 2]


def test_a_member_that_diverges_is_named_and_the_others_stay(tmp_path, data, monkeypatch):
    from face3d_tune.errors import NonFiniteError

    train_epoch = Trainer.train_epoch

    def failing(self):
        if self.seed != 5:
            raise NonFiniteError("training loss is nan in epoch 1")
        return train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", failing)
    with pytest.raises(TrainingError, match=r"^member 2 \(seed \d+\): training loss is nan in epoch 1$"):
        train(members(tmp_path, data))
    assert members(tmp_path, data).missing() == [2]


# The command


@pytest.fixture
def tiny(monkeypatch):
    """A preset of moments."""
    monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, "tiny": TINY})


def command(folder, data, *words):
    shared = ("--data-dir", data.source, "--epochs", 2, "--device", "cpu", "--engine", "plain")
    return call("train", "--preset", "tiny", *shared, *words, cwd=folder)


def test_the_table_has_every_row_and_the_same_command_trains_nothing_again(tmp_path, data, tiny):
    answer = command(tmp_path, data, "--seeds", 2, "--seed", 5)
    assert answer.code == 0, answer.err
    assert "training 2 members of tiny into trained/tiny-ensemble" in answer.err
    assert "member 1 (seed 5): cosine 0." in answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    for name in ("no model", "kernel ridge", "member 1", "member 2", "ensemble of 2", "blend, "):
        assert any(line.startswith(name) for line in lines)
    assert "3 validation people, 18 views" in lines
    assert "pooled" not in answer.out
    assert lines[-1] == "wrote trained/tiny-ensemble: member-1 to member-2, ridge.npz, kernel.npz and ensemble.json"
    again = command(tmp_path, data, "--seeds", 2, "--seed", 5)
    assert "\n2 of 2 members are there already\n" in again.err
    assert "member 1 (seed" not in again.err
    assert again.out == answer.out


def test_with_force_the_members_that_are_there_are_trained_again(tmp_path, data, tiny):
    assert command(tmp_path, data, "--seeds", 2, "--seed", 5).code == 0
    (tmp_path / "trained" / "tiny-ensemble" / "member-1" / "curve.svg").write_text("of before")
    answer = command(tmp_path, data, "--seeds", 2, "--seed", 5, "--force")
    assert answer.code == 0, answer.err
    assert "are there already" not in answer.err
    assert "member 1 (seed 5): cosine 0." in answer.err
    assert "<svg" in (tmp_path / "trained" / "tiny-ensemble" / "member-1" / "curve.svg").read_text(encoding="utf-8")


def test_an_interrupt_says_how_many_members_are_there_and_how_to_go_on(of_two, capsys, monkeypatch):
    def interrupted(members, plan, precision, ended, epoch):
        raise KeyboardInterrupt

    monkeypatch.setattr(Members, "train", interrupted)
    more = members(of_two.folder, of_two.data, 3)
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(Console(stderr=True), more, PLAN, "off", "tiny", {}, force=False)
    assert capsys.readouterr().err.endswith("2 of 3 members are there already\nhint: run the same command to resume\n")


def test_a_single_training_is_not_written_into_an_ensemble(tmp_path, data, tiny):
    (tmp_path / "e" / "member-1").mkdir(parents=True)
    answer = command(tmp_path, data, "--out", "e")
    assert answer.code == 2
    assert "e holds an earlier training; use --force, or another --out" in answer.err


def test_a_single_training_uses_one_gpu(tmp_path, data, tiny, monkeypatch):
    gpus = torch.device("cuda:0"), torch.device("cuda:1")
    monkeypatch.setattr("face3d_tune.device.choose_devices", lambda names: gpus)
    answer = command(tmp_path, data, "--device", "cuda:0,cuda:1")
    assert answer.code == 2
    said = "--device names 2 GPUs, and one training uses one; name one, or train several with --seeds"
    assert said in " ".join(answer.err.split())


def test_the_history_of_a_member_names_every_gpu_that_members_trained_on(tmp_path, data):
    """`cpu:0` stands for the second GPU."""
    plan = replace(PLAN, shares=(*PLAN.shares, Share(torch.device("cpu:0"), 1)))
    made = members(tmp_path, data, 1)
    made.train(plan, "off", lambda number, trained: None, lambda job, result: None)
    assert history(made.place(1))["device"] == "cpu,cpu:0"
